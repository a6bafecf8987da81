// @ts-check
// Regions as plain data, as of Region.to_json in regions.py, in pixels of the image.

/**
 * @typedef {[number, number]} Position x, y
 * @typedef {{ kind: "box", corners: [number, number, number, number] }} Box left, top, right, bottom
 * @typedef {{ kind: "mask", size: [number, number], counts: number[] }} Mask of height, width; see masks.js
 * @typedef {{ kind: "scribble", points: Position[] }} Scribble
 * @typedef {{ kind: "point", position: Position }} Point
 * @typedef {Box | Mask | Scribble | Point} Region
 */

/** @type {(number: number) => number} */
const tenths = (number) => Math.round(number * 10) / 10;

/**
 * In words.
 *
 * @param {Region} region
 */
export function describe(region) {
  if (region.kind === "box") {
    const [left, top, right, bottom] = region.corners.map(tenths);
    return `box x ${left}..${right}, y ${top}..${bottom} px`;
  }
  if (region.kind === "point") {
    const [x, y] = region.position.map(tenths);
    return `point x ${x}, y ${y} px`;
  }
  if (region.kind === "scribble") return `scribble of ${region.points.length} points`;
  return `mask of ${region.counts.reduce((sum, run, index) => sum + (index % 2) * run, 0)} px`;
}

/**
 * How many there are, in words.
 *
 * @param {Region[]} regions
 */
export const countText = ({ length }) => (length === 1 ? "1 region" : `${length || "no"} regions`);

/**
 * The region that these points are of: a box by its first and last, a point by the last; null for other kinds.
 *
 * @param {string} kind
 * @param {Position[]} points
 * @returns {Box | Scribble | Point | null}
 */
export function regionOf(kind, points) {
  const [[x0, y0], last] = [points[0], points[points.length - 1]];
  const [x1, y1] = last;
  if (kind === "scribble") return { kind, points };
  if (kind === "point") return { kind, position: last };
  if (kind !== "box") return null;
  return { kind, corners: [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)] };
}

/**
 * Whether it is a box that has no area.
 *
 * @param {Region} region
 */
export function isFlat(region) {
  if (region.kind !== "box") return false;
  const [left, top, right, bottom] = region.corners;
  return left === right || top === bottom;
}

/** @type {(one: Region[], other: Region[]) => boolean} */
export const sameRegions = (one, other) => one === other || JSON.stringify(one) === JSON.stringify(other);
