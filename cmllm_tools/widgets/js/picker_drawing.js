// @ts-check
// Regions, strokes and visual tokens, drawn on the picker's canvases.
/** @import { Frame } from "./frame.js" */
/** @import { Mask, Position, Region } from "./regions.js" */
import { faded } from "./colors.js";
import { paperOf } from "./dom.js";
import { placeIn } from "./frame.js";
import { BORDER, decode, INNER, sampled } from "./masks.js";
import { PALETTE } from "./palette.js";

const RIM = faded(PALETTE.rim, 0.8);

export const INK = PALETTE.line;
export const LAST = PALETTE.yellow; // the last region

/**
 * What draws on a canvas of this frame, at positions of the image.
 *
 * @param {Frame} frame
 */
export function penFor(frame) {
  const { across, down, dense, scale, width, height } = frame;

  /** @param {Position[]} points */
  const line = (points) => {
    const places = points.map((point) => placeIn(frame, point));
    return new Path2D(`M${places[0]} L${places.join(" L")}`);
  };

  /** @type {(centre: Position, radius: number) => Path2D} */
  const circle = (centre, radius) => {
    const path = new Path2D();
    path.arc(...placeIn(frame, centre), radius, 0, 2 * Math.PI);
    return path;
  };

  /**
   * A line with a dark rim shows on any image.
   *
   * @param {CanvasRenderingContext2D} paper
   * @param {string} color
   * @param {Path2D} path
   */
  function trace(paper, color, path, weight = 1) {
    paper.lineCap = paper.lineJoin = "round";
    paper.globalCompositeOperation = "source-over";
    for (const [style, wide] of /** @type {[string, number][]} */ ([
      [RIM, 4],
      [color, 2],
    ])) {
      paper.strokeStyle = style;
      paper.lineWidth = wide * weight * dense;
      paper.stroke(path);
    }
  }

  /** @type {(paper: CanvasRenderingContext2D, region: Region, color: string) => void} */
  function outline(paper, region, color) {
    if (region.kind === "box") {
      const [x0, y0, x1, y1] = region.corners;
      trace(
        paper,
        color,
        line([
          [x0, y0],
          [x1, y0],
          [x1, y1],
          [x0, y1],
          [x0, y0],
        ]),
      );
    } else if (region.kind === "scribble") trace(paper, color, line(region.points), 1.5);
    else if (region.kind === "point") {
      for (const radius of [7, 1.5]) trace(paper, color, circle(region.position, radius * dense));
    }
  }

  /**
   * The way of a brush. Cleared first also where it is painted, so that it has one shade with the mask that it joins.
   *
   * @param {CanvasRenderingContext2D} paper
   * @param {Position[]} points
   * @param {number} brush its diameter
   * @param {boolean} paints or else erases
   */
  function sweep(paper, points, brush, paints) {
    paper.lineCap = paper.lineJoin = "round";
    paper.lineWidth = brush * scale * dense;
    const path = line(points);
    paper.globalCompositeOperation = "destination-out";
    paper.strokeStyle = PALETTE.rim;
    paper.stroke(path);
    if (!paints) return;
    paper.globalCompositeOperation = "source-over";
    paper.strokeStyle = faded(LAST, 0.45);
    paper.stroke(path);
  }

  /** @type {(paper: CanvasRenderingContext2D, position: Position) => void} */
  function cross(paper, [x, y]) {
    trace(
      paper,
      INK,
      line([
        [x, 0],
        [x, height],
      ]),
    );
    trace(
      paper,
      INK,
      line([
        [0, y],
        [width, y],
      ]),
    );
  }

  /** @type {(paper: CanvasRenderingContext2D, position: Position, brush: number) => void} */
  const ring = (paper, position, brush) => trace(paper, INK, circle(position, (brush / 2) * scale * dense));

  /** @type {WeakMap<Mask, HTMLCanvasElement>} */
  const sheets = new WeakMap();

  /**
   * A mask at the resolution of the screen, with the screen pixels on its border dark.
   *
   * @param {Mask} mask
   */
  function sheetOf(mask) {
    const known = sheets.get(mask);
    if (known) return known;
    const sheet = Object.assign(document.createElement("canvas"), { width: across, height: down });
    const colors = paperOf(sheet).createImageData(across, down);
    sampled(decode(mask), frame).forEach((kind, at) => {
      if (kind === INNER) colors.data.set([240, 228, 66, 115], 4 * at);
      else if (kind === BORDER) colors.data.set([0, 0, 0, 200], 4 * at);
    });
    paperOf(sheet).putImageData(colors, 0, 0);
    sheets.set(mask, sheet);
    return sheet;
  }

  return { outline, sweep, cross, ring, sheetOf };
}

/**
 * The image itself.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Frame} frame
 * @param {BlobPart} file
 */
export async function drawPicture(canvas, { across, down, scale }, file) {
  const paper = paperOf(canvas);
  const image = await createImageBitmap(new Blob([file]));
  paper.imageSmoothingEnabled = scale < 3; // few pixels are shown as squares
  paper.imageSmoothingQuality = "high";
  paper.drawImage(image, 0, 0, across, down);
}

/**
 * The visual tokens, tinted by their weights; dark what none of them sees.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Frame} frame
 * @param {number[][]} boxes left, top, right, bottom, in pixels of the image
 * @param {number[]} weights none where there are no regions
 */
export function drawTokens(canvas, frame, boxes, weights) {
  const paper = paperOf(canvas);
  const { dense } = frame;
  const cells = boxes.map(([x0, y0, x1, y1]) => {
    // No seams between them.
    const [left, top, right, bottom] = [...placeIn(frame, [x0, y0]), ...placeIn(frame, [x1, y1])].map(Math.round);
    return { left, top, wide: right - left, high: bottom - top };
  });
  paper.fillStyle = faded(PALETTE.rim, 0.6);
  paper.fillRect(0, 0, canvas.width, canvas.height);
  for (const { left, top, wide, high } of cells) paper.clearRect(left, top, wide, high);
  cells.forEach(({ left, top, wide, high }, index) => {
    paper.fillStyle = faded(PALETTE.blue, 0.65 * (weights[index] ?? 0));
    paper.fillRect(left, top, wide, high);
  });
  const areas = cells.map(({ wide, high }) => wide * high);
  const least = Math.min(...areas.filter((area) => area > 0));
  cells.forEach(({ left, top, wide, high }, index) => {
    const coarse = areas[index] > 2 * least; // a token of the thumbnail, over those of the tiles
    paper.setLineDash(coarse ? [5 * dense, 4 * dense] : []);
    paper.lineWidth = coarse ? 1.5 * dense : dense;
    const strength = (least < 100 * dense ** 2 ? 0.2 : 0.4) + 0.5 * (weights[index] ?? 0); // seen also where blue is not
    paper.strokeStyle = coarse ? faded(LAST, 0.7) : faded(INK, strength);
    paper.strokeRect(left + 0.5, top + 0.5, wide, high);
  });
}
