// What the widgets that show a map on an image share.
// Text from models and users enters by textContent and attributes only.

const SVG = "http://www.w3.org/2000/svg";
const CANVAS = 880; // longest side of the drawing, in pixels
const [WIDEST, HIGHEST] = [440, 800]; // as shown, in CSS pixels; a narrow image may be higher than the first
const NARROW = 120;

export function node(parent, tag, attributes = {}, text) {
  const svg = parent.namespaceURI === SVG || tag === "svg";
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

export function bytes(base64) {
  const text = atob(base64);
  const values = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) values[at] = text.charCodeAt(at);
  return values;
}

// 256 colors from little to much: opaque, or of a strength that little reaches soon; `rise` is its exponent.
export function colorsOf(palette, strength, rise) {
  const rgba = bytes(palette);
  return Array.from({ length: 256 }, (_, at) => {
    const opacity = strength === undefined ? 1 : strength * (at / 255) ** rise;
    return `rgba(${rgba.subarray(4 * at, 4 * at + 3).join()},${opacity.toFixed(3)})`;
  });
}

export const rampOf = (colors) => `linear-gradient(to right, ${colors.filter((_, at) => at % 15 === 0).join(", ")})`;

// The photograph, greyer and darker the stronger the map on it, and darkened where no token looks: as `dimmed` of Python.
function drawPhotograph(canvas, { xs, ys, size, dim, shade }, image, strength) {
  const draw = canvas.getContext("2d");
  const { width, height } = canvas;
  draw.clearRect(0, 0, width, height);
  if (image.complete && image.naturalWidth) draw.drawImage(image, 0, 0, width, height);
  for (const [blend, opacity] of [["saturation", strength], ["source-over", dim * strength]]) {
    [draw.globalCompositeOperation, draw.globalAlpha, draw.fillStyle] = [blend, opacity, "#000"];
    draw.fillRect(0, 0, width, height);
  }
  [draw.globalAlpha, draw.fillStyle] = [1, `rgba(0, 0, 0, ${shade})`];
  const [left, right, top, bottom] = [xs[0], xs.at(-1), ys[0], ys.at(-1)].map((at) => Math.round((at * width) / size[0]));
  const unseen = new Path2D();
  unseen.rect(0, 0, width, height);
  unseen.rect(left, top, right - left, bottom - top);
  draw.fill(unseen, "evenodd");
}

function drawMap(canvas, data, photograph, outlines, colors, map, top) {
  const draw = canvas.getContext("2d");
  const scale = canvas.width / data.size[0];
  draw.clearRect(0, 0, canvas.width, canvas.height);
  draw.drawImage(photograph, 0, 0);
  // Edges fall on whole pixels, so that no seams show between transparent cells.
  const xs = data.xs.map((x) => Math.round(x * scale));
  const ys = data.ys.map((y) => Math.round(y * scale));
  const columns = xs.length - 1;
  map.forEach((value, cell) => {
    const column = cell % columns;
    const row = (cell - column) / columns;
    draw.fillStyle = colors[Math.min(255, Math.round((255 * value) / top))];
    draw.fillRect(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row]);
  });
  draw.drawImage(outlines, 0, 0);
}

// White with a dark rim: visible on any image and any color of the map. Drawn once, as a mask may have
// thousands of edges. `dense` is the number of the canvas's pixels to one of CSS.
function drawOutlines(canvas, { outlines, size }, dense) {
  const draw = canvas.getContext("2d");
  const scale = canvas.width / size[0];
  draw.lineJoin = draw.lineCap = "round";
  for (const [color, rim] of [["#000", 1], ["#fff", 0]]) {
    draw.strokeStyle = draw.fillStyle = color;
    draw.lineWidth = (2 + 2 * rim) * dense;
    draw.beginPath();
    for (const { lines } of outlines) {
      for (const line of lines) {
        line.forEach(([x, y], at) => (at ? draw.lineTo(x * scale, y * scale) : draw.moveTo(x * scale, y * scale)));
      }
    }
    draw.stroke();
    for (const [x, y] of outlines.filter(({ marked }) => marked).flatMap(({ lines }) => lines.flat())) {
      draw.beginPath();
      draw.arc(x * scale, y * scale, (3 + rim) * dense, 0, 2 * Math.PI);
      draw.fill();
    }
  }
}

