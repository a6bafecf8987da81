// @ts-check
import assert from "node:assert/strict";
import test from "node:test";
import { cellAt, rectangles } from "../../cmllm_tools/widgets/js/cells.js";
import { frameOf, placeIn, positionIn } from "../../cmllm_tools/widgets/js/frame.js";

test("a large image is shown as wide or as high as there is room", () => {
  assert.deepEqual(frameOf(1280, 640, 1), { width: 1280, height: 640, scale: 0.5, dense: 1, across: 640, down: 320 });
  assert.equal(frameOf(1120, 1120, 1).down, 560);
  assert.equal(frameOf(1280, 640, 2).across, 1280);
});

test("a narrow image may be higher, up to a limit", () => {
  assert.equal(frameOf(400, 2000, 1).across, 160);
  assert.equal(frameOf(100, 9000, 1).down, 900);
});

test("a small image is magnified by a whole number", () => {
  assert.deepEqual(
    [
      [24, 24],
      [60, 40],
      [200, 150],
      [399, 399],
    ].map(([w, h]) => frameOf(w, h, 1).scale),
    [16, 6, 2, 1],
  );
});

test("a line of pixels is still seen", () => {
  assert.equal(frameOf(20000, 1, 1).down, 1);
});

test("positions go to places and back", () => {
  const frame = frameOf(1280, 640, 2);
  assert.deepEqual(placeIn(frame, [1280, 320]), [1280, 320]);
  assert.deepEqual(positionIn(frame, [0.5, 0.25]), [640, 160]);
});

test("positions are as exact as the screen, and stay in the image", () => {
  assert.deepEqual(positionIn(frameOf(1280, 640, 1), [0.1238, 1.5]), [158, 640]);
  assert.deepEqual(positionIn(frameOf(24, 24, 1), [0.12345, -0.1]), [3, 0]);
  assert.deepEqual(positionIn(frameOf(24, 24, 1), [0.13, 0.5]), [3.1, 12]);
});

const EDGES = { xs: [10, 20, 30], ys: [0, 5, 15] };

test("a position lies in a cell, or where the model does not see", () => {
  assert.deepEqual(
    [
      [10, 0],
      [29.9, 4.9],
      [20, 5],
      [15, 14.9],
    ].map(([x, y]) => cellAt(EDGES, x, y)),
    [0, 1, 3, 2],
  );
  assert.deepEqual(
    [
      [9.9, 2],
      [30, 2],
      [15, -0.1],
      [15, 15],
    ].map(([x, y]) => cellAt(EDGES, x, y)),
    [-1, -1, -1, -1],
  );
});

test("cells meet at whole pixels", () => {
  const cells = rectangles(EDGES, 0.33);
  assert.deepEqual(
    cells.map(({ left, wide }) => [left, wide]),
    [
      [3, 4],
      [7, 3],
      [3, 4],
      [7, 3],
    ],
  );
  assert.deepEqual(
    cells.map(({ top, high }) => [top, high]),
    [
      [0, 2],
      [0, 2],
      [2, 3],
      [2, 3],
    ],
  );
});
