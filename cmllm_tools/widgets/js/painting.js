// @ts-check
// What strokes of the brush and the eraser make of regions.
/** @import { Mask, Position, Region } from "./regions.js" */
import { decode, encode, fillStroke, has } from "./masks.js";

/** @typedef {{ width: number, height: number }} Size of the image */

/**
 * The last region, where it is a mask, which is the one that strokes join.
 *
 * @param {Region[]} regions
 * @returns {Mask | null}
 */
export function lastMask(regions) {
  const last = regions.at(-1);
  return last?.kind === "mask" ? last : null;
}

/**
 * A mask with a stroke of the brush added, or of nothing else where there is none.
 *
 * @param {Mask | null} mask
 * @param {Size} size
 * @param {Position[]} points
 * @param {number} radius
 */
export function painted(mask, { width, height }, points, radius) {
  const pixels = mask ? decode(mask) : new Uint8Array(width * height);
  fillStroke(pixels, width, height, points, radius, 1);
  return encode(pixels, width, height);
}

/**
 * What a stroke of the eraser leaves of all masks; null where it met none.
 *
 * @param {Region[]} regions
 * @param {Size} size
 * @param {Position[]} points
 * @param {number} radius
 * @param {number} least pixels of a mask that stays
 */
export function erased(regions, { width, height }, points, radius, least) {
  let touched = false;
  /** @type {(region: Region) => Region[]} */
  const leave = (region) => {
    if (region.kind !== "mask") return [region];
    const pixels = decode(region);
    if (!fillStroke(pixels, width, height, points, radius, 0)) return [region];
    touched = true;
    return has(pixels, least) ? [encode(pixels, width, height)] : [];
  };
  const left = regions.flatMap(leave);
  return touched ? left : null;
}