// The image with a map on it, its color scale, and what is under the pointer. `load` takes what `picture_data` gives;
// `show` a map over cells in percent of the attention on the image, the value of the last color on its own scale and on one
// that is common to all maps, and words for readers. `one` names what the common scale is for.
export function mapOnImage(parent, one, common) {
  const canvas = node(parent, "canvas", { role: "img" });
  const scale = node(parent, "div", { class: "scale" });
  node(scale, "span", {}, "0");
  const ramp = node(scale, "span", { class: "ramp" });
  const most = node(scale, "span");
  const looks = node(parent, "div", { class: "looks" });
  const opacity = node(looks, "label", { title: "How strongly the map is drawn over the photograph" }, "map ");
  const strength = node(opacity, "input", { type: "range", class: "strength", min: 0, max: 1, step: 0.05 });
  const same = node(looks, "label", { title: "To compare maps; else each is drawn up to its own highest value" });
  const shared = node(same, "input", { type: "checkbox", class: "common" });
  shared.checked = common;
  same.append(` one scale for all ${one}`);
  const reading = node(parent, "div", { class: "reading" });
  const image = new Image();
  const [photograph, outlines] = [0, 1].map(() => document.createElement("canvas"));
  let data, colors, now;

  function draw() {
    if (!now) return;
    const top = now.tops[shared.checked ? "common" : "own"];
    const beyond = now.beyond && !shared.checked ? " and more" : "";
    most.textContent = `${top.toPrecision(3)} %${beyond} of the attention on the image`;
    drawMap(canvas, data, photograph, outlines, colors, now.map, top);
  }

  function prepare() {
    colors = colorsOf(data.palette, Number(strength.value), data.rise);
    ramp.style.background = rampOf(colors);
    drawPhotograph(photograph, data, image, Number(strength.value));
    draw();
  }

  function load(given) {
    data = given;
    now = undefined;
    const [width, height] = data.size;
    canvas.width = Math.round(CANVAS * Math.min(1, width / height));
    canvas.height = Math.max(1, Math.round(CANVAS * Math.min(1, height / width)));
    for (const sheet of [photograph, outlines]) [sheet.width, sheet.height] = [canvas.width, canvas.height];
    const high = Math.min(HIGHEST, Math.max(WIDEST, (NARROW * height) / width));
    canvas.style.maxHeight = `${high}px`;
    const wide = Math.min(WIDEST, (high * width) / height);
    parent.style.flexBasis = `${wide}px`;
    drawOutlines(outlines, data, canvas.width / wide);
    strength.value = data.opacity;
    image.onload = prepare;
    image.src = data.image;
    prepare();
  }

  function show(map, tops, spoken, beyond = false) {
    now = { map, tops, beyond };
    canvas.setAttribute("aria-label", `map on the image, ${spoken}`);
    draw();
  }

  function read(event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * data.size[0];
    const y = ((event.clientY - box.top) / box.height) * data.size[1];
    const column = data.xs.findLastIndex((edge) => edge <= x);
    const row = data.ys.findLastIndex((edge) => edge <= y);
    const inside = column >= 0 && row >= 0 && column < data.xs.length - 1 && row < data.ys.length - 1;
    const value = inside ? now.map[row * (data.xs.length - 1) + column] : 0;
    const share = inside ? `${value.toFixed(2)} % of the attention on the image` : "the model does not see this";
    reading.textContent = `x ${x.toFixed(0)} y ${y.toFixed(0)}: ${share}`;
  }

  strength.addEventListener("input", prepare);
  shared.addEventListener("change", draw);
  canvas.addEventListener("pointermove", read);
  canvas.addEventListener("pointerleave", () => (reading.textContent = ""));
  return { load, show, scale, looks };
}

