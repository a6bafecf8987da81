// @ts-check
// The cells of a map: rectangles between edges, in rows from the top.

/** @typedef {{ xs: number[], ys: number[] }} Edges in pixels of the image, ascending */

/**
 * The number of the cell that a position lies in; -1 where the model does not see it.
 *
 * @param {Edges} edges
 * @param {number} x
 * @param {number} y
 */
export function cellAt({ xs, ys }, x, y) {
  const column = xs.findLastIndex((edge) => edge <= x);
  const row = ys.findLastIndex((edge) => edge <= y);
  const inside = column >= 0 && row >= 0 && column < xs.length - 1 && row < ys.length - 1;
  return inside ? row * (xs.length - 1) + column : -1;
}

/**
 * Each cell in pixels of a canvas. Edges fall on whole ones, so that no seams show between transparent cells.
 *
 * @param {Edges} edges
 * @param {number} scale pixels of the canvas for one of the image
 */
export function rectangles({ xs, ys }, scale) {
  const [across, down] = [xs, ys].map((edges) => edges.map((edge) => Math.round(edge * scale)));
  return down.slice(1).flatMap((bottom, row) =>
    across.slice(1).map((right, column) => ({
      left: across[column],
      top: down[row],
      wide: right - across[column],
      high: bottom - down[row],
    })),
  );
}
