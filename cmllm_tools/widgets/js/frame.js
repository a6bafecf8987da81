// @ts-check
// How large an image is shown to be drawn on, and where its pixels come to lie.
/** @import { Position } from "./regions.js" */
import { within } from "./numbers.js";

const [WIDEST, TALLEST] = [640, 560]; // CSS pixels
const [NARROW, HIGHEST] = [160, 900]; // an image narrower than the first may be this high
const SMALL = 400; // an image below this is magnified by a whole number

/**
 * @typedef {object} Frame
 * @property {number} width of the image, in its pixels
 * @property {number} height
 * @property {number} scale CSS pixels for one of the image
 * @property {number} dense pixels of the screen for one of CSS
 * @property {number} across of the canvases, in pixels of the screen
 * @property {number} down
 */

/**
 * @param {number} width
 * @param {number} height
 * @param {number} dense
 * @returns {Frame}
 */
export function frameOf(width, height, dense) {
  const tallest = Math.min(HIGHEST, Math.max(TALLEST, (NARROW * height) / width));
  const fit = Math.min(WIDEST / width, tallest / height);
  const scale = fit < 1 ? fit : Math.max(1, Math.min(Math.floor(SMALL / Math.max(width, height)), Math.floor(fit)));
  const [across, down] = [width, height].map((side) => Math.max(1, Math.round(side * scale * dense)));
  return { width, height, scale, dense, across, down };
}

/**
 * Where on the canvas a position of the image lies.
 *
 * @param {Frame} frame
 * @param {Position} position
 * @returns {Position}
 */
export const placeIn = ({ width, height, across, down }, [x, y]) => [(x * across) / width, (y * down) / height];

/**
 * The position in the image at these shares of its sides, rounded to what the screen can resolve, so that regions have
 * short numbers.
 *
 * @param {Frame} frame
 * @param {Position} shares
 * @returns {Position}
 */
export function positionIn({ width, height, scale }, [x, y]) {
  const digits = scale > 1 ? 10 : 1;
  return [within(Math.round(x * width * digits) / digits, width), within(Math.round(y * height * digits) / digits, height)];
}
