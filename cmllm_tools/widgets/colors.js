// Colors of the palette, which modules.py puts before this as PALETTE.

// One of them with an opacity in 0..1.
const faded = (color, opacity) => color + Math.round(255 * opacity).toString(16).padStart(2, "0");

