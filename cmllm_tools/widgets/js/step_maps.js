// @ts-check
// The maps of a trace's steps.
import { shorts } from "./bytes.js";

/**
 * As of `steps_data` in step_player.py. `energy` and `share` are those of the run, then of each layer alone.
 *
 * @typedef {object} Step
 * @property {number} number
 * @property {string | null} answer null where it was not asked for
 * @property {number} latent its norm
 * @property {number | null} gradient its norm; null without an update
 * @property {number} seconds
 * @property {number[]} energy
 * @property {number[]} share
 * @property {string} maps (layer, cell), as shares of each layer's peak
 * @property {number[]} peaks
 */

/**
 * Decoded once.
 *
 * @type {WeakMap<Step, Uint16Array>}
 */
const decoded = new WeakMap();

/** @param {Step} step */
function numbersOf(step) {
  const known = decoded.get(step) ?? shorts(step.maps);
  decoded.set(step, known);
  return known;
}

/**
 * One step's map in percent of the attention on the image.
 *
 * @param {Step} step
 * @param {number} column 0 for the mean over layers, 1.. for one layer each, as in `energy` and `share` of a step.
 */
export function mapOf(step, column) {
  const raw = numbersOf(step);
  const layers = step.peaks.length;
  const map = new Float32Array(raw.length / layers);
  let sum = 0;
  for (let layer = 0; layer < layers; layer++) {
    if (column && layer !== column - 1) continue;
    for (let cell = 0; cell < map.length; cell++) {
      const value = raw[layer * map.length + cell] * step.peaks[layer];
      map[cell] += value;
      sum += value;
    }
  }
  return map.map((value) => value * (100 / (sum || 1)));
}

/**
 * The highest value of all maps, by which they share a scale.
 *
 * @param {Float32Array[]} maps
 */
export const topOf = (maps) => maps.reduce((top, map) => map.reduce((most, value) => Math.max(most, value), top), 0) || 1;

/**
 * The frame that a key leads to; null for another key.
 *
 * @param {number} frame
 * @param {string} key
 * @param {number} count
 */
export function movedFrame(frame, key, count) {
  /** @type {Record<string, number>} */
  const moves = { ArrowDown: Math.max(0, frame - 1), ArrowUp: Math.min(count - 1, frame + 1) };
  return moves[key] ?? null;
}

/**
 * The step that a key leads to; null for another key.
 *
 * @param {number} step
 * @param {string} key
 * @param {number} count
 */
export function movedStep(step, key, count) {
  /** @type {Record<string, number>} */
  const moves = { ArrowLeft: Math.max(0, step - 1), ArrowRight: Math.min(count - 1, step + 1), Home: 0, End: count - 1 };
  return moves[key] ?? null;
}
