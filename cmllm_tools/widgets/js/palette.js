// @ts-check
// The palette. A widget has the colors of show/palette.py, which modules.py writes in place of this file.

/** @typedef {"blue" | "vermilion" | "sky" | "orange" | "yellow" | "line" | "rim"} Name */

export const PALETTE = /** @type {Record<Name, string>} */ ({});
