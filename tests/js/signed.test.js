// @ts-check
import assert from "node:assert/strict";
import test from "node:test";
import { digitsFor, furthest, signed, signedColor } from "../../cmllm_tools/widgets/js/signed.js";

test("a change has its sign, and none where it is rounded to nothing", () => {
  assert.deepEqual(
    [0.254, -0.254, -0.001, 0].map((value) => signed(value, 2)),
    ["+0.25", "-0.25", "0", "0"],
  );
});

test("the largest change has two digits that count, three after the point at most", () => {
  assert.deepEqual([31, 4.2, 0.22, 0.0004].map(digitsFor), [0, 1, 2, 3]);
});

test("the largest change has the strongest color, and what is not known has none", () => {
  assert.equal(
    furthest([
      [1, -3],
      [null, 2],
    ]),
    3,
  );
  assert.equal(furthest([[null]]), 1e-9);
  assert.equal(signedColor(null, 1), "");
  // The colors themselves are written by Python.
  assert.deepEqual(
    [-2, 2, 1].map((value) => signedColor(value, 2).slice(-2)),
    ["99", "99", "4d"],
  );
});
