// @ts-check
// A photograph, a map on it and outlines of regions, drawn on canvases.
import { rectangles } from "./cells.js";
import { faded } from "./colors.js";
import { paperOf } from "./dom.js";
import { PALETTE } from "./palette.js";

/**
 * As of `picture_data` in picture.py.
 *
 * @typedef {object} PictureData
 * @property {string} image its address
 * @property {[number, number]} size
 * @property {string} of what maps are of, as "attention"
 * @property {string} [on] what they are on, where that is no image
 * @property {number[]} xs edges of the map's cells, in pixels of the image
 * @property {number[]} ys
 * @property {{ marked: boolean, lines: [number, number][][] }[]} outlines of regions; the points of some are marked
 * @property {string} palette see colors.js
 * @property {number} opacity of the map
 * @property {number} rise
 * @property {number} dim
 * @property {number} shade
 */

/**
 * The photograph, greyer and darker the stronger the map on it, and darkened where no token looks: as `dimmed` of Python.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {PictureData} data
 * @param {HTMLImageElement} image
 * @param {number} strength
 */
export function drawPhotograph(canvas, { xs, ys, size, dim, shade }, image, strength) {
  const paper = paperOf(canvas);
  const { width, height } = canvas;
  /** @type {(blend: GlobalCompositeOperation, opacity: number) => void} */
  const cover = (blend, opacity) => {
    paper.globalCompositeOperation = blend;
    paper.globalAlpha = opacity;
    paper.fillStyle = PALETTE.rim;
    paper.fillRect(0, 0, width, height);
  };
  paper.clearRect(0, 0, width, height);
  if (image.complete && image.naturalWidth) paper.drawImage(image, 0, 0, width, height);
  cover("saturation", strength);
  cover("source-over", dim * strength);
  paper.globalAlpha = 1;
  paper.fillStyle = faded(PALETTE.rim, shade);
  const ends = [xs[0], xs[xs.length - 1], ys[0], ys[ys.length - 1]];
  const [left, right, top, bottom] = ends.map((at) => Math.round((at * width) / size[0]));
  const unseen = new Path2D();
  unseen.rect(0, 0, width, height);
  unseen.rect(left, top, right - left, bottom - top);
  paper.fill(unseen, "evenodd");
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {PictureData} data
 * @param {HTMLCanvasElement} photograph
 * @param {HTMLCanvasElement} outlines
 * @param {string[]} colors
 * @param {Float32Array} map over cells
 * @param {number} top value of the last color
 */
export function drawMap(canvas, data, photograph, outlines, colors, map, top) {
  const paper = paperOf(canvas);
  const cells = rectangles(data, canvas.width / data.size[0]);
  paper.clearRect(0, 0, canvas.width, canvas.height);
  paper.drawImage(photograph, 0, 0);
  map.forEach((value, cell) => {
    const { left, top: above, wide, high } = cells[cell];
    paper.fillStyle = colors[Math.min(255, Math.round((255 * value) / top))];
    paper.fillRect(left, above, wide, high);
  });
  paper.drawImage(outlines, 0, 0);
}

/**
 * White with a dark rim: visible on any image and any color of the map. Drawn once, as a mask may have thousands of edges.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {PictureData} data
 * @param {number} dense pixels of the canvas for one of CSS
 */
export function drawOutlines(canvas, { outlines, size }, dense) {
  const paper = paperOf(canvas);
  const scale = canvas.width / size[0];
  paper.clearRect(0, 0, canvas.width, canvas.height);
  paper.lineJoin = paper.lineCap = "round";
  /** @type {(color: string, rim: number) => void} */
  const draw = (color, rim) => {
    paper.strokeStyle = paper.fillStyle = color;
    paper.lineWidth = (2 + 2 * rim) * dense;
    paper.beginPath();
    for (const line of outlines.flatMap(({ lines }) => lines)) {
      line.forEach(([x, y], at) => {
        if (at) paper.lineTo(x * scale, y * scale);
        else paper.moveTo(x * scale, y * scale);
      });
    }
    paper.stroke();
    for (const [x, y] of outlines.filter(({ marked }) => marked).flatMap(({ lines }) => lines.flat())) {
      paper.beginPath();
      paper.arc(x * scale, y * scale, (3 + rim) * dense, 0, 2 * Math.PI);
      paper.fill();
    }
  };
  draw(PALETTE.rim, 1);
  draw(PALETTE.line, 0);
}
