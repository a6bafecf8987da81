// @ts-check
// The elements of the attention explorer; what they do is in attention_explorer.js.
/** @import { ExplorerData } from "./attention_explorer.js" */
import { add, button } from "./dom.js";
import { mapOnImage } from "./picture.js";

const [SMALLEST, LARGEST, GRID] = [9, 32, 380]; // side of a cell of the grid, and its width, in CSS pixels

/** @param {HTMLElement} el */
export function explorerParts(el) {
  const root = add(el, "div", { className: "cmllm-view cmllm-explorer" });
  const words = add(root, "div", {
    className: "words",
    role: "listbox",
    ariaMultiSelectable: "true",
    ariaLabel: "tokens: Enter chooses one, Space adds or removes one",
  });
  const controls = add(root, "div", { className: "controls" });
  const several = button(controls, "Choose several", {
    className: "several",
    ariaPressed: "false",
    title: "Each click adds a token or removes it; else press Ctrl while you click",
  });
  const presets = add(controls, "span", { className: "presets" });
  const panels = add(root, "div", { className: "panels" });
  const picture = mapOnImage(add(panels, "div", { className: "left" }), "heads", false);
  const label = add(picture.scale, "label", { title: "So that one token with most of the attention hides no others" });
  const cut = add(label, "input", { type: "checkbox", className: "cut" });
  label.append(" cut at the 99th percentile");
  const right = add(panels, "div", { className: "right" });
  const title = add(right, "div", { className: "title" });
  const grid = add(right, "div", { className: "grid", role: "grid" });
  const legend = add(right, "div", { className: "scale" });
  add(legend, "span", { textContent: "0" });
  const ramp = add(legend, "span", { className: "ramp" });
  const most = add(legend, "span");
  const reading = add(right, "div", { className: "reading" });
  const facts = add(right, "div", { className: "facts", ariaLive: "polite" });
  const note = add(root, "div", { className: "note", role: "status" });
  return { root, words, controls, several, presets, picture, cut, title, grid, ramp, most, reading, facts, note };
}

/**
 * One element for each token, with a word before the answer's.
 *
 * @param {HTMLElement} words
 * @param {ExplorerData["tokens"]} tokens
 */
export function layTokens(words, tokens) {
  words.replaceChildren();
  return tokens.map(({ text, part }, at) => {
    if (at && part === "answer" && tokens[at - 1].part !== part) {
      add(words, "span", { className: "part", role: "presentation", textContent: part });
    }
    return add(words, "span", {
      className: `token of-${part}`,
      role: "option",
      ariaLabel: `${text}, ${part}`,
      textContent: text.trim() ? text : JSON.stringify(text).slice(1, -1),
    });
  });
}

/**
 * One element for each layer and head, row by row, after a row and in a column of means.
 *
 * @param {HTMLElement} grid
 * @param {number[]} layers
 * @param {number[]} heads
 */
export function layGrid(grid, layers, heads) {
  const side = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(GRID / (1 + heads.length)) - 1));
  const every = Math.ceil(18 / (side + 1)); // room for a number
  /** @type {(names: (string | number)[]) => string[]} */
  const spaced = (names) => names.map((name, at) => (at && (at - 1) % every ? "" : String(name)));
  grid.replaceChildren();
  grid.style.setProperty("--side", `${side}px`);
  const head = add(grid, "div", { className: "row heads", ariaHidden: "true" });
  add(head, "span", { className: "axis" });
  for (const name of spaced(["mean", ...heads])) add(head, "span", { textContent: name });
  return spaced(["mean", ...layers]).flatMap((name) => {
    const row = add(grid, "div", { className: "row", role: "row" });
    add(row, "span", { className: "axis", role: "rowheader", textContent: name });
    return [null, ...heads].map(() => add(row, "span", { className: "cell", role: "gridcell" }));
  });
}
