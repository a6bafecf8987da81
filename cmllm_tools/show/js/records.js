// @ts-check
// The gallery of a page of records: filters and pages, all of what the page has with it. Texts are set as texts, so that no
// answer of a model is read as markup.

/**
 * @typedef {string | null} Words
 * @typedef {number | null} Figure
 * Rows, columns, corners x0, y0, x1, y1; the map before and after.
 * @typedef {[number, number, number, number, number, number, ...string[]]} Maps
 * @typedef {[text: Words, figure: Figure, share: Figure, error: Words, sent: Words, maps: Maps | null]} Answer
 *
 * @typedef {object} Example
 * @property {string | number} id
 * @property {string} q the question
 * @property {string[]} names right answers
 * @property {string} where file and line
 * @property {number} picture number of its picture; -1 for none
 * @property {[number, number]} size of the image, in pixels
 * @property {number[][]} lines of the regions, x, y, x, y, ... each
 * @property {string} area class of the region's size
 * @property {(Answer | null)[]} answers one to each method
 */

const PAGE = 24;
const SVG = "http://www.w3.org/2000/svg";

/** @type {{ methods: string[], ramp: number[][], examples: Example[] }} */
const { methods, ramp, examples } = JSON.parse(text("data"));
const pictures = /** @type {HTMLTemplateElement} */ (element("pictures")).content.children;
const method = /** @type {HTMLSelectElement} */ (element("method"));
const state = /** @type {HTMLSelectElement} */ (element("state"));
const area = /** @type {HTMLSelectElement} */ (element("area"));
const words = /** @type {HTMLInputElement} */ (element("words"));
const searched = examples.map((each) =>
  [each.id, each.q, ...each.names, ...each.answers.map((answer) => answer?.[0] ?? "")].join("\n").toLowerCase(),
);
let found = examples;
let page = 0;

/** @param {string} id */
function element(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** @param {string} id */
function text(id) {
  return element(id).textContent ?? "";
}

/**
 * @param {string} tag
 * @param {string} [words]
 * @param {string} [kind]
 */
function made(tag, words = "", kind = "") {
  const node = document.createElement(tag);
  node.textContent = words;
  if (kind) node.className = kind;
  return node;
}

/**
 * @param {Example} example
 * @param {number} chosen
 */
function fits(example, chosen) {
  const [answer, first] = [example.answers[chosen], example.answers[0]];
  if (state.value === "all") return true;
  if (!answer) return false;
  const [said, figure, , error] = answer;
  if (state.value === "failed") return error !== null;
  if (state.value === "right") return figure === 1;
  if (state.value === "wrong") return error === null && figure !== null && figure < 1;
  if (!first || error !== null || first[3] !== null) return false;
  if (state.value === "changed") return said !== first[0];
  const gain = (figure ?? 0) - (first[1] ?? 0);
  return state.value === "better" ? gain > 0 : gain < 0;
}

function filter() {
  const chosen = method.selectedIndex;
  const wanted = words.value.trim().toLowerCase();
  found = examples.filter(
    (each, at) =>
      (!area.value || each.area === area.value) && (!wanted || searched[at].includes(wanted)) && fits(each, chosen),
  );
  page = 0;
  show();
}

/** @param {Example} example */
function frame({ size: [width, height] }) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return svg;
}

/**
 * @param {Element} svg
 * @param {Example} example
 */
function addImage(svg, { picture, size: [width, height] }) {
  if (picture < 0) return;
  const image = document.createElementNS(SVG, "image");
  image.setAttribute("href", pictures[picture].getAttribute("src") ?? "");
  image.setAttribute("width", String(width));
  image.setAttribute("height", String(height));
  image.setAttribute("preserveAspectRatio", "none");
  svg.append(image);
}

/**
 * @param {Element} svg
 * @param {Example} example
 */
function addRegion(svg, { lines }) {
  for (const kind of ["rim", "line"]) {
    for (const line of lines) {
      const drawn = document.createElementNS(SVG, "polyline");
      drawn.setAttribute("points", line.join(" "));
      drawn.setAttribute("class", kind);
      // A point is a line to itself, which is drawn by its round end.
      drawn.setAttribute("stroke-linecap", "round");
      svg.append(drawn);
    }
  }
}

