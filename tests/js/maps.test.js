// @ts-check
import assert from "node:assert/strict";
import test from "node:test";
import { bytes, shorts } from "../../cmllm_tools/widgets/js/bytes.js";
import { numbered, scaleOf } from "../../cmllm_tools/widgets/js/chart.js";
import { colorsOf, faded, rampOf } from "../../cmllm_tools/widgets/js/colors.js";
import { cutOf, mapAt } from "../../cmllm_tools/widgets/js/heads.js";
import { percent, within } from "../../cmllm_tools/widgets/js/numbers.js";
import { mapOf, movedFrame, movedStep, topOf } from "../../cmllm_tools/widgets/js/step_maps.js";

/** @param {ArrayBufferView} values */
const base64 = (values) => Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("base64");

/**
 * A step of two layers over two cells.
 *
 * @param {number[]} numbers
 * @param {number[]} peaks
 */
const stepOf = (numbers, peaks) => ({
  number: 0,
  answer: null,
  latent: 0,
  gradient: null,
  seconds: 0,
  energy: [],
  share: [],
  maps: base64(Uint16Array.from(numbers)),
  peaks,
});

test("numbers within bounds", () => {
  assert.deepEqual(
    [-1, 0.5, 3].map((value) => within(value, 2)),
    [0, 0.5, 2],
  );
  assert.deepEqual(
    [0, 1, 9].map((value) => within(value, 8, 1)),
    [1, 1, 8],
  );
});

test("shares in percent", () => {
  assert.deepEqual([percent(0.256), percent(0.256, 1), percent(1)], ["26 %", "25.6 %", "100 %"]);
});

test("bytes from text", () => {
  assert.deepEqual(bytes("AAH/"), Uint8Array.from([0, 1, 255]));
});

test("numbers of 16 bits, from text or from an odd place in a message", () => {
  const values = Uint16Array.from([1, 256, 65535]);
  assert.deepEqual(shorts(base64(values)), values);
  const message = new Uint8Array(7);
  message.set(new Uint8Array(values.buffer), 1);
  assert.deepEqual(shorts(new DataView(message.buffer, 1)), values);
});

test("colors are opaque, or rise from nothing to their strength", () => {
  const palette = base64(Uint8Array.from({ length: 1024 }, (_, at) => at >> 2));
  assert.deepEqual([colorsOf(palette)[0], colorsOf(palette)[255]], ["rgba(0,0,0,1.000)", "rgba(255,255,255,1.000)"]);
  const colors = colorsOf(palette, 0.8, 0.5);
  assert.deepEqual(
    [colors[0], colors[51], colors[255]],
    ["rgba(0,0,0,0.000)", "rgba(51,51,51,0.358)", "rgba(255,255,255,0.800)"],
  );
  assert.match(
    rampOf(colors),
    /^linear-gradient\(to right, rgba\(0,0,0,0\.000\), rgba\(15,.*, rgba\(255,255,255,0\.800\)\)$/,
  );
});

test("a color with an opacity", () => {
  assert.deepEqual(
    [0, 0.02, 0.6, 1].map((opacity) => faded("#0072B2", opacity)),
    ["#0072B200", "#0072B205", "#0072B299", "#0072B2ff"],
  );
});

test("a step's map is the mean over layers, or one of them, in percent", () => {
  const step = stepOf([65535, 0, 0, 65535], [0.3, 0.1]);
  assert.deepEqual([...mapOf(step, 0)], [75, 25]);
  assert.deepEqual([...mapOf(step, 1)], [100, 0]);
  assert.deepEqual([...mapOf(step, 2)], [0, 100]);
});

test("the mean weighs layers by the attention that each has on the image", () => {
  assert.deepEqual([...mapOf(stepOf([65535, 65535, 65535, 0], [0.2, 0.4]), 0)], [75, 25]);
});

test("a layer without attention on the image has a map of zeros", () => {
  assert.deepEqual([...mapOf(stepOf([0, 0, 65535, 0], [1, 1]), 1)], [0, 0]);
});

test("maps share the highest value, which is never 0", () => {
  assert.equal(topOf([Float32Array.from([1, 3]), Float32Array.from([2, 2])]), 3);
  assert.equal(topOf([new Float32Array(2)]), 1);
});

test("a head's map is cut out of all, at its own peak", () => {
  const maps = Uint16Array.from([65535, 0, 0, 65535, 13107, 65535]);
  assert.deepEqual(
    [...mapAt(maps, [10, 20, 50], 2)].map((value) => Math.round(value * 1e4) / 1e4),
    [10, 50],
  );
  assert.deepEqual([...mapAt(maps, [10, 20, 50], 1)], [0, 20]);
});

test("the cut leaves out one cell in a hundred, and one at least", () => {
  const map = Float32Array.from({ length: 1000 }, (_, at) => at);
  assert.equal(cutOf(map, 999), 990);
  assert.equal(cutOf(Float32Array.from([5, 1, 90]), 90), 5);
  assert.equal(cutOf(Float32Array.from([0, 0, 90]), 90), 90);
  assert.equal(cutOf(Float32Array.from([90]), 90), 90);
});

test("a chart places its steps from margin to margin, and finds them again", () => {
  const { x, y, stepAt } = scaleOf(11, 2);
  assert.deepEqual([x(0), x(5), x(10)], [48, 227, 406]);
  assert.deepEqual([y(0), y(1), y(2)], [112, 68, 24]);
  assert.deepEqual([0, 48 / 420, 230 / 420, 1].map(stepAt), [0, 0, 5, 10]);
});

test("a chart of one step has it at the left", () => {
  const { x, stepAt } = scaleOf(1, 1);
  assert.deepEqual([x(0), stepAt(0.9)], [48, 0]);
});

test("at most ten steps have a number", () => {
  assert.deepEqual(numbered(3), [0, 1, 2]);
  assert.deepEqual(numbered(11), [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(numbered(31), [0, 5, 10, 15, 20, 25, 30]);
  assert.equal(numbered(100).length, 10);
});

test("left and right are of the steps, up and down of a video's frames", () => {
  const [left, right] = ["ArrowLeft", "ArrowRight"];
  const stepped = [
    [0, left],
    [2, left],
    [2, right],
    [5, right],
    [2, "Home"],
    [2, "End"],
    [2, "ArrowUp"],
  ];
  assert.deepEqual(
    stepped.map(([step, key]) => movedStep(Number(step), String(key), 6)),
    [0, 1, 3, 5, 0, 5, null],
  );
  const turned = [
    [0, "ArrowDown"],
    [3, "ArrowDown"],
    [3, "ArrowUp"],
    [5, "ArrowUp"],
    [3, left],
  ];
  assert.deepEqual(
    turned.map(([frame, key]) => movedFrame(Number(frame), String(key), 6)),
    [0, 2, 4, 5, null],
  );
});
