// @ts-check
// A map on an image, with its color scale and what is under the pointer: shared by the widgets that show one.
/** @import { PictureData } from "./picture_drawing.js" */
import { cellAt } from "./cells.js";
import { colorsOf, rampOf } from "./colors.js";
import { add } from "./dom.js";
import { drawMap, drawOutlines, drawPhotograph } from "./picture_drawing.js";

const CANVAS = 880; // longest side of the drawing, in pixels
const [WIDEST, HIGHEST] = [440, 800]; // as shown, in CSS pixels; a narrow image may be higher than the first
const NARROW = 120;

/**
 * A map that is shown.
 *
 * @typedef {object} Shown
 * @property {Float32Array} map over cells, in percent of what is on the image
 * @property {{ own: number, common: number }} tops value of the last color, on its own scale and on that of all maps
 * @property {string} spoken words for readers
 * @property {boolean} [beyond] whether there are values above its own top
 */

/**
 * @param {HTMLElement} parent
 * @param {string} many what the common scale is for
 * @param {boolean} common whether that is the scale at first
 */
export function mapOnImage(parent, many, common) {
  const canvas = add(parent, "canvas", { role: "img" });
  const scale = add(parent, "div", { className: "scale" });
  add(scale, "span", { textContent: "0" });
  const ramp = add(scale, "span", { className: "ramp" });
  const most = add(scale, "span");
  const looks = add(parent, "div", { className: "looks" });
  const opacity = add(looks, "label", { title: "How strongly the map is drawn over the photograph", textContent: "map " });
  const strength = add(opacity, "input", { type: "range", className: "strength", min: "0", max: "1", step: "0.05" });
  const same = add(looks, "label", { title: "To compare maps; else each is drawn up to its own highest value" });
  const shared = add(same, "input", { type: "checkbox", className: "common", checked: common });
  same.append(` one scale for all ${many}`);
  const reading = add(parent, "div", { className: "reading" });
  /** @type {Map<string, HTMLImageElement>} by their addresses, as frames of a video come again */
  const images = new Map();
  const [photograph, outlines] = [0, 1].map(() => document.createElement("canvas"));
  /** @type {PictureData} */
  let data;
  /** @type {string[]} */
  let colors;
  /** @type {Shown | undefined} */
  let now;
  let wide = 0;

  function draw() {
    if (!now) return;
    const top = now.tops[shared.checked ? "common" : "own"];
    const beyond = now.beyond && !shared.checked ? " and more" : "";
    most.textContent = `${top.toPrecision(3)} %${beyond} of the ${data.of} on the ${data.on ?? "image"}`;
    drawMap(canvas, data, photograph, outlines, colors, now.map, top);
  }

  function prepare() {
    colors = colorsOf(data.palette, Number(strength.value), data.rise);
    ramp.style.background = rampOf(colors);
    const image = images.get(data.image);
    if (image) drawPhotograph(photograph, data, image, Number(strength.value));
    draw();
  }

  /** @param {PictureData} given */
  function load(given) {
    data = given;
    now = undefined;
    const [width, height] = data.size;
    canvas.width = Math.round(CANVAS * Math.min(1, width / height));
    canvas.height = Math.max(1, Math.round(CANVAS * Math.min(1, height / width)));
    for (const sheet of [photograph, outlines]) {
      sheet.width = canvas.width;
      sheet.height = canvas.height;
    }
    const high = Math.min(HIGHEST, Math.max(WIDEST, (NARROW * height) / width));
    wide = Math.min(WIDEST, (high * width) / height);
    canvas.style.maxHeight = `${high}px`;
    parent.style.flexBasis = `${wide}px`;
    strength.value = String(data.opacity);
    images.clear();
    turn(data);
  }

  /**
   * Another picture of the same size, with its outlines, under the same kind of map.
   *
   * @param {PictureData} given
   */
  function turn(given) {
    data = given;
    drawOutlines(outlines, data, canvas.width / wide);
    if (!images.has(data.image)) {
      const image = new Image();
      image.onload = prepare;
      image.src = data.image;
      images.set(data.image, image);
    }
    prepare();
  }

  /** @param {Shown} given */
  function show(given) {
    now = given;
    canvas.ariaLabel = `map on the image, ${given.spoken}`;
    draw();
  }

  canvas.addEventListener("pointermove", (event) => {
    if (!now) return;
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * data.size[0];
    const y = ((event.clientY - box.top) / box.height) * data.size[1];
    const cell = cellAt(data, x, y);
    const share =
      cell < 0
        ? "the model does not see this"
        : `${now.map[cell].toFixed(2)} % of the ${data.of} on the ${data.on ?? "image"}`;
    reading.textContent = `x ${x.toFixed(0)} y ${y.toFixed(0)}: ${share}`;
  });
  canvas.addEventListener("pointerleave", () => {
    reading.textContent = "";
  });
  strength.addEventListener("input", prepare);
  shared.addEventListener("change", draw);
  return { load, turn, show, scale, looks };
}