/** @param {Example} example */
function picture(example) {
  const svg = frame(example);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `image of example ${example.id} with its region`);
  addImage(svg, example);
  addRegion(svg, example);
  return svg;
}

/**
 * A map, a pixel to each cell, placed on an image that is shown at any size.
 * @param {Example} example
 * @param {number[]} places rows, columns, x0, y0, x1, y1
 * @param {string} levels
 */
function map({ size: [width, height] }, [rows, columns, x0, y0, x1, y1], levels) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const colors = new Uint8ClampedArray(Array.from(levels).flatMap((level) => ramp[Number.parseInt(level, 16)]));
  canvas.getContext("2d")?.putImageData(new ImageData(colors, columns, rows), 0, 0);
  const [left, top] = [x0 / width, y0 / height];
  const shares = { left, top, width: x1 / width - left, height: y1 / height - top };
  for (const [name, share] of Object.entries(shares)) canvas.style.setProperty(name, `${100 * share}%`);
  return canvas;
}

/**
 * Where the model looked before the steps and after them, side by side.
 * @param {Example} example
 * @param {Maps} maps
 */
function looks(example, [rows, columns, x0, y0, x1, y1, ...both]) {
  const row = made("div", "", "looks");
  both.forEach((levels, at) => {
    const name = at ? "after" : "before";
    const [node, held, below, above] = [made("figure"), made("div"), frame(example), frame(example)];
    held.setAttribute("role", "img");
    held.setAttribute("aria-label", `attention ${name} on example ${example.id}`);
    addImage(below, example);
    addRegion(above, example);
    held.append(below, map(example, [rows, columns, x0, y0, x1, y1], levels), above);
    node.append(held, made("figcaption", name));
    row.append(node);
  });
  return row;
}

/**
 * @param {Example} example
 * @param {Answer} answer
 */
function answered(example, answer) {
  const [said, figure, share, error, sent, maps] = answer;
  const node = made("dd");
  if (error !== null) {
    node.append(made("span", "failed ", "mark wrong"), error);
    return node;
  }
  if (figure !== null) {
    const mark = figure === 1 ? "right" : figure === 0 ? "wrong" : figure.toFixed(2);
    node.append(made("span", `${mark} `, `mark ${figure === 1 ? "right" : "wrong"}`));
  }
  node.append(said ?? "");
  if (share !== null) node.append(made("span", ` (${Math.round(100 * share)} % of attention in the region)`, "quiet"));
  if (sent !== null) node.append(made("p", `asked: ${sent}`, "quiet"));
  if (maps !== null) node.append(looks(example, maps));
  return node;
}

/** @param {Example} example */
function card(example) {
  const node = made("article");
  const head = made("div");
  head.append(made("h3", example.q || "no question"));
  if (example.names.length) head.append(made("p", `right: ${example.names.slice(0, 4).join(", ")}`));
  head.append(made("p", `${example.id}, ${example.where}${example.area ? `, ${example.area} region` : ""}`, "quiet"));
  const list = made("dl");
  example.answers.forEach((answer, at) => {
    if (answer) list.append(made("dt", methods[at]), answered(example, answer));
  });
  node.append(picture(example), head, list);
  return node;
}

function show() {
  const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
  page = Math.min(Math.max(page, 0), last);
  element("gallery").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(card));
  element("count").textContent = `${found.length} of ${examples.length} examples`;
  element("place").textContent = `page ${page + 1} of ${last + 1}`;
  /** @type {HTMLButtonElement} */ (element("back")).disabled = page === 0;
  /** @type {HTMLButtonElement} */ (element("on")).disabled = page === last;
}

/** @param {number} step */
function turn(step) {
  page += step;
  show();
  element("gallery").scrollIntoView({ block: "start" });
}

method.append(...methods.map((name) => made("option", name)));
method.selectedIndex = methods.length - 1;
for (const each of [method, state, area]) each.addEventListener("change", filter);
words.addEventListener("input", filter);
document.forms[0].addEventListener("submit", (event) => event.preventDefault());
element("back").addEventListener("click", () => turn(-1));
element("on").addEventListener("click", () => turn(1));
filter();
