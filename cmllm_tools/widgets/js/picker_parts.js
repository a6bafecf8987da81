// @ts-check
// The elements of the region picker; what they do is in region_picker.js.
/** @import { Frame } from "./frame.js" */
import { add, button } from "./dom.js";

const LEAST_WIDTH = 430; // of the tools and the words
const RIM_WIDTH = 16; // around the image, where a box may begin; as in the style sheet
const KEYS =
  "b, m, e, s, p: tools. [ and ]: brush size. n: new mask. Ctrl-Z: undo. On the image, arrow keys move a cross (with " +
  "Shift by one pixel); Enter or Space sets it down and lifts it: corners of a box, ends of a line, a point. Esc cancels.";

/** @typedef {"box" | "mask" | "eraser" | "scribble" | "point"} Tool */

/** @type {{ name: Tool, label: string, key: string, hint: string }[]} */
export const TOOLS = [
  { name: "box", label: "Box", key: "b", hint: "Drag from corner to corner." },
  { name: "mask", label: "Mask", key: "m", hint: "Paint; strokes join until New mask is pressed." },
  { name: "eraser", label: "Eraser", key: "e", hint: "Rub out parts of masks." },
  { name: "scribble", label: "Scribble", key: "s", hint: "Draw a line." },
  { name: "point", label: "Point", key: "p", hint: "Click." },
];

/**
 * @param {HTMLElement} el
 * @param {Frame} frame
 * @param {number} largest brush
 */
export function pickerParts(el, frame, largest) {
  const root = add(el, "div", { className: "cmllm-picker" });
  const bar = add(root, "div", { className: "cmllm-bar", role: "toolbar", ariaLabel: "Drawing tools" });
  const group = add(bar, "span", { className: "cmllm-group" });
  const tools = TOOLS.map(({ label, key, hint }) => button(group, label, { title: `${hint} (key ${key})` }));
  const undo = button(bar, "Undo", { title: "Take the last change back (Ctrl-Z)" });
  const clear = button(bar, "Clear", { title: "Remove all regions" });
  const seen = add(bar, "label", { title: "What each visual token sees; blue: its weight in the regions" });
  const showTokens = add(seen, "input", { type: "checkbox", checked: true });
  seen.append("visual tokens");
  const painting = add(bar, "span", { className: "cmllm-painting" });
  const size = add(painting, "label", { className: "cmllm-size", title: "Diameter in pixels of the image ([ and ])" });
  size.append("Brush");
  const brush = add(size, "input", { type: "range", min: "1", max: `${largest}`, ariaLabel: "Brush size in pixels" });
  const diameter = add(size, "span", { className: "cmllm-number" });
  const newMask = button(painting, "New mask", { title: "The next stroke begins a mask (key n)" });

  const { across, down, dense } = frame;
  const stage = add(root, "div", { className: "cmllm-stage" });
  stage.style.width = `${across / dense}px`;
  root.style.width = `${Math.max(across / dense, LEAST_WIDTH) + 2 * RIM_WIDTH}px`; // whatever is said in it
  const rim = add(stage, "div", { className: "cmllm-rim" });
  const [picture, tokens, canvas] = ["picture", "tokens", "drawing"].map((name) =>
    add(stage, "canvas", { className: `cmllm-${name}`, width: across, height: down, ariaHidden: `${name !== "drawing"}` }),
  );
  Object.assign(canvas, { tabIndex: 0, role: "application", ariaDescription: KEYS });
  const status = add(root, "div", { className: "cmllm-status", role: "status" });
  const problem = add(root, "div", { className: "cmllm-problem", role: "alert" });
  const help = add(root, "details");
  add(help, "summary", { textContent: "Keys" });
  add(help, "div", { textContent: KEYS });
  return {
    root,
    tools,
    undo,
    clear,
    seen,
    showTokens,
    brush,
    diameter,
    newMask,
    stage,
    rim,
    picture,
    tokens,
    canvas,
    status,
    problem,
  };
}
