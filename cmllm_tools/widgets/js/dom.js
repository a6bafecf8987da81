// @ts-check
// Elements of a view. Text from models and users enters by properties, never as markup.

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Element} parent
 * @param {Tag} tag
 * @param {Partial<HTMLElementTagNameMap[Tag]>} [properties]
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function add(parent, tag, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
}

/**
 * @param {Element} parent
 * @param {string} text
 * @param {Partial<HTMLButtonElement>} [properties]
 */
export function button(parent, text, properties) {
  return add(parent, "button", { type: "button", textContent: text, ...properties });
}

/**
 * A canvas's context, which there is where none of another kind was asked for.
 *
 * @param {HTMLCanvasElement} canvas
 */
export const paperOf = (canvas) => /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
