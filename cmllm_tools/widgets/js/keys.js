// @ts-check
// Keys typed at a widget are the widget's.

const SUPPRESS = "data-lm-suppress-shortcuts";

/**
 * Where an arrow leads: to the right, and down.
 *
 * @type {Record<string, [number, number]>}
 */
export const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @typedef {Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey">} Key */

/** @type {(event: Key) => boolean} */
export const isCommand = ({ ctrlKey, metaKey, altKey }) => ctrlKey || metaKey || altKey;

/** @type {(event: Key) => boolean} */
export const savesNotebook = ({ key, ctrlKey, metaKey, altKey }) =>
  (ctrlKey || metaKey) && !altKey && key.toLowerCase() === "s";

/**
 * JupyterLab and Notebook 7 listen on the document before anyone below it, and take single letters for commands: x cuts the
 * cell. They go up from the element that has the focus to one that a command is for, and stop at one with this attribute.
 * As commands are for whatever has the focus, it must be that element's own; on the view's root it comes too late. Saving
 * the notebook stays theirs, so that it is set anew for each key, before they hear of it.
 *
 * @param {() => Element | null} rootOf
 * @returns what ends this.
 */
export function keepKeys(rootOf) {
  /** @param {KeyboardEvent} event */
  const take = (event) => {
    const [root, { target }] = [rootOf(), event];
    if (!(target instanceof Element && root?.contains(target))) return;
    for (const element of [root, target]) {
      if (savesNotebook(event)) element.removeAttribute(SUPPRESS);
      else element.setAttribute(SUPPRESS, "true");
    }
  };
  rootOf()?.setAttribute(SUPPRESS, "true");
  window.addEventListener("keydown", take, { capture: true });
  return () => window.removeEventListener("keydown", take, { capture: true });
}
