// @ts-check
import assert from "node:assert/strict";
import test from "node:test";
import { placesOf, titleOf } from "../../cmllm_tools/widgets/js/answer_words.js";

test("a title says what the maps are of, and only attention looks", () => {
  assert.equal(
    titleOf("attention", "in the box"),
    "Where each token of the answer looks; below it, how much of its map is in the box",
  );
  assert.equal(
    titleOf("attention", ""),
    "Where each token of the answer looks; below it, how much of its attention is on the image",
  );
  assert.equal(
    titleOf("Grad-CAM", ""),
    "The Grad-CAM of each token of the answer; below it, how much of its Grad-CAM is on the image",
  );
});

test("a share is of what the map is of", () => {
  const token = { on_image: 0.5, shares: [0.25, 0.125] };
  assert.equal(
    placesOf(token, "activation", "in the regions"),
    "50.0 % of its activation is on the image; of that, 25.0 %, 12.5 % in the regions",
  );
  assert.equal(placesOf({ on_image: 1, shares: [] }, "Grad-CAM", ""), "100.0 % of its Grad-CAM is on the image");
});
