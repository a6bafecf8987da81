// @ts-check
// A grid of changes inside the model (see cause_view.py): each cell has the color of what it does to the answer. The cell
// that is clicked is told to Python, which answers with what the model says then.
/** @import { RenderProps } from "@anywidget/types" */
import { add } from "./dom.js";
import { ARROWS, isCommand, keepKeys } from "./keys.js";
import { within } from "./numbers.js";
import { digitsFor, furthest, SIGNED_RAMP, signed, signedColor } from "./signed.js";

const [WIDE, LEAST, MOST, BAR, HIGH] = [420, 9, 52, 120, 26]; // of the grid, its cells, one that is alone in its row
const NUMBERED = 30; // a cell that is narrower has no number

/**
 * @typedef {object} Data
 * @property {string} what
 * @property {string} measure
 * @property {string[]} answers
 * @property {number} before
 * @property {(number | null)[][]} change
 * @property {string[]} rows
 * @property {string[]} columns
 * @property {[string, string]} axes
 *
 * @typedef {{ cell?: [number, number], before?: string, after?: string }} Said
 * @typedef {{ data: Data, cell: [number, number] | null, said: Said }} State
 */

/** @param {RenderProps<State>} props */
function render({ model, el }) {
  const root = add(el, "div", { className: "cmllm-view cmllm-causes" });
  const leaveKeys = keepKeys(() => root);
  const title = add(root, "div", { className: "title" });
  const note = add(root, "div", { className: "note" });
  const grid = add(root, "div", { className: "grid", role: "grid" });
  const legend = add(root, "div", { className: "scale" });
  const least = add(legend, "span");
  add(legend, "span", { className: "ramp" }).style.background = SIGNED_RAMP;
  const most = add(legend, "span");
  const reading = add(root, "div", { className: "reading" });
  const said = add(root, "div", { className: "said", ariaLive: "polite" });
  const when = ["unchanged", "then"].map((textContent) => {
    const label = add(said, "span", { className: "when", textContent });
    return { label, answer: add(said, "div", { className: "answer" }) };
  });
  when[1].answer.classList.add("after");
  /** @type {Data} */
  let data;
  /** @type {HTMLElement[][]} */
  let cells = [];
  let laid = "";

  /** @type {(row: number, column: number) => string} */
  const nameOf = (row, column) => {
    const [down, across] = data.axes;
    const name = data.columns[column];
    return `${down} ${data.rows[row]}, ${name === "all" ? `all ${across}s` : `${across} ${name}`}`;
  };

  /** @type {(row: number, column: number) => string} */
  const spoken = (row, column) => {
    const value = data.change[row][column];
    return `${nameOf(row, column)}: ${value === null ? "not known yet" : `${signed(value, 3)} nats`}`;
  };

  function lay() {
    const count = data.columns.length;
    const side = count === 1 ? BAR : within(Math.floor(WIDE / count) - 1, MOST, LEAST);
    const every = Math.ceil(20 / (side + 1)); // room for a number
    grid.replaceChildren();
    grid.style.setProperty("--wide", `${side}px`);
    grid.style.setProperty("--high", `${Math.min(side, HIGH)}px`);
    const head = add(grid, "div", { className: "row heads", ariaHidden: "true" });
    add(head, "span", { className: "axis", textContent: data.axes[0] });
    data.columns.forEach((name, at) => {
      const shown = name === "all" ? `all ${data.axes[1]}s` : name;
      add(head, "span", { textContent: at % every ? "" : shown });
    });
    cells = data.rows.map((name) => {
      const row = add(grid, "div", { className: "row", role: "row" });
      add(row, "span", { className: "axis", role: "rowheader", textContent: name });
      return data.columns.map(() => add(row, "span", { className: "cell", role: "gridcell", tabIndex: -1 }));
    });
    cells[0][0].tabIndex = 0;
    return side;
  }

  function load() {
    data = model.get("data");
    const shape = JSON.stringify([data.rows, data.columns, data.axes]);
    if (shape !== laid) lay();
    laid = shape;
    const [first, ...others] = data.answers;
    const against = others.length ? ` against ${others.map((one) => `"${one}"`).join(", ")}` : "";
    title.textContent = `Change of the ${data.measure} of "${first}"${against}, in nats`;
    const what = data.what.charAt(0).toUpperCase() + data.what.slice(1);
    const sides = data.columns.length > 1 ? ` ${data.axes[0]} down, ${data.axes[1]} across;` : "";
    note.textContent = `${what}:${sides} unchanged ${data.before.toFixed(2)}. Click a cell: what does the model say then?`;
    grid.ariaLabel = `${title.textContent}; arrow keys choose`;
    const top = furthest(data.change);
    const digits = digitsFor(top);
    least.textContent = signed(-top, digits);
    most.textContent = signed(top, digits);
    const numbered = Number.parseInt(grid.style.getPropertyValue("--wide"), 10) >= NUMBERED;
    cells.forEach((row, down) => {
      row.forEach((cell, across) => {
        const value = data.change[down][across];
        cell.style.background = signedColor(value, top);
        cell.textContent = numbered && value !== null ? signed(value, digits) : "";
        cell.ariaLabel = spoken(down, across);
      });
    });
    mark();
  }

  function mark() {
    const chosen = model.get("cell");
    const { cell, before, after } = model.get("said");
    for (const one of cells.flat()) if (one.ariaSelected === "true") one.ariaSelected = "false";
    const known = chosen && cells[chosen[0]]?.[chosen[1]];
    said.hidden = !known;
    if (!known) return;
    for (const one of cells.flat()) one.tabIndex = one === known ? 0 : -1;
    known.ariaSelected = "true";
    const here = String(cell) === String(chosen);
    when[0].answer.textContent = before ?? "...";
    when[1].label.textContent = nameOf(...chosen);
    when[1].answer.textContent = here ? (after ?? "") : "...";
    when[1].answer.classList.toggle("changed", here && after !== before);
  }

  /** @param {EventTarget | null} target */
  const placeOf = (target) => {
    const row = cells.findIndex((one) => one.includes(/** @type {HTMLElement} */ (target)));
    return row < 0 ? null : { row, column: cells[row].indexOf(/** @type {HTMLElement} */ (target)) };
  };

  /** @type {(row: number, column: number) => void} */
  function pick(row, column) {
    model.set("cell", [row, column]);
    model.save_changes();
  }

  grid.addEventListener("click", ({ target }) => {
    const at = placeOf(target);
    if (at) pick(at.row, at.column);
  });
  grid.addEventListener("pointerover", ({ target }) => {
    const at = placeOf(target);
    reading.textContent = at ? spoken(at.row, at.column) : "";
  });
  grid.addEventListener("pointerleave", () => {
    reading.textContent = "";
  });
  root.addEventListener("keydown", (event) => {
    const at = placeOf(event.target);
    if (!at || isCommand(event)) return;
    if (event.key === "Enter" || event.key === " ") pick(at.row, at.column);
    else if (event.key in ARROWS) {
      const [right, down] = ARROWS[event.key];
      const to = cells[within(at.row + down, cells.length - 1)][within(at.column + right, data.columns.length - 1)];
      // Moving asks nothing of the model: it may be slow.
      for (const one of cells.flat()) one.tabIndex = one === to ? 0 : -1;
      to.focus();
      const place = placeOf(to);
      if (place) reading.textContent = spoken(place.row, place.column);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  const listeners = { data: load, cell: mark, said: mark };
  for (const [name, listener] of Object.entries(listeners)) model.on(`change:${name}`, listener);
  load();
  return () => {
    leaveKeys();
    for (const [name, listener] of Object.entries(listeners)) model.off(`change:${name}`, listener);
  };
}

export default { render };
