// @ts-check
// Draw regions on an image. The list of them is the model's `_regions`. What is being drawn lives here and joins the list
// when the pointer is released.
/** @import { RenderProps } from "@anywidget/types" */
/** @import { Tool } from "./picker_parts.js" */
/** @import { Picked } from "./region_list.js" */
/** @import { Position, Region } from "./regions.js" */
import { paperOf } from "./dom.js";
import { frameOf, positionIn } from "./frame.js";
import { ARROWS, keepKeys } from "./keys.js";
import { within } from "./numbers.js";
import { erased, lastMask, painted } from "./painting.js";
import { drawPicture, drawTokens, INK, LAST, penFor } from "./picker_drawing.js";
import { pickerParts, TOOLS } from "./picker_parts.js";
import { regionList } from "./region_list.js";
import { countText, describe, isFlat, regionOf } from "./regions.js";

const SPECK = 9; // square CSS pixels; what the eraser leaves of a mask, if it is less, nobody would see
const NO_BOX = "A box has two corners: drag from one to the other. For a single place, choose Point.";

/**
 * What is being drawn, by a pointer, or by the keys where that is null.
 *
 * @typedef {{ tool: Tool, points: Position[], pointer: number | null }} Stroke
 */

/** @param {RenderProps<Picked>} props */
function render({ model, el }) {
  const [width, height] = model.get("_size");
  const frame = frameOf(width, height, Math.max(1, window.devicePixelRatio || 1));
  const { across, down, scale } = frame;
  const largest = Math.max(8, Math.round(Math.min(width, height) / 2)); // brush

  /** @type {Tool} */
  let tool = "box";
  let brush = Math.max(2, Math.round(Math.min(width, height) / 10)); // diameter in pixels of the image
  let fresh = false; // whether the next stroke begins another mask
  /** @type {Stroke | null} */
  let stroke = null;
  /** @type {Position | null} */
  let hover = null; // where the pointer is, for the outline of the brush
  /** @type {number | null} */
  let entering = null; // the pointer that was pressed beside the image, and whose line begins where it enters
  /** @type {Position | null} */
  let cross = null; // where the keys are
  let refused = ""; // why the last stroke came to nothing

  const parts = pickerParts(el, frame, largest);
  const { root, canvas } = parts;
  const pen = penFor(frame);
  const leaveKeys = keepKeys(() => root);
  const list = regionList(model, refresh);

  /** @param {Region[]} regions */
  function commit(regions) {
    refused = "";
    list.commit(regions);
  }

  function undo() {
    if (stroke) return cancel();
    if (list.undoable()) refused = "";
    list.undo();
  }

  // ---- One stroke, of the pointer or of the keys
  /** @type {(at: Position, pointer: number | null) => void} */
  function begin(at, pointer) {
    stroke = { tool, points: [at], pointer };
    refused = "";
    redraw();
  }

  /** @type {(points: Position[], at: Position) => void} */
  function extend(points, [x, y]) {
    const [lastX, lastY] = points[points.length - 1];
    if (x !== lastX || y !== lastY) points.push([x, y]);
    redraw();
  }

  function cancel() {
    stroke = null;
    refresh();
  }

  /** @param {Stroke} ended */
  function finish({ tool: kind, points }) {
    const region = regionOf(kind, points);
    stroke = null;
    if (region && isFlat(region)) refuse(NO_BOX);
    else if (region) commit([...list.shown(), region]);
    else if (kind === "mask") paint(points);
    else erase(points);
  }

  /** @param {string} words */
  function refuse(words) {
    refused = words;
    refresh();
  }

  /** @param {Position[]} points */
  function paint(points) {
    const shown = list.shown();
    const onto = fresh ? null : lastMask(shown);
    fresh = false;
    commit([...(onto ? shown.slice(0, -1) : shown), painted(onto, frame, points, brush / 2)]);
  }

  /** @param {Position[]} points */
  function erase(points) {
    const left = erased(list.shown(), frame, points, brush / 2, SPECK / scale ** 2);
    if (left) return commit(left);
    refresh();
    say("The eraser takes from masks; there was none where it went.");
  }

  // ---- Pointer
  /** @type {(event: MouseEvent) => Position} */
  function shares({ clientX, clientY }) {
    const box = canvas.getBoundingClientRect();
    return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
  }

  /** @param {MouseEvent} event */
  const position = (event) => positionIn(frame, shares(event));
  /** @param {MouseEvent} event */
  const inside = (event) => shares(event).every((share) => share >= 0 && share <= 1);

  /** @param {PointerEvent} event */
  function press(event) {
    if (!event.isPrimary || event.button !== 0) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    cross = null;
    // A box that begins beside the image begins at its edge, a line where it enters, and a point is where one clicks.
    if (inside(event) || tool === "box") begin(position(event), event.pointerId);
    else if (tool !== "point") entering = event.pointerId;
  }

  canvas.onpointerdown = parts.rim.onpointerdown = press;
  // Beside a picture there may be room, where a mouse may begin as well; a finger scrolls the page there.
  el.onpointerdown = (event) => {
    const beside = (event.target === el || event.target === root) && event.pointerType !== "touch";
    const [, below] = shares(event);
    if (beside && below >= 0 && below <= 1) press(event);
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
    for (const step of steps.length ? steps : [event]) extend(stroke.points, position(step));
  };
  canvas.onpointerup = (event) => {
    entering = null;
    if (stroke?.pointer !== event.pointerId) return;
    extend(stroke.points, position(event));
    finish(stroke);
  };
  canvas.onpointercancel = () => {
    entering = null;
    cancel();
  };
  canvas.onpointerleave = () => {
    hover = null;
    redraw();
  };

  // ---- Keys. Those that are used here must not reach the notebook, where b would insert a cell.
  root.addEventListener("keydown", (event) => {
    if (!type(event)) return;
    event.preventDefault();
    event.stopPropagation();
  });

  /**
   * Beside the image, arrows move the slider, and Enter presses a button.
   *
   * @param {KeyboardEvent} event
   * @returns whether the key was used.
   */
  function type({ key, target, shiftKey, ctrlKey, metaKey, altKey, repeat }) {
    if (altKey) return false;
    if (ctrlKey || metaKey) {
      if (key === "z") undo();
      return key === "z";
    }
    const chosen = TOOLS.find((one) => one.key === key.toLowerCase());
    if (chosen) choose(chosen.name);
    else if (key === "n") parts.newMask.click();
    else if (key === "[" || key === "]") resizeBrush(brush + (key === "]" ? 1 : -1) * Math.ceil(brush / 10));
    else if (key === "Escape" && stroke) cancel();
    else if (target !== canvas) return false;
    else if (key in ARROWS) moveCross(ARROWS[key], shiftKey ? 1 : Math.max(1, Math.round(8 / scale)));
    else if (key !== "Enter" && key !== " ") return false;
    else if (!repeat) setCross();
    return true;
  }

  /** @type {(direction: [number, number], step: number) => void} */
  function moveCross([right, below], step) {
    const [x, y] = (cross ?? [width / 2, height / 2]).map(Math.round);
    cross = [within(x + right * step, width), within(y + below * step, height)];
    hover = null;
    if (stroke) extend(stroke.points, cross);
    redraw();
    say(`Cross at x ${cross[0]}, y ${cross[1]} px${stroke ? `; drawing with the tool ${stroke.tool}` : ""}.`);
  }

  function setCross() {
    if (!cross) return moveCross([0, 0], 0); // show first where it is
    if (stroke) return finish(stroke);
    if (tool === "point") return finish({ tool, points: [cross], pointer: null });
    begin(cross, null);
    say(`Set down at x ${cross[0]}, y ${cross[1]} px. Move, then press Enter again.`);
  }

  /** @param {Tool} name */
  function choose(name) {
    stroke = null;
    tool = name;
    refused = "";
    refresh();
  }

  /** @param {number} value */
  function resizeBrush(value) {
    brush = within(value, largest, 1);
    refresh();
  }

  parts.tools.forEach((one, index) => {
    one.onclick = () => choose(TOOLS[index].name);
  });
  parts.undo.onclick = undo;
  parts.clear.onclick = () => commit([]);
  parts.brush.oninput = () => resizeBrush(Number(parts.brush.value));
  parts.newMask.onclick = () => {
    fresh = !fresh;
    refresh();
  };

  // ---- What is on screen
  /** @param {string} words */
  function say(words) {
    parts.status.textContent = words;
  }

  function refresh() {
    const { label, hint } = TOOLS.find(({ name }) => name === tool) ?? TOOLS[0];
    const shown = list.shown();
    const last = shown.at(-1);
    const number = countText(shown);
    parts.tools.forEach((one, index) => {
      one.ariaPressed = String(TOOLS[index].name === tool);
    });
    parts.brush.disabled = tool !== "mask" && tool !== "eraser";
    parts.brush.value = String(brush);
    parts.diameter.textContent = `${brush} px`;
    parts.newMask.disabled = tool !== "mask" || !lastMask(shown);
    fresh = fresh && !parts.newMask.disabled;
    parts.newMask.ariaPressed = String(fresh);
    parts.undo.disabled = !list.undoable();
    parts.clear.disabled = !last;
    canvas.ariaLabel = `Image of ${width} by ${height} pixels, ${number}. Tool: ${label}. ${hint}`;
    say(last ? `${number}; last: ${describe(last)}.` : hint);
    showProblem();
    redraw();
  }

  function showProblem() {
    parts.problem.textContent = refused || model.get("_error") || model.get("_note");
    parts.problem.classList.toggle("cmllm-error", Boolean(refused || model.get("_error")));
  }

  function showTokens() {
    const boxes = model.get("_boxes");
    parts.seen.hidden = !boxes.length;
    paperOf(parts.tokens).clearRect(0, 0, across, down);
    if (boxes.length && parts.showTokens.checked) drawTokens(parts.tokens, frame, boxes, model.get("_weights"));
  }

  let awaited = 0; // the animation frame in which all is drawn anew

  function redraw() {
    if (!awaited) awaited = requestAnimationFrame(drawRegions);
  }

  function drawRegions() {
    const paper = paperOf(canvas);
    const brushing = tool === "mask" || tool === "eraser";
    const shown = list.shown();
    awaited = 0;
    paper.clearRect(0, 0, across, down);
    for (const region of shown) if (region.kind === "mask") paper.drawImage(pen.sheetOf(region), 0, 0);
    if (stroke && brushing) pen.sweep(paper, stroke.points, brush, tool === "mask");
    shown.forEach((region, index) => {
      pen.outline(paper, region, index === shown.length - 1 && !stroke ? LAST : INK);
    });
    const drawn = stroke && regionOf(stroke.tool, stroke.points);
    if (drawn) pen.outline(paper, drawn, LAST);
    const at = cross ?? hover;
    if (at && brushing) pen.ring(paper, at, brush);
    if (cross) pen.cross(paper, cross);
  }

  parts.showTokens.onchange = showTokens;
  const listeners = {
    _regions: list.receive,
    _error: showProblem,
    _note: showProblem,
    _boxes: showTokens,
    _weights: showTokens,
  };
  for (const [name, listener] of Object.entries(listeners)) model.on(`change:${name}`, listener);
  drawPicture(parts.picture, frame, model.get("_image")).then(() => {
    parts.stage.dataset.ready = "true";
  });
  showTokens();
  refresh();
  return () => {
    leaveKeys();
    el.onpointerdown = null;
    for (const [name, listener] of Object.entries(listeners)) model.off(`change:${name}`, listener);
  };
}

export default { render };
