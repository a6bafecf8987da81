// @ts-check
// What the strip of an answer says in words.
import { percent } from "./numbers.js";

/**
 * @param {string} of what maps are of
 * @param {string} where in words; "" without regions
 */
export function titleOf(of, where) {
  const what = of === "attention" ? "Where each token of the answer looks" : `The ${of} of each token of the answer`;
  return `${what}; below it, how much of its ${where ? `map is ${where}` : `${of} is on the image`}`;
}

/**
 * How much of a token's map is where.
 *
 * @param {{ on_image: number, shares: number[] }} token
 * @param {string} of
 * @param {string} where
 */
export function placesOf({ on_image, shares }, of, where) {
  const inside = shares.map((share) => percent(share, 1)).join(", ");
  return `${percent(on_image, 1)} of its ${of} is on the image${inside ? `; of that, ${inside} ${where}` : ""}`;
}
