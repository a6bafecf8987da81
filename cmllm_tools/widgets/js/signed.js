// @ts-check
// Changes with a sign: their colors and how they are written.
import { faded } from "./colors.js";
import { within } from "./numbers.js";
import { PALETTE } from "./palette.js";

const STRONGEST = 0.6; // so that the page's own letters can be read on it, light or dark

/**
 * The largest change; a small number where there is none.
 *
 * @param {(number | null)[][]} rows
 */
export const furthest = (rows) =>
  rows.flat().reduce((most, value) => Math.max(/** @type {number} */ (most), Math.abs(value ?? 0)), 1e-9) ?? 1e-9;

/**
 * Blue for less, vermilion for more; no color where it is not known.
 *
 * @param {number | null} value
 * @param {number} most
 */
export const signedColor = (value, most) =>
  value === null ? "" : faded(value < 0 ? PALETTE.blue : PALETTE.vermilion, (STRONGEST * Math.abs(value)) / most);

const [LESS, MORE] = [PALETTE.blue, PALETTE.vermilion].map((color) => faded(color, STRONGEST));

export const SIGNED_RAMP = `linear-gradient(to right, ${LESS}, transparent, ${MORE})`;

/**
 * With its sign; what is rounded to nothing is 0.
 *
 * @param {number} value
 * @param {number} digits after the point
 */
export function signed(value, digits) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? "0" : value < 0 ? text : `+${text}`;
}

/**
 * Digits after the point with which the largest change has two that count, three at most.
 *
 * @param {number} most
 */
export const digitsFor = (most) => within(1 - Math.floor(Math.log10(most)), 3);
