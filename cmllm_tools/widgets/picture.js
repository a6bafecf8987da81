// What the widgets that show a map on an image share; put before each one's own module (see picture.py).
// Text from models and users enters by textContent and attributes only.

const SVG = "http://www.w3.org/2000/svg";
const CANVAS = 880; // longest side of the drawing, in pixels; shown at half of it or less

function node(parent, tag, attributes = {}, text) {
  const svg = parent.namespaceURI === SVG || tag === "svg";
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

function bytes(base64) {
  const text = atob(base64);
  const values = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) values[at] = text.charCodeAt(at);
  return values;
}

// 256 colors from little to much. They start transparent, so that the image shows where attention is low.
function colorsOf(palette, opaque) {
  const rgba = bytes(palette);
  return Array.from({ length: 256 }, (_, at) => {
    const [r, g, b, a] = rgba.subarray(4 * at, 4 * at + 4);
    return `rgba(${r},${g},${b},${opaque ? 1 : (a / 255).toFixed(3)})`;
  });
}

const rampOf = (colors) => `linear-gradient(to right, ${colors.filter((_, at) => at % 15 === 0).join(", ")})`;

function drawMap(canvas, data, image, outlines, colors, map, top) {
  const draw = canvas.getContext("2d");
  const scale = canvas.width / data.size[0];
  draw.clearRect(0, 0, canvas.width, canvas.height);
  if (image.complete && image.naturalWidth) draw.drawImage(image, 0, 0, canvas.width, canvas.height);
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

// White with a dark rim: visible on any image and any color of the map. Drawn once, as a mask may have thousands of edges.
function drawOutlines(canvas, { outlines, size }) {
  const draw = canvas.getContext("2d");
  const scale = canvas.width / size[0];
  draw.lineJoin = draw.lineCap = "round";
  for (const [color, extra] of [["#000", 4], ["#fff", 0]]) {
    draw.strokeStyle = draw.fillStyle = color;
    draw.lineWidth = 4 + extra;
    draw.beginPath();
    for (const { lines } of outlines) {
      for (const line of lines) {
        line.forEach(([x, y], at) => (at ? draw.lineTo(x * scale, y * scale) : draw.moveTo(x * scale, y * scale)));
      }
    }
    draw.stroke();
    for (const [x, y] of outlines.filter(({ marked }) => marked).flatMap(({ lines }) => lines.flat())) {
      draw.beginPath();
      draw.arc(x * scale, y * scale, 6 + extra / 2, 0, 2 * Math.PI);
      draw.fill();
    }
  }
}

// The image with a map on it, its color scale, and what is under the pointer. `load` takes what `picture_data` gives;
// `show` a map over cells in percent of the attention on the image, the value of the last color, and words for readers.
function mapOnImage(parent) {
  const canvas = node(parent, "canvas", { role: "img" });
  const scale = node(parent, "div", { class: "scale" });
  node(scale, "span", {}, "0");
  const ramp = node(scale, "span", { class: "ramp" });
  const most = node(scale, "span");
  const reading = node(parent, "div", { class: "reading" });
  const image = new Image();
  const outlines = document.createElement("canvas");
  let data, colors, now;

  const draw = () => now && drawMap(canvas, data, image, outlines, colors, now.map, now.top);

  function load(given) {
    data = given;
    now = undefined;
    colors = colorsOf(data.palette);
    ramp.style.background = rampOf(colors);
    const [width, height] = data.size;
    canvas.width = Math.round(CANVAS * Math.min(1, width / height));
    canvas.height = Math.max(1, Math.round(CANVAS * Math.min(1, height / width)));
    [outlines.width, outlines.height] = [canvas.width, canvas.height];
    drawOutlines(outlines, data);
    image.onload = draw;
    image.src = data.image;
  }

  function show(map, top, spoken, beyond = false) {
    now = { map, top };
    most.textContent = `${top.toPrecision(3)} %${beyond ? " and more" : ""} of the attention on the image`;
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
    reading.textContent = `x ${x.toFixed(0)} y ${y.toFixed(0)}: ${value.toFixed(2)} % of the attention on the image`;
  }

  canvas.addEventListener("pointermove", read);
  canvas.addEventListener("pointerleave", () => (reading.textContent = ""));
  return { load, show, scale };
}

