// @ts-check
// The grid of layers by heads, whose first row and column are means, and the map of each of its cells.
import { ARROWS } from "./keys.js";
import { within } from "./numbers.js";

const CUT = 0.99; // of the cells have their own color when the scale is cut

/** @type {(what: string, number: number | null) => string} */
export const nameOf = (what, number) => (number === null ? `mean over ${what}s` : `${what} ${number}`);

/**
 * Cells are counted row by row; a layer or head of null is the mean.
 *
 * @param {number[]} layers
 * @param {number[]} heads
 */
export function headGrid(layers, heads) {
  const columns = 1 + heads.length;

  /**
   * @param {number} at
   * @returns {{ layer: number | null, head: number | null }}
   */
  const numbers = (at) => ({
    layer: layers[Math.floor(at / columns) - 1] ?? null,
    head: heads[(at % columns) - 1] ?? null,
  });

  /** @type {(layer: number | null, head: number | null) => number} */
  const cell = (layer, head) => {
    const [row, column] = [layer === null ? 0 : layers.indexOf(layer) + 1, head === null ? 0 : heads.indexOf(head) + 1];
    return row * columns + column;
  };

  /**
   * The cell that a key leads to; null for another key.
   *
   * @param {number} at
   * @param {string} key
   */
  const moved = (at, key) => {
    const row = Math.floor(at / columns);
    if (key === "Home") return row * columns;
    if (key === "End") return (row + 1) * columns - 1;
    if (!(key in ARROWS)) return null;
    const [right, down] = ARROWS[key];
    return within(row + down, layers.length) * columns + within((at % columns) + right, heads.length);
  };

  return { columns, numbers, cell, moved };
}

/**
 * The place in a list that a key leads to; null for another key.
 *
 * @param {number} at
 * @param {string} key
 * @param {number} count
 */
export function movedInList(at, key, count) {
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  if (!(key in ARROWS)) return null;
  const [right, down] = ARROWS[key];
  return within(at + (right || down), count - 1);
}

/**
 * One head's map, in percent of the attention on the image.
 *
 * @param {Uint16Array} maps of all heads, as shares of each one's peak
 * @param {number[]} peaks
 * @param {number} at
 */
export function mapAt(maps, peaks, at) {
  const size = maps.length / peaks.length;
  return Float32Array.from(maps.subarray(at * size, (at + 1) * size), (value) => (value / 65535) * peaks[at]);
}

/**
 * The value that all but one in a hundred cells lie below, at least one of them above it; the peak where that is 0.
 *
 * @param {Float32Array} map
 * @param {number} peak
 */
export function cutOf(map, peak) {
  return map.toSorted()[Math.min(Math.floor(CUT * map.length), map.length - 2)] || peak;
}

/**
 * Which tokens are chosen after one is added, or removed as it was there.
 *
 * @param {number[]} chosen
 * @param {number} position
 */
export function toggled(chosen, position) {
  const other = chosen.includes(position) ? chosen.filter((one) => one !== position) : [...chosen, position];
  return other.sort((a, b) => a - b);
}
