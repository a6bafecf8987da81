// @ts-check
// Tokens to click, a layer x head grid, and the map of the head that is chosen. `data` stays; `shown` has every head's map
// for the chosen tokens (see attention_explorer.py), so that another head is drawn here, without the kernel.
/** @import { RenderProps } from "@anywidget/types" */
/** @import { PictureData } from "./picture_drawing.js" */
import { shorts } from "./bytes.js";
import { colorsOf, rampOf } from "./colors.js";
import { button } from "./dom.js";
import { explorerParts, layGrid, layTokens } from "./explorer_parts.js";
import { cutOf, headGrid, mapAt, movedInList, nameOf, toggled } from "./heads.js";
import { isCommand, keepKeys } from "./keys.js";
import { percent } from "./numbers.js";

const LATE_MS = 1500;
const LONGEST = 80; // characters of the context token's words

/**
 * @typedef {object} OwnData
 * @property {{ position: number, text: string, part: string }[]} tokens that can be chosen
 * @property {[string, number[]][]} presets names of several tokens
 * @property {number[]} layers
 * @property {number[]} heads
 * @property {string} where the regions are, in words
 * @property {number | null} uniform share in the regions of attention that is even; null where there are none
 * @property {string} note
 *
 * @typedef {PictureData & OwnData} ExplorerData
 */

/**
 * Of the mean over the chosen tokens, for each cell of the grid.
 *
 * @typedef {object} Shown
 * @property {number[]} queries positions of the tokens
 * @property {string | DataView<ArrayBuffer>} maps (cell of the grid, cell of the map), as shares of the peaks
 * @property {number[]} peaks in percent of the attention on the image
 * @property {number[]} on_image share of all attention
 * @property {number[] | null} inside share in the regions, of the attention on the image
 */

/**
 * @typedef {object} State
 * @property {boolean} [fixed] a page: there is no kernel to ask for other tokens
 * @property {ExplorerData} data
 * @property {Shown} shown
 * @property {number[]} queries
 * @property {number | null} layer
 * @property {number | null} head
 */

/**
 * One of several elements can be reached by the tab key: the one that had the focus last.
 *
 * @param {HTMLElement[]} elements
 * @param {number} at
 */
function rove(elements, at) {
  elements.forEach((element, index) => {
    element.tabIndex = index === at ? 0 : -1;
  });
}

/** @type {(elements: HTMLElement[], target: EventTarget | null) => number} */
const indexOf = (elements, target) => elements.indexOf(/** @type {HTMLElement} */ (target));

