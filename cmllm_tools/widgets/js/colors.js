// @ts-check
// Colors of a map, from little to much, and colors with an opacity.
import { bytes } from "./bytes.js";

/**
 * 256 colors: opaque, or of a strength that little reaches soon.
 *
 * @param {string} palette RGBA of each, in base64
 * @param {number} [strength] opacity of the last one
 * @param {number} [rise] exponent of its rise
 */
export function colorsOf(palette, strength, rise = 1) {
  const rgba = bytes(palette);
  return Array.from({ length: 256 }, (_, at) => {
    const opacity = strength === undefined ? 1 : strength * (at / 255) ** rise;
    return `rgba(${rgba.subarray(4 * at, 4 * at + 3).join()},${opacity.toFixed(3)})`;
  });
}

/**
 * A color with an opacity in 0..1.
 *
 * @param {string} color as `#RRGGBB`
 * @param {number} opacity
 */
export const faded = (color, opacity) =>
  color +
  Math.round(255 * opacity)
    .toString(16)
    .padStart(2, "0");

/**
 * As the background of a color scale.
 *
 * @param {string[]} colors
 */
export const rampOf = (colors) => `linear-gradient(to right, ${colors.filter((_, at) => at % 15 === 0).join(", ")})`;
