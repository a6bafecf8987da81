// @ts-check
import assert from "node:assert/strict";
import test from "node:test";
import { BORDER, decode, encode, fillStroke, has, INNER, sampled } from "../../cmllm_tools/widgets/js/masks.js";
import { erased, lastMask, painted } from "../../cmllm_tools/widgets/js/painting.js";

/** @param {string[]} rows */
const drawn = (...rows) => Uint8Array.from([...rows.join("")], (letter) => (letter === "#" ? 1 : 0));

test("runs begin with unmarked pixels and go from row to row", () => {
  assert.deepEqual(encode(drawn(".##", "#.."), 3, 2), { kind: "mask", size: [2, 3], counts: [1, 3, 2] });
  assert.deepEqual(encode(drawn("#.", ".#"), 2, 2).counts, [0, 1, 2, 1]);
  assert.deepEqual(encode(drawn("..", ".."), 2, 2).counts, [4]);
});

test("runs become the pixels they are of", () => {
  for (const rows of [
    [".##", "#.."],
    ["###", "###"],
    ["...", "..."],
    ["#.#", ".#."],
  ]) {
    const pixels = drawn(...rows);
    assert.deepEqual(decode(encode(pixels, 3, 2)), pixels);
  }
});

test("as many pixels are marked, or not", () => {
  const pixels = drawn(".##", "#..");
  assert.deepEqual(
    [1, 3, 3.5, 4].map((least) => has(pixels, least)),
    [true, true, false, false],
  );
});

test("a stroke marks the pixels whose centre is within its radius", () => {
  const pixels = new Uint8Array(15);
  assert.equal(
    fillStroke(
      pixels,
      5,
      3,
      [
        [1.5, 1.5],
        [3.5, 1.5],
      ],
      0.9,
      1,
    ),
    true,
  );
  assert.deepEqual(pixels, drawn(".....", ".###.", "....."));
  assert.equal(fillStroke(pixels, 5, 3, [[1.5, 1.5]], 0.9, 1), false);
  assert.equal(
    fillStroke(
      pixels,
      5,
      3,
      [
        [0.5, 1.5],
        [1.5, 1.5],
      ],
      0.9,
      0,
    ),
    true,
  );
  assert.deepEqual(pixels, drawn(".....", "..##.", "....."));
});

test("the thinnest brush finds a centre wherever it is set", () => {
  for (const at of [0, 0.2, 1, 1.5, 1.99, 3]) {
    assert.equal(fillStroke(new Uint8Array(9), 3, 3, [[at, at]], 0.01, 1), true, `at ${at}`);
  }
});

test("on the screen, the pixels next to others are the border", () => {
  const frame = { width: 5, height: 5, across: 5, down: 5, dense: 1 };
  const kinds = sampled(drawn("#####", "#####", "#####", "#####", "....."), frame);
  const rows = Array.from({ length: 5 }, (_, row) => [...kinds.subarray(5 * row, 5 * row + 5)]);
  const [edge, middle] = [Array(5).fill(BORDER), [BORDER, INNER, INNER, INNER, BORDER]];
  assert.deepEqual(rows, [edge, middle, middle, edge, [0, 0, 0, 0, 0]]);
});

test("a screen of twice the pixels shows each four times", () => {
  const kinds = sampled(drawn("#.", ".."), { width: 2, height: 2, across: 4, down: 4, dense: 1 });
  assert.deepEqual([...kinds].map(Boolean), [...drawn("##..", "##..", "....", "....")].map(Boolean));
});

test("a stroke joins a mask, and leaves the one it was", () => {
  const mask = encode(drawn("#..", "..."), 3, 2);
  const joined = painted(mask, { width: 3, height: 2 }, [[2.5, 1.5]], 0.5);
  assert.deepEqual(decode(joined), drawn("#..", "..#"));
  assert.deepEqual(mask.counts, [0, 1, 5]);
  assert.deepEqual(decode(painted(null, { width: 3, height: 2 }, [[2.5, 1.5]], 0.5)), drawn("...", "..#"));
});

test("only a mask that comes last is joined", () => {
  const mask = encode(drawn("#"), 1, 1);
  assert.equal(lastMask([mask]), mask);
  assert.equal(lastMask([mask, { kind: "point", position: [0, 0] }]), null);
  assert.equal(lastMask([]), null);
});

test("the eraser takes from all masks, and drops those that it leaves next to nothing of", () => {
  const size = { width: 3, height: 1 };
  const [whole, speck] = [encode(drawn("###"), 3, 1), encode(drawn("##."), 3, 1)];
  /** @type {import("../../cmllm_tools/widgets/js/regions.js").Region} */
  const box = { kind: "box", corners: [0, 0, 3, 1] };
  assert.deepEqual(erased([whole, box, speck], size, [[0.5, 0.5]], 0.5, 2), [encode(drawn(".##"), 3, 1), box]);
  assert.equal(erased([box, encode(drawn("..#"), 3, 1)], size, [[0.5, 0.5]], 0.5, 2), null);
});
