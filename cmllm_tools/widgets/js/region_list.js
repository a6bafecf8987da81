// @ts-check
// The list of regions that a view draws, the model's `_regions`, and what it was before.
/** @import { AnyModel } from "@anywidget/types" */
/** @import { Region } from "./regions.js" */
import { sameRegions } from "./regions.js";

/**
 * What a picker's model holds; see region_picker.py.
 *
 * @typedef {object} Picked
 * @property {DataView<ArrayBuffer>} _image
 * @property {[number, number]} _size
 * @property {Region[]} _regions
 * @property {number[][]} _boxes
 * @property {number[]} _weights
 * @property {string} _error
 * @property {string} _note
 */

/**
 * @param {Pick<AnyModel<Picked>, "get" | "set" | "save_changes">} model
 * @param {() => void} changed called after each change
 */
export function regionList(model, changed) {
  /** @type {Region[][]} */
  const history = []; // earlier lists
  let shown = model.get("_regions"); // as this view last saw it

  /** @param {Region[]} regions */
  function send(regions) {
    shown = regions;
    model.set("_error", ""); // Python answers with an error where the new list is no good
    model.set("_regions", regions);
    model.save_changes();
    changed();
  }

  return {
    shown: () => shown,
    undoable: () => history.length > 0,

    /** @param {Region[]} regions */
    commit(regions) {
      history.push(shown);
      send(regions);
    },

    undo() {
      const before = history.pop();
      if (before) send(before);
    },

    /** To be called when the model's list has changed. */
    receive() {
      const regions = model.get("_regions");
      if (sameRegions(regions, shown)) return;
      // Python put the last valid list back, which is no step to undo, or someone set other regions, which is.
      if (history.length && sameRegions(regions, history[history.length - 1])) history.pop();
      else history.push(shown);
      shown = regions;
      changed();
    },
  };
}
