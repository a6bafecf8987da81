// @ts-check
// Masks: they travel as lengths of runs of equal pixels, row by row, the first unmarked; see run_lengths in regions.py.
/** @import { Mask, Position } from "./regions.js" */
import { within } from "./numbers.js";

/**
 * @param {Uint8Array} pixels 0 or 1, row by row.
 * @param {number} width
 * @param {number} height
 * @returns {Mask}
 */
export function encode(pixels, width, height) {
  const counts = [];
  let start = 0;
  for (let at = 0, value = 0; at < pixels.length; at++) {
    if (pixels[at] === value) continue;
    counts.push(at - start);
    start = at;
    value = pixels[at];
  }
  return { kind: "mask", size: [height, width], counts: [...counts, pixels.length - start] };
}

/**
 * @param {Mask} mask
 */
export function decode({ size: [height, width], counts }) {
  const pixels = new Uint8Array(height * width);
  let start = 0;
  counts.forEach((run, index) => {
    pixels.fill(index % 2, start, start + run);
    start += run;
  });
  return pixels;
}

/**
 * Whether as many pixels are marked.
 *
 * @param {Uint8Array} pixels
 * @param {number} least
 */
export function has(pixels, least) {
  let found = 0;
  return pixels.some((value) => value > 0 && ++found >= least);
}

/**
 * Give `value` to the pixels whose centre is within `radius` of the line; returns whether any had another value.
 *
 * @param {Uint8Array} pixels
 * @param {number} width
 * @param {number} height
 * @param {Position[]} points
 * @param {number} radius
 * @param {0 | 1} value
 */
export function fillStroke(pixels, width, height, points, radius, value) {
  const reach = Math.max(radius, 0.71) ** 2; // so that the thinnest brush still finds a centre
  let changed = false;
  points.forEach(([x1, y1], index) => {
    const [x0, y0] = points[Math.max(index - 1, 0)];
    const [dx, dy] = [x1 - x0, y1 - y0];
    const square = dx * dx + dy * dy || 1;
    const [left, right, top, bottom] = [Math.min(x0, x1), Math.max(x0, x1), Math.min(y0, y1), Math.max(y0, y1)];
    for (let y = Math.max(0, Math.floor(top - radius - 1)); y < Math.min(height, bottom + radius + 1); y++) {
      for (let x = Math.max(0, Math.floor(left - radius - 1)); x < Math.min(width, right + radius + 1); x++) {
        const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
        const along = within((px * dx + py * dy) / square, 1);
        if ((px - along * dx) ** 2 + (py - along * dy) ** 2 > reach || pixels[y * width + x] === value) continue;
        pixels[y * width + x] = value;
        changed = true;
      }
    }
  });
  return changed;
}

export const BORDER = 1;
export const INNER = 2;

/**
 * A mask at the resolution of the screen, by which of its pixels are inner ones and which lie on the border.
 *
 * @param {Uint8Array} pixels
 * @param {{ width: number, height: number, across: number, down: number, dense: number }} frame see frame.js.
 */
export function sampled(pixels, { width, height, across, down, dense }) {
  const columns = Array.from({ length: across }, (_, i) => Math.floor(((i + 0.5) * width) / across));
  const rows = Array.from({ length: down }, (_, j) => Math.floor(((j + 0.5) * height) / down) * width);
  /** @type {(i: number, j: number) => boolean} */
  const on = (i, j) => i >= 0 && j >= 0 && i < across && j < down && pixels[rows[j] + columns[i]] > 0;
  const reach = Math.ceil(dense);
  const kinds = new Uint8Array(across * down);
  for (let at = 0; at < kinds.length; at++) {
    const [i, j] = [at % across, Math.floor(at / across)];
    if (!on(i, j)) continue;
    kinds[at] = on(i - reach, j) && on(i + reach, j) && on(i, j - reach) && on(i, j + reach) ? INNER : BORDER;
  }
  return kinds;
}
