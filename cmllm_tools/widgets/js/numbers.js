// @ts-check
// Numbers within bounds, and as they are written.

/** @type {(value: number, most: number, least?: number) => number} */
export const within = (value, most, least = 0) => Math.max(least, Math.min(most, value));

/** @type {(share: number, digits?: number) => string} */
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
