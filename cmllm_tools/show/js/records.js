// @ts-check
// The gallery of a page of records: filters and pages, all of what the page has with it. Texts are set as texts, so that no
// answer of a model is read as markup.

/**
 * @typedef {string | null} Words
 * @typedef {number | null} Figure
 * @typedef {[text: Words, figure: Figure, share: Figure, error: Words, sent: Words]} Answer
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

/** @type {{ methods: string[], examples: Example[] }} */
const { methods, examples } = JSON.parse(text("data"));
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
function picture(example) {
  const [width, height] = example.size;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `image of example ${example.id} with its region`);
  if (example.picture >= 0) {
    const image = document.createElementNS(SVG, "image");
    image.setAttribute("href", pictures[example.picture].getAttribute("src") ?? "");
    image.setAttribute("width", String(width));
    image.setAttribute("height", String(height));
    image.setAttribute("preserveAspectRatio", "none");
    svg.append(image);
  }
  for (const kind of ["rim", "line"]) {
    for (const line of example.lines) {
      const drawn = document.createElementNS(SVG, "polyline");
      drawn.setAttribute("points", line.join(" "));
      drawn.setAttribute("class", kind);
      // A point is a line to itself, which is drawn by its round end.
      drawn.setAttribute("stroke-linecap", "round");
      svg.append(drawn);
    }
  }
  return svg;
}

/** @param {Answer} answer */
function answered(answer) {
  const [said, figure, share, error, sent] = answer;
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
    if (answer) list.append(made("dt", methods[at]), answered(answer));
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
