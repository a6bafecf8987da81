// The parts of the region picker that hold nothing: elements, words, masks.
// A region is the plain data of Region.to_json in regions.py, in pixels of the image.

export const NO_BOX = "A box has two corners: drag from one to the other. For a single place, choose Point.";

export function add(parent, tag, properties) {
  return parent.appendChild(Object.assign(document.createElement(tag), properties));
}

export function button(parent, text, title, onclick) {
  return add(parent, "button", { type: "button", innerText: text, title, onclick });
}

export const within = (value, limit) => Math.min(Math.max(value, 0), limit);
export const same = (one, other) => one === other || JSON.stringify(one) === JSON.stringify(other);

export function describe({ kind, corners, points, position, counts }) {
  const [a, b, c, d] = (corners ?? position ?? []).map((value) => Math.round(value * 10) / 10);
  if (kind === "box") return `box x ${a}..${c}, y ${b}..${d} px`;
  if (kind === "point") return `point x ${a}, y ${b} px`;
  if (kind === "scribble") return `scribble of ${points.length} points`;
  return `mask of ${counts.reduce((sum, run, index) => sum + (index % 2) * run, 0)} px`;
}

// Masks travel as lengths of runs of equal pixels, row by row, the first unmarked; see run_lengths in regions.py.
export function encode(pixels, width, height) {
  const counts = [];
  let start = 0;
  for (let at = 0, value = 0; at < pixels.length; at++) {
    if (pixels[at] === value) continue;
    counts.push(at - start);
    [start, value] = [at, pixels[at]];
  }
  return { kind: "mask", size: [height, width], counts: [...counts, pixels.length - start] };
}

export function decode({ size: [height, width], counts }) {
  const pixels = new Uint8Array(height * width);
  counts.reduce((start, run, index) => pixels.fill(index % 2, start, start + run) && start + run, 0);
  return pixels;
}

// Whether as many pixels are marked.
export function has(pixels, least) {
  let found = 0;
  return pixels.some((value) => value && ++found >= least);
}

// Give `value` to the pixels whose centre is within `radius` of the line; returns whether any had another value.
export function fillStroke(pixels, width, height, points, radius, value) {
  const reach = Math.max(radius, 0.71) ** 2; // so that the thinnest brush still finds a centre
  let changed = false;
  points.forEach(([x1, y1], index) => {
    const [x0, y0] = points[Math.max(index - 1, 0)];
    const [dx, dy] = [x1 - x0, y1 - y0];
    const square = dx * dx + dy * dy || 1;
    const [left, right, top, bottom] = [Math.min(x0, x1), Math.max(x0, x1), Math.min(y0, y1), Math.max(y0, y1)];
    for (let y = Math.max(0, Math.floor(top - radius - 1)); y < Math.min(height, bottom + radius + 1); y++) {
      for (let x = Math.max(0, Math.floor(left - radius - 1)); x < Math.min(width, right + radius + 1); x++) {
        const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
        const along = within((px * dx + py * dy) / square, 1);
        if ((px - along * dx) ** 2 + (py - along * dy) ** 2 > reach || pixels[y * width + x] === value) continue;
        pixels[y * width + x] = value;
        changed = true;
      }
    }
  });
  return changed;
}

