// @ts-check
import assert from "node:assert/strict";
import test from "node:test";
import { regionList } from "../../cmllm_tools/widgets/js/region_list.js";
import { countText, describe, isFlat, regionOf, sameRegions } from "../../cmllm_tools/widgets/js/regions.js";

/** @import { Point, Position, Region } from "../../cmllm_tools/widgets/js/regions.js" */

test("regions in words", () => {
  assert.equal(describe({ kind: "box", corners: [1, 2.54, 30, 20.25] }), "box x 1..30, y 2.5..20.3 px");
  assert.equal(describe({ kind: "point", position: [3.04, 4] }), "point x 3, y 4 px");
  assert.equal(
    describe({
      kind: "scribble",
      points: [
        [0, 0],
        [1, 1],
      ],
    }),
    "scribble of 2 points",
  );
  assert.equal(describe({ kind: "mask", size: [2, 5], counts: [1, 3, 2, 4] }), "mask of 7 px");
});

test("how many there are", () => {
  assert.deepEqual(
    [0, 1, 2].map((length) => countText(Array(length))),
    ["no regions", "1 region", "2 regions"],
  );
});

test("what points are of", () => {
  /** @type {Position[]} */
  const points = [
    [5, 2],
    [9, 9],
    [1, 4],
  ];
  assert.deepEqual(regionOf("box", points), { kind: "box", corners: [1, 2, 5, 4] });
  assert.deepEqual(regionOf("point", points), { kind: "point", position: [1, 4] });
  assert.deepEqual(regionOf("scribble", points), { kind: "scribble", points });
  assert.equal(regionOf("mask", points), null);
});

test("a box with no area is flat", () => {
  assert.equal(isFlat({ kind: "box", corners: [1, 2, 1, 4] }), true);
  assert.equal(isFlat({ kind: "box", corners: [1, 2, 3, 2] }), true);
  assert.equal(isFlat({ kind: "box", corners: [1, 2, 1.1, 2.1] }), false);
  assert.equal(isFlat({ kind: "point", position: [1, 1] }), false);
});

test("lists are the same by what they hold", () => {
  assert.equal(sameRegions([{ kind: "point", position: [1, 2] }], [{ kind: "point", position: [1, 2] }]), true);
  assert.equal(sameRegions([{ kind: "point", position: [1, 2] }], [{ kind: "point", position: [2, 1] }]), false);
});

/** A model of a list, and what a view does of it. */
function listed() {
  /** @type {Record<string, any>} */
  const state = { _regions: [], _error: "" };
  const counted = { saved: 0, changed: 0 };
  const list = regionList(
    {
      get: (/** @type {string} */ name) => state[name],
      set: (/** @type {string} */ name, /** @type {any} */ value) => {
        state[name] = value;
      },
      save_changes: () => {
        counted.saved += 1;
      },
    },
    () => {
      counted.changed += 1;
    },
  );
  return { state, counted, list };
}

/** @type {(x: number) => Point} */
const point = (x) => ({ kind: "point", position: [x, 0] });

test("what was drawn can be taken back, step by step", () => {
  const { state, list } = listed();
  assert.equal(list.undoable(), false);
  list.commit([point(1)]);
  list.commit([point(1), point(2)]);
  list.undo();
  assert.deepEqual(state._regions, [point(1)]);
  list.undo();
  assert.deepEqual([state._regions, list.shown(), list.undoable()], [[], [], false]);
  list.undo();
  assert.deepEqual(state._regions, []);
});

test("a list that Python refused is no step to undo", () => {
  const { state, counted, list } = listed();
  list.commit([point(1)]);
  list.commit([point(-1)]);
  state._regions = [point(1)];
  list.receive();
  assert.deepEqual(list.shown(), [point(1)]);
  list.undo();
  assert.deepEqual(list.shown(), []);
  assert.equal(counted.saved, 3);
});

test("a list that someone set is a step to undo", () => {
  const { state, list } = listed();
  state._regions = [point(5)];
  list.receive();
  list.undo();
  assert.deepEqual(state._regions, []);
});

test("an echo of what was sent changes nothing", () => {
  const { state, counted, list } = listed();
  list.commit([point(1)]);
  state._regions = [point(1)];
  list.receive();
  assert.equal(counted.changed, 1);
});
