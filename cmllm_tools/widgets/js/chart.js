// @ts-check
// A small line chart over steps.
import { within } from "./numbers.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [420, 132];
const MARGIN = { left: 48, right: 14, top: 24, bottom: 20 };
const EVERY = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]; // steps between two numbers below a chart

/**
 * Where steps and values lie in a chart.
 *
 * @param {number} count of steps
 * @param {number} highest value
 */
export function scaleOf(count, highest) {
  const [across, down] = [WIDTH - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];
  return {
    /** @param {number} step */
    x: (step) => MARGIN.left + (across * step) / Math.max(count - 1, 1),
    /** @param {number} value */
    y: (value) => HEIGHT - MARGIN.bottom - (down * value) / highest,
    /**
     * The step nearest to a place.
     *
     * @param {number} share of the chart's width
     */
    stepAt: (share) => within(Math.round(((share * WIDTH - MARGIN.left) / across) * (count - 1)), count - 1),
  };
}

/**
 * The steps that have a number below the chart: ten at most, while there is a distance for it.
 *
 * @param {number} count
 */
export function numbered(count) {
  const every = EVERY.find((steps) => count <= 10 * steps) ?? count;
  return Array.from({ length: Math.ceil(count / every) }, (_, at) => at * every);
}

/**
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Element} parent
 * @param {Tag} tag
 * @param {Record<string, string | number>} attributes
 * @returns {SVGElementTagNameMap[Tag]}
 */
function draw(parent, tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.textContent = text;
  parent.append(element);
  return element;
}

/**
 * @param {Element} parent
 * @param {object} of
 * @param {string} of.name its class
 * @param {string} of.title
 * @param {number[]} of.values one for each step
 * @param {number} of.highest value
 * @param {(value: number, exact: boolean) => string} of.format
 * @param {boolean} of.last whether steps are numbered below it
 * @returns the chart, how to move its cursor, and the step at a place in the window.
 */
export function chart(parent, { name, title, values, highest, format, last }) {
  const { x, y, stepAt } = scaleOf(values.length, highest);
  const [right, foot] = [WIDTH - MARGIN.right, HEIGHT - MARGIN.bottom];
  const svg = draw(parent, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: `chart ${name}`, "aria-hidden": "true" });
  for (const tick of [0, highest / 2, highest]) {
    draw(svg, "line", { x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick), class: "grid" });
    draw(svg, "text", { x: MARGIN.left - 6, y: y(tick) + 4, "text-anchor": "end" }, format(tick, false));
  }
  for (const step of last ? numbered(values.length) : []) {
    draw(svg, "text", { x: x(step), y: HEIGHT - 4, "text-anchor": "middle" }, String(step));
  }
  draw(svg, "text", { x: MARGIN.left, y: 13, class: "title" }, title);
  const reading = draw(svg, "text", { x: right, y: 13, "text-anchor": "end", class: "title" });
  const cursor = draw(svg, "line", { y1: MARGIN.top - 4, y2: foot, class: "cursor" });
  draw(svg, "polyline", { points: values.map((value, step) => `${x(step)},${y(value)}`).join(" "), class: "curve" });
  const dots = values.map((value, step) => draw(svg, "circle", { cx: x(step), cy: y(value), r: 3 }));
  return {
    svg,
    /** @param {number} clientX */
    stepAt: (clientX) => {
      const box = svg.getBoundingClientRect();
      return stepAt((clientX - box.left) / box.width);
    },
    /** @param {number} step */
    move: (step) => {
      cursor.setAttribute("x1", String(x(step)));
      cursor.setAttribute("x2", String(x(step)));
      dots.forEach((dot, at) => {
        dot.classList.toggle("now", at === step);
      });
      reading.textContent = format(values[step], true);
    },
  };
}