/** @param {RenderProps<State>} props */
function render({ model, el }) {
  const view = explorerParts(el);
  const leaveKeys = keepKeys(() => view.root);
  const fixed = Boolean(model.get("fixed"));
  /** @type {ExplorerData} */
  let data;
  /** @type {Shown} */
  let shown;
  /** @type {ReturnType<typeof headGrid>} */
  let grid;
  /** @type {Uint16Array} */
  let maps;
  /** @type {string[]} */
  let colors;
  /** @type {HTMLElement[]} */
  let tokens;
  /** @type {HTMLElement[]} */
  let cells;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let late;

  const shares = () => shown.inside ?? shown.on_image;
  const phrase = () => {
    const words = data.tokens
      .filter(({ position }) => shown.queries.includes(position))
      .map(({ text }) => text)
      .join(" ");
    return words.length > LONGEST ? `${words.slice(0, LONGEST)} ...` : words;
  };

  /** @param {number} at */
  const nameAt = (at) => {
    const { layer, head } = grid.numbers(at);
    return `${nameOf("layer", layer)}, ${nameOf("head", head)}`;
  };
  /** @param {number} at */
  const spoken = (at) => `${nameAt(at)}: ${percent(shares()[at], 1)}`;

  // ---- Tokens
  /** @param {number[]} positions */
  function choose(positions) {
    if (fixed) view.note.textContent = "This page holds the maps of the marked tokens; others need a kernel.";
    else if (positions.length) {
      model.set("queries", positions);
      model.save_changes();
    }
  }

  /** @type {(at: number, adds: boolean) => void} */
  function press(at, adds) {
    const { position } = data.tokens[at];
    choose(adds || view.several.ariaPressed === "true" ? toggled(model.get("queries"), position) : [position]);
  }

  function mark() {
    const chosen = model.get("queries");
    data.tokens.forEach(({ position }, at) => {
      tokens[at].ariaSelected = String(chosen.includes(position));
    });
    clearTimeout(late);
    view.note.textContent = data.note;
    if (String(chosen) === String(shown.queries)) return;
    late = setTimeout(() => {
      view.note.textContent = `No kernel has answered: what is shown is still that of "${phrase()}".`;
    }, LATE_MS);
  }

  function offerTokens() {
    tokens = layTokens(view.words, data.tokens);
    rove(
      tokens,
      Math.max(
        0,
        data.tokens.findIndex(({ position }) => model.get("queries").includes(position)),
      ),
    );
    view.presets.replaceChildren();
    for (const [name, positions] of data.presets) button(view.presets, name, { onclick: () => choose(positions) });
    view.controls.hidden = fixed;
  }

  // ---- Grid
  function offerHeads() {
    grid = headGrid(data.layers, data.heads);
    cells = layGrid(view.grid, data.layers, data.heads);
    const where = data.uniform === null ? "that is on the image" : `on the image that is ${data.where}`;
    view.title.textContent = `Share of the attention ${where}, by layer (down) and head (across)`;
    view.grid.ariaLabel = `${view.title.textContent}; arrow keys choose`;
    colors = colorsOf(data.palette);
    view.ramp.style.background = rampOf(colors);
  }

  function paint() {
    const top = Math.max(...shares(), 1e-9);
    shares().forEach((share, at) => {
      cells[at].style.background = colors[Math.round((255 * share) / top)];
      cells[at].ariaLabel = spoken(at);
    });
    const uniform = data.uniform === null ? "" : ` (uniform attention: ${percent(data.uniform, 1)})`;
    view.most.textContent = `${percent(top, 1)}${uniform}`;
  }

  /** @param {number} at */
  function pick(at) {
    const { layer, head } = grid.numbers(at);
    model.set("layer", layer);
    model.set("head", head);
    model.save_changes();
    cells[at].focus();
  }

  // ---- The map of the chosen head
  function show() {
    const at = grid.cell(model.get("layer"), model.get("head"));
    const map = mapAt(maps, shown.peaks, at);
    const own = view.cut.checked ? cutOf(map, shown.peaks[at]) : shown.peaks[at];
    const inside = shown.inside ? `; of that, ${percent(shown.inside[at], 1)} ${data.where}` : "";
    const where = `${percent(shown.on_image[at], 1)} of its attention is on the image${inside}`;
    const words = `"${phrase()}", ${nameAt(at)}: ${where}`;
    view.facts.textContent = words;
    const tops = { own, common: Math.max(...shown.peaks) };
    view.picture.show({ map, tops, spoken: words, beyond: own < shown.peaks[at] });
    for (const one of cells) if (one.ariaSelected === "true") one.ariaSelected = "false";
    cells[at].ariaSelected = "true";
    rove(cells, at);
  }

  function receive() {
    shown = model.get("shown");
    maps = shorts(shown.maps);
    paint();
    mark();
    show();
  }

  function load() {
    data = model.get("data");
    view.picture.load(data);
    offerTokens();
    offerHeads();
    receive();
  }

  // ---- Mouse and keys
  view.words.addEventListener("click", ({ target, ctrlKey, metaKey }) => {
    const at = indexOf(tokens, target);
    if (at < 0) return;
    rove(tokens, at);
    tokens[at].focus();
    press(at, ctrlKey || metaKey);
  });
  view.grid.addEventListener("click", ({ target }) => {
    const at = indexOf(cells, target);
    if (at >= 0) pick(at);
  });
  view.grid.addEventListener("pointerover", ({ target }) => {
    const at = indexOf(cells, target);
    view.reading.textContent = at < 0 ? "" : spoken(at);
  });
  view.grid.addEventListener("pointerleave", () => {
    view.reading.textContent = "";
  });
  view.several.addEventListener("click", () => {
    view.several.ariaPressed = String(view.several.ariaPressed !== "true");
  });
  view.cut.addEventListener("change", show);

  /** @type {(at: number, key: string) => boolean} */
  function typeAtToken(at, key) {
    const to = movedInList(at, key, tokens.length);
    if (key === "Enter" || key === " ") press(at, key === " ");
    else if (to === null) return false;
    else {
      rove(tokens, to);
      tokens[to].focus();
    }
    return true;
  }

  /** @type {(at: number, key: string) => boolean} */
  function typeAtCell(at, key) {
    const to = grid.moved(at, key);
    if (to !== null) pick(to);
    return to !== null;
  }

  view.root.addEventListener("keydown", (event) => {
    if (isCommand(event)) return;
    const [token, cell] = [indexOf(tokens, event.target), indexOf(cells, event.target)];
    if (token >= 0 ? typeAtToken(token, event.key) : cell >= 0 && typeAtCell(cell, event.key)) {
      event.preventDefault();
      event.stopPropagation();
    }
  });

  const listeners = { data: load, shown: receive, queries: mark, layer: show, head: show };
  for (const [name, listener] of Object.entries(listeners)) model.on(`change:${name}`, listener);
  load();
  return () => {
    leaveKeys();
    clearTimeout(late);
    for (const [name, listener] of Object.entries(listeners)) model.off(`change:${name}`, listener);
  };
}

export default { render };
