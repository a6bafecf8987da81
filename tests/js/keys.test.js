// @ts-check
import assert from "node:assert/strict";
import test from "node:test";
import { headGrid, movedInList, nameOf, toggled } from "../../cmllm_tools/widgets/js/heads.js";
import { isCommand, savesNotebook } from "../../cmllm_tools/widgets/js/keys.js";
import { movedStep } from "../../cmllm_tools/widgets/js/step_maps.js";

const key = { key: "s", ctrlKey: false, metaKey: false, altKey: false };

test("Ctrl-S and Cmd-S save the notebook, whatever the Caps key", () => {
  assert.equal(savesNotebook({ ...key, ctrlKey: true }), true);
  assert.equal(savesNotebook({ ...key, key: "S", metaKey: true }), true);
  assert.equal(savesNotebook(key), false);
  assert.equal(savesNotebook({ ...key, ctrlKey: true, altKey: true }), false);
  assert.equal(savesNotebook({ ...key, key: "x", ctrlKey: true }), false);
});

test("a key with Ctrl, Cmd or Alt is a command", () => {
  assert.deepEqual([key, { ...key, ctrlKey: true }, { ...key, metaKey: true }, { ...key, altKey: true }].map(isCommand), [
    false,
    true,
    true,
    true,
  ]);
});

const GRID = headGrid([4, 7], [0, 1, 2]); // cells 0..3 the mean over layers, 4..7 layer 4, 8..11 layer 7

test("a cell is that of a layer and head, the first ones of means", () => {
  assert.deepEqual(GRID.numbers(0), { layer: null, head: null });
  assert.deepEqual(GRID.numbers(3), { layer: null, head: 2 });
  assert.deepEqual(GRID.numbers(8), { layer: 7, head: null });
  assert.deepEqual(GRID.numbers(9), { layer: 7, head: 0 });
  for (let at = 0; at < 12; at++) {
    const { layer, head } = GRID.numbers(at);
    assert.equal(GRID.cell(layer, head), at);
  }
});

test("keys move in the grid and stay in it", () => {
  const moves = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
  assert.deepEqual(
    moves.map((name) => GRID.moved(5, name)),
    [4, 6, 1, 9, 4, 7],
  );
  assert.deepEqual(
    moves.map((name) => GRID.moved(0, name)),
    [0, 1, 0, 4, 0, 3],
  );
  assert.deepEqual(
    moves.map((name) => GRID.moved(11, name)),
    [10, 11, 7, 11, 8, 11],
  );
  assert.equal(GRID.moved(5, "x"), null);
});

test("keys move in a list and stay in it", () => {
  const moves = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
  assert.deepEqual(
    moves.map((name) => movedInList(2, name, 5)),
    [1, 3, 1, 3, 0, 4],
  );
  assert.deepEqual(
    moves.map((name) => movedInList(4, name, 5)),
    [3, 4, 3, 4, 0, 4],
  );
  assert.equal(movedInList(2, "Enter", 5), null);
});

test("keys move from step to step", () => {
  const moves = ["ArrowLeft", "ArrowRight", "Home", "End"];
  assert.deepEqual(
    moves.map((name) => movedStep(0, name, 6)),
    [0, 1, 0, 5],
  );
  assert.deepEqual(
    moves.map((name) => movedStep(5, name, 6)),
    [4, 5, 0, 5],
  );
  assert.equal(movedStep(5, "ArrowUp", 6), null);
});

test("a token is added in its place, or removed", () => {
  assert.deepEqual(toggled([10, 12], 9), [9, 10, 12]);
  assert.deepEqual(toggled([9, 10, 12], 10), [9, 12]);
  assert.deepEqual(toggled([9], 9), []);
});

test("names of layers and heads", () => {
  assert.deepEqual([nameOf("layer", null), nameOf("head", 0)], ["mean over layers", "head 0"]);
});
