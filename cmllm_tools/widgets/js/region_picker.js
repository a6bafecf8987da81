import { keepKeys } from "./keys.js";
import { NO_BOX, add, button, decode, describe, encode, fillStroke, has, same, within } from "./regions.js";

// Draw regions on an image. A region is the plain data of Region.to_json in regions.py, in pixels of the image; the list
// of them is the model's `_regions`. What is being drawn lives here and joins the list when the pointer is released.

const [WIDEST, TALLEST] = [640, 560]; // CSS pixels
const [NARROW, HIGHEST] = [160, 900]; // an image narrower than the first may be this high
const LEAST_WIDTH = 430; // of the tools and the words
const RIM_WIDTH = 16; // around the image, where a box may begin; as in the style sheet
const SPECK = 9; // square CSS pixels; what the eraser leaves of a mask, if it is less, nobody would see
const SMALL = 400; // an image below this is magnified by a whole number
const RIM = "rgba(0, 0, 0, 0.8)";
const INK = "#ffffff";
const [YELLOW, BLUE] = ["240, 228, 66", "0, 114, 178"]; // of Okabe and Ito's palette
const LAST = `rgb(${YELLOW})`; // the last region

const TOOLS = [
  { name: "box", label: "Box", key: "b", hint: "Drag from corner to corner." },
  { name: "mask", label: "Mask", key: "m", hint: "Paint; strokes join until New mask is pressed." },
  { name: "eraser", label: "Eraser", key: "e", hint: "Rub out parts of masks." },
  { name: "scribble", label: "Scribble", key: "s", hint: "Draw a line." },
  { name: "point", label: "Point", key: "p", hint: "Click." },
];
const KEYS =
  "b, m, e, s, p: tools. [ and ]: brush size. n: new mask. Ctrl-Z: undo. On the image, arrow keys move a cross (with " +
  "Shift by one pixel); Enter or Space sets it down and lifts it: corners of a box, ends of a line, a point. Esc cancels.";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function render({ model, el }) {
  const [width, height] = model.get("_size");
  const tallest = Math.min(HIGHEST, Math.max(TALLEST, (NARROW * height) / width));
  const fit = Math.min(WIDEST / width, tallest / height);
  const scale = fit < 1 ? fit : Math.max(1, Math.min(Math.floor(SMALL / Math.max(width, height)), Math.floor(fit)));
  const dense = Math.max(1, window.devicePixelRatio || 1);
  const [across, down] = [width, height].map((side) => Math.max(1, Math.round(side * scale * dense))); // of the canvases
  const largest = Math.max(8, Math.round(Math.min(width, height) / 2)); // brush

  const history = []; // earlier lists of regions, for undo
  let shown = model.get("_regions"); // the list as this view last saw it
  let tool = "box";
  let brush = Math.max(2, Math.round(Math.min(width, height) / 10)); // diameter in pixels of the image
  let fresh = false; // whether the next stroke begins another mask
  let stroke = null; // { tool, points, pointer } while something is drawn; pointer is null for the keys
  let hover = null; // where the pointer is, for the outline of the brush
  let entering = null; // the pointer that was pressed beside the image, and whose line begins where it enters
  let cross = null; // where the keys are
  let refused = ""; // why the last stroke came to nothing

  // ---- The parts of the view
  const root = add(el, "div", { className: "cmllm-picker" });
  const leaveKeys = keepKeys(() => root);
  const bar = add(root, "div", { className: "cmllm-bar", role: "toolbar", ariaLabel: "Drawing tools" });
  const group = add(bar, "span", { className: "cmllm-group" });
  const tools = TOOLS.map((one) => button(group, one.label, `${one.hint} (key ${one.key})`, () => choose(one.name)));
  const undoButton = button(bar, "Undo", "Take the last change back (Ctrl-Z)", () => undo());
  const clearButton = button(bar, "Clear", "Remove all regions", () => commit([]));
  const tokensLabel = add(bar, "label", { title: "What each visual token sees; blue: its weight in the regions" });
  const tokensBox = add(tokensLabel, "input", { type: "checkbox", checked: true, onchange: drawTokens });
  tokensLabel.append("visual tokens");
  const painting = add(bar, "span", { className: "cmllm-painting" });
  const size = add(painting, "label", { className: "cmllm-size", title: "Diameter in pixels of the image ([ and ])" });
  size.append("Brush");
  const slider = add(size, "input", { type: "range", min: 1, max: largest, ariaLabel: "Brush size in pixels" });
  slider.oninput = () => resizeBrush(Number(slider.value));
  const sizeText = add(size, "span", { className: "cmllm-number" });
  const newMask = button(painting, "New mask", "The next stroke begins a mask (key n)", () => refresh((fresh = !fresh)));

  const stage = add(root, "div", { className: "cmllm-stage" });
  stage.style.width = `${across / dense}px`;
  root.style.width = `${Math.max(across / dense, LEAST_WIDTH) + 2 * RIM_WIDTH}px`; // whatever is said in it
  const rim = add(stage, "div", { className: "cmllm-rim" });
  const [picture, tokens, canvas] = ["picture", "tokens", "drawing"].map((name) =>
    add(stage, "canvas", { className: `cmllm-${name}`, width: across, height: down, ariaHidden: name !== "drawing" }),
  );
  Object.assign(canvas, { tabIndex: 0, role: "application", ariaDescription: KEYS });
  const status = add(root, "div", { className: "cmllm-status", role: "status" });
  const problem = add(root, "div", { className: "cmllm-problem", role: "alert" });
  const help = add(root, "details", {});
  add(help, "summary", { textContent: "Keys" });
  add(help, "div", { textContent: KEYS });

  // ---- Changes of the list
  function commit(regions) {
    history.push(shown);
    send(regions);
  }

  const undo = () => (stroke ? cancel() : history.length && send(history.pop()));

  function send(regions) {
    [shown, refused] = [regions, ""];
    model.set("_error", ""); // Python answers with an error where the new list is no good
    model.set("_regions", regions);
    model.save_changes();
    refresh();
  }

  function receive() {
    const regions = model.get("_regions");
    if (same(regions, shown)) return;
    // Python put the last valid list back, which is no step to undo, or someone set other regions, which is.
    if (history.length && same(regions, history.at(-1))) history.pop();
    else history.push(shown);
    shown = regions;
    refresh();
  }

  // ---- One stroke, of the pointer or of the keys
  const begin = (at, pointer) => {
    [stroke, refused] = [{ tool, points: [at], pointer }, ""];
    redraw();
  };
  const extend = (at) => redraw(same(at, stroke.points.at(-1)) || stroke.points.push(at));
  const cancel = () => refresh((stroke = null));

  function finish() {
    const { tool: kind, points } = stroke;
    const [first, last] = [points[0], points.at(-1)];
    stroke = null;
    if (kind === "box") drawBox(first, last);
    else if (kind === "point") commit([...shown, { kind, position: last }]);
    else if (kind === "scribble") commit([...shown, { kind, points }]);
    else if (kind === "mask") paintMask(points);
    else eraseMasks(points);
  }

  function drawBox(...corners) {
    const [[left, right], [top, bottom]] = [0, 1].map((axis) => corners.map((at) => at[axis]).sort((a, b) => a - b));
    if (left === right || top === bottom) return refuse(NO_BOX);
    return commit([...shown, { kind: "box", corners: [left, top, right, bottom] }]);
  }

  const refuse = (words) => refresh((refused = words));

  function paintMask(points) {
    const onto = !fresh && shown.at(-1)?.kind === "mask" ? [shown.at(-1)] : [];
    const pixels = onto.length ? decode(onto[0]) : new Uint8Array(width * height);
    fillStroke(pixels, width, height, points, brush / 2, 1);
    fresh = false;
    commit([...shown.slice(0, shown.length - onto.length), encode(pixels, width, height)]);
  }

  function eraseMasks(points) {
    let touched = false;
    const left = shown.flatMap((region) => {
      const pixels = region.kind === "mask" ? decode(region) : null;
      if (!pixels || !fillStroke(pixels, width, height, points, brush / 2, 0)) return [region];
      touched = true;
      return has(pixels, SPECK / scale ** 2) ? [encode(pixels, width, height)] : [];
    });
    if (touched) return commit(left);
    refresh();
    return say("The eraser takes from masks; there was none where it went.");
  }

  // ---- Pointer. Positions are rounded to what the screen can resolve, so that regions have short numbers.
  function shares({ clientX, clientY }) {
    const frame = canvas.getBoundingClientRect();
    return [(clientX - frame.left) / frame.width, (clientY - frame.top) / frame.height];
  }

  function position(event) {
    const digits = scale > 1 ? 10 : 1;
    const at = shares(event);
    return [width, height].map((side, axis) => within(Math.round(at[axis] * side * digits) / digits, side));
  }

  const inside = (event) => shares(event).every((share) => share >= 0 && share <= 1);

  canvas.onpointerdown = rim.onpointerdown = (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    cross = null;
    // A box that begins beside the image begins at its edge, a line where it enters, and a point is where one clicks.
    if (inside(event) || tool === "box") begin(position(event), event.pointerId);
    else if (tool !== "point") entering = event.pointerId;
  };
  // Beside a picture there may be room, where a mouse may begin as well; a finger scrolls the page there.
  el.onpointerdown = (event) => {
    const beside = [el, root].includes(event.target) && event.pointerType !== "touch";
    const [, down] = shares(event);
    if (beside && down >= 0 && down <= 1) canvas.onpointerdown(event);
  };
  canvas.onpointermove = (event) => {
    if (!event.isPrimary) return;
    hover = position(event);
    redraw();
    if (entering === event.pointerId && inside(event)) {
      entering = null;
      begin(hover, event.pointerId);
    }
    if (stroke?.pointer !== event.pointerId) return;
    const steps = event.getCoalescedEvents?.() ?? []; // between two frames
    (steps.length ? steps : [event]).forEach((step) => extend(position(step)));
  };
  canvas.onpointerup = (event) => {
    entering = null;
    if (stroke?.pointer === event.pointerId) finish(extend(position(event)));
  };
  canvas.onpointercancel = () => cancel((entering = null));
  canvas.onpointerleave = () => redraw((hover = null));

  // ---- Keys. Those that are used here must not reach the notebook, where b would insert a cell.
  root.addEventListener("keydown", (event) => press(event) && (event.preventDefault(), event.stopPropagation()));

  function press({ key, target, shiftKey, ctrlKey, metaKey, altKey, repeat }) {
    if (altKey) return false;
    if (ctrlKey || metaKey) return key === "z" && (undo(), true);
    const chosen = TOOLS.find((one) => one.key === key.toLowerCase());
    if (chosen) choose(chosen.name);
    else if (key === "n") newMask.click();
    else if (key === "[" || key === "]") resizeBrush(brush + (key === "]" ? 1 : -1) * Math.ceil(brush / 10));
    else if (key === "Escape" && stroke) cancel();
    else if (target !== canvas) return false; // arrows move the slider, Enter presses a button
    else if (key in ARROWS) moveCross(ARROWS[key], shiftKey ? 1 : Math.max(1, Math.round(8 / scale)));
    else if (key !== "Enter" && key !== " ") return false;
    else if (!repeat) setCross();
    return true;
  }

  function moveCross(direction, step) {
    const [x, y] = (cross ?? [width / 2, height / 2]).map((at, axis) => Math.round(at) + direction[axis] * step);
    cross = [within(x, width), within(y, height)];
    hover = null;
    if (stroke) extend(cross);
    redraw();
    say(`Cross at x ${cross[0]}, y ${cross[1]} px${stroke ? `; drawing with the tool ${stroke.tool}` : ""}.`);
  }

  function setCross() {
    if (!cross) return moveCross([0, 0], 0); // show first where it is
    if (stroke) return finish();
    begin(cross, null);
    if (tool === "point") return finish();
    return say(`Set down at x ${cross[0]}, y ${cross[1]} px. Move, then press Enter again.`);
  }

  const choose = (name) => refresh(([stroke, tool, refused] = [null, name, ""]));
  const resizeBrush = (value) => refresh((brush = within(value - 1, largest - 1) + 1));

  // ---- What is on screen
  const say = (words) => (status.textContent = words);

  function refresh() {
    const { label, hint } = TOOLS.find(({ name }) => name === tool);
    const number = shown.length === 1 ? "1 region" : `${shown.length || "no"} regions`;
    tools.forEach((one, index) => (one.ariaPressed = String(TOOLS[index].name === tool)));
    slider.disabled = tool !== "mask" && tool !== "eraser";
    slider.value = brush;
    sizeText.textContent = `${brush} px`;
    newMask.disabled = tool !== "mask" || shown.at(-1)?.kind !== "mask";
    fresh = fresh && !newMask.disabled;
    newMask.ariaPressed = String(fresh);
    undoButton.disabled = !history.length;
    clearButton.disabled = !shown.length;
    canvas.ariaLabel = `Image of ${width} by ${height} pixels, ${number}. Tool: ${label}. ${hint}`;
    say(shown.length ? `${number}; last: ${describe(shown.at(-1))}.` : hint);
    showProblem();
    redraw();
  }

  const showProblem = () => {
    problem.textContent = refused || model.get("_error") || model.get("_note");
    problem.classList.toggle("cmllm-error", Boolean(refused || model.get("_error")));
  };

  function drawTokens() {
    const paper = tokens.getContext("2d");
    const [boxes, weights] = [model.get("_boxes"), model.get("_weights")];
    tokensLabel.hidden = !boxes.length;
    paper.clearRect(0, 0, across, down);
    if (!boxes.length || !tokensBox.checked) return;
    const cells = boxes.map(([x0, y0, x1, y1]) => {
      const [left, top, right, bottom] = [...place([x0, y0]), ...place([x1, y1])].map(Math.round); // no seams between them
      return [left, top, right - left, bottom - top];
    });
    paper.fillStyle = "rgba(0, 0, 0, 0.6)"; // what no token sees
    paper.fillRect(0, 0, across, down);
    cells.forEach((cell) => paper.clearRect(...cell));
    cells.forEach((cell, index) => {
      paper.fillStyle = `rgba(${BLUE}, ${(0.65 * (weights[index] ?? 0)).toFixed(3)})`;
      paper.fillRect(...cell);
    });
    const areas = cells.map(([, , right, below]) => right * below);
    const least = Math.min(...areas.filter((area) => area > 0));
    cells.forEach(([x, y, right, below], index) => {
      const coarse = areas[index] > 2 * least; // a token of the thumbnail, over those of the tiles
      paper.setLineDash(coarse ? [5 * dense, 4 * dense] : []);
      paper.lineWidth = coarse ? 1.5 * dense : dense;
      const strength = (least < 100 * dense ** 2 ? 0.2 : 0.4) + 0.5 * (weights[index] ?? 0); // seen also where blue is not
      paper.strokeStyle = coarse ? `rgba(${YELLOW}, 0.7)` : `rgba(255, 255, 255, ${strength})`;
      paper.strokeRect(x + 0.5, y + 0.5, right, below);
    });
  }

  let frame = 0;
  const redraw = () => (frame ||= requestAnimationFrame(drawRegions));

  function drawRegions() {
    const paper = canvas.getContext("2d");
    const brushing = tool === "mask" || tool === "eraser";
    frame = 0;
    paper.clearRect(0, 0, across, down);
    shown.filter(({ kind }) => kind === "mask").forEach((mask) => paper.drawImage(sampled(mask), 0, 0));
    if (stroke && brushing) {
      // Cleared first also where it is painted, so that it has one shade with the mask that it joins.
      for (const mode of tool === "mask" ? ["destination-out", "source-over"] : ["destination-out"]) {
        [paper.lineCap, paper.lineJoin, paper.lineWidth] = ["round", "round", brush * scale * dense];
        paper.globalCompositeOperation = mode;
        paper.strokeStyle = mode === "source-over" ? `rgba(${YELLOW}, 0.45)` : "#000";
        paper.stroke(line(stroke.points));
      }
    }
    shown.forEach((region, index) => outline(paper, region, index === shown.length - 1 && !stroke ? LAST : INK));
    if (stroke) {
      const [first, last] = [stroke.points[0], stroke.points.at(-1)];
      outline(paper, { kind: tool, corners: [...first, ...last], points: stroke.points, position: last }, LAST);
    }
    const at = cross ?? hover;
    if (at && brushing) trace(paper, INK, circle(at, (brush / 2) * scale * dense));
    if (cross) {
      trace(paper, INK, line([[cross[0], 0], [cross[0], height]]));
      trace(paper, INK, line([[0, cross[1]], [width, cross[1]]]));
    }
  }

  function outline(paper, { kind, corners, points, position: at }, color) {
    if (kind === "box") {
      const [x0, y0, x1, y1] = corners;
      trace(paper, color, line([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]));
    } else if (kind === "scribble") trace(paper, color, line(points), 1.5);
    else if (kind === "point") [7 * dense, 1.5 * dense].forEach((radius) => trace(paper, color, circle(at, radius)));
  }

  // A line with a dark rim shows on any image.
  function trace(paper, color, path, weight = 1) {
    [paper.lineCap, paper.lineJoin, paper.globalCompositeOperation] = ["round", "round", "source-over"];
    for (const [style, wide] of [[RIM, 4], [color, 2]]) {
      [paper.strokeStyle, paper.lineWidth] = [style, wide * weight * dense];
      paper.stroke(path);
    }
  }

  const place = ([x, y]) => [(x * across) / width, (y * down) / height];
  const line = (points) => new Path2D(`M${place(points[0])} L${points.map((point) => place(point)).join(" L")}`);
  const circle = (centre, radius) => {
    const path = new Path2D();
    path.arc(...place(centre), radius, 0, 2 * Math.PI);
    return path;
  };

  // A mask at the resolution of the screen, with the screen pixels on its border dark.
  const masks = new WeakMap();
  function sampled(region) {
    if (masks.has(region)) return masks.get(region);
    const pixels = decode(region);
    const columns = Array.from({ length: across }, (_, i) => Math.floor(((i + 0.5) * width) / across));
    const rows = Array.from({ length: down }, (_, j) => Math.floor(((j + 0.5) * height) / down) * width);
    const on = (i, j) => i >= 0 && j >= 0 && i < across && j < down && pixels[rows[j] + columns[i]];
    const reach = Math.ceil(dense);
    const sheet = Object.assign(document.createElement("canvas"), { width: across, height: down });
    const colors = sheet.getContext("2d").createImageData(across, down);
    for (let at = 0; at < across * down; at++) {
      const [i, j] = [at % across, Math.floor(at / across)];
      if (!on(i, j)) continue;
      const inner = on(i - reach, j) && on(i + reach, j) && on(i, j - reach) && on(i, j + reach);
      colors.data.set(inner ? [240, 228, 66, 115] : [0, 0, 0, 200], 4 * at);
    }
    sheet.getContext("2d").putImageData(colors, 0, 0);
    masks.set(region, sheet);
    return sheet;
  }

  const listeners = { _regions: receive, _error: showProblem, _note: showProblem };
  Object.assign(listeners, { _boxes: drawTokens, _weights: drawTokens });
  Object.entries(listeners).forEach(([name, listener]) => model.on(`change:${name}`, listener));
  createImageBitmap(new Blob([model.get("_image")])).then((image) => {
    const paper = picture.getContext("2d");
    [paper.imageSmoothingEnabled, paper.imageSmoothingQuality] = [scale < 3, "high"]; // few pixels are shown as squares
    paper.drawImage(image, 0, 0, across, down);
    stage.dataset.ready = "true";
  });
  drawTokens();
  refresh();
  return () => {
    leaveKeys();
    el.onpointerdown = null;
    Object.entries(listeners).forEach(([name, listener]) => model.off(`change:${name}`, listener));
  };
}

export default { render };
