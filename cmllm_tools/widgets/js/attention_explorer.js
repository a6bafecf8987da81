import { keepKeys } from "./keys.js";
import { bytes, colorsOf, mapOnImage, node, percent, rampOf } from "./picture.js";

// Tokens to click, a layer x head grid, and the map of the head that is chosen. `data` stays; `shown` has every head's map
// for the chosen tokens (see attention_explorer.py), so that another head is drawn here, without the kernel.

const [SMALLEST, LARGEST, GRID] = [9, 32, 380]; // side of a cell of the grid, and its width, in CSS pixels
const CUT = 0.99; // of the cells have their own color when the scale is cut
const LATE_MS = 1500;
const LONGEST = 80; // characters of the context token's words
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const within = (value, last) => Math.max(0, Math.min(last, value));
const nameOf = (what, number) => (number === null ? `mean over ${what}s` : `${what} ${number}`);

// One of several elements can be reached by the tab key: the one that had the focus last.
function rove(elements, at) {
  elements.forEach((element, index) => (element.tabIndex = index === at ? 0 : -1));
}

function build(el) {
  const root = node(el, "div", { class: "cmllm-view cmllm-explorer" });
  const words = node(root, "div", {
    class: "words",
    role: "listbox",
    "aria-multiselectable": "true",
    "aria-label": "tokens: Enter chooses one, Space adds or removes one",
  });
  const controls = node(root, "div", { class: "controls" });
  const several = node(controls, "button", { type: "button", class: "several", "aria-pressed": "false" }, "Choose several");
  several.title = "Each click adds a token or removes it; else press Ctrl while you click";
  const presets = node(controls, "span", { class: "presets" });
  const panels = node(root, "div", { class: "panels" });
  const picture = mapOnImage(node(panels, "div", { class: "left" }), "heads", false);
  const label = node(picture.scale, "label", { title: "So that one token with most of the attention hides no others" });
  const cut = node(label, "input", { type: "checkbox", class: "cut" });
  label.append(" cut at the 99th percentile");
  const right = node(panels, "div", { class: "right" });
  const title = node(right, "div", { class: "title" });
  const grid = node(right, "div", { class: "grid", role: "grid" });
  const legend = node(right, "div", { class: "scale" });
  node(legend, "span", {}, "0");
  const ramp = node(legend, "span", { class: "ramp" });
  const most = node(legend, "span");
  const reading = node(right, "div", { class: "reading" });
  const facts = node(right, "div", { class: "facts", "aria-live": "polite" });
  const note = node(root, "div", { class: "note", role: "status" });
  return { root, words, controls, several, presets, picture, cut, title, grid, ramp, most, reading, facts, note };
}

function render({ model, el }) {
  const view = build(el);
  const leaveKeys = keepKeys(() => view.root);
  const fixed = Boolean(model.get("fixed")); // a page: there is no kernel to ask for other tokens
  let data, shown, maps, colors, tokens, cells, late;

  const columns = () => 1 + data.heads.length;
  const place = (at) => [Math.floor(at / columns()), at % columns()];
  const numbers = (at) => [data.layers, data.heads].map((all, axis) => all[place(at)[axis] - 1] ?? null);
  const cell = () => (data.layers.indexOf(model.get("layer")) + 1) * columns() + data.heads.indexOf(model.get("head")) + 1;
  const phrase = () => {
    const words = data.tokens.filter(({ position }) => shown.queries.includes(position)).map(({ text }) => text).join(" ");
    return words.length > LONGEST ? `${words.slice(0, LONGEST)} ...` : words;
  };
  const shares = () => shown.inside ?? shown.on_image;
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };

  // ---- Tokens
  function choose(positions) {
    if (fixed) return (view.note.textContent = "This page holds the maps of the marked tokens; others need a kernel.");
    return positions.length && set({ queries: positions });
  }

  function press(position, add) {
    const now = model.get("queries");
    if (!add) return choose([position]);
    const other = now.includes(position) ? now.filter((one) => one !== position) : [...now, position];
    return choose(other.sort((a, b) => a - b));
  }

  function mark() {
    const chosen = model.get("queries");
    data.tokens.forEach(({ position }, at) => tokens[at].setAttribute("aria-selected", chosen.includes(position)));
    clearTimeout(late);
    view.note.textContent = data.note;
    if (String(chosen) === String(shown.queries)) return;
    const tell = () => (view.note.textContent = `No kernel has answered: what is shown is still that of "${phrase()}".`);
    late = setTimeout(tell, LATE_MS);
  }

  function layTokens() {
    view.words.replaceChildren();
    let part;
    tokens = data.tokens.map(({ text, part: own }) => {
      if (part && own === "answer" && own !== part) node(view.words, "span", { class: "part", role: "presentation" }, own);
      part = own;
      const token = node(view.words, "span", { class: `token of-${own}`, role: "option", "aria-label": `${text}, ${own}` });
      token.textContent = text.trim() ? text : JSON.stringify(text).slice(1, -1);
      return token;
    });
    rove(tokens, Math.max(0, data.tokens.findIndex(({ position }) => model.get("queries").includes(position))));
    view.presets.replaceChildren();
    for (const [name, positions] of data.presets) {
      const button = node(view.presets, "button", { type: "button" }, name);
      button.addEventListener("click", () => choose(positions));
    }
    view.controls.hidden = fixed;
  }

  // ---- Grid
  function layGrid() {
    const side = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(GRID / columns()) - 1));
    const every = Math.ceil(18 / (side + 1)); // room for a number
    view.grid.replaceChildren();
    view.grid.style.setProperty("--side", `${side}px`);
    const head = node(view.grid, "div", { class: "row heads", "aria-hidden": "true" });
    node(head, "span", { class: "axis" });
    ["mean", ...data.heads].forEach((number, at) => node(head, "span", {}, at && (at - 1) % every ? "" : number));
    cells = [null, ...data.layers].flatMap((layer, at) => {
      const row = node(view.grid, "div", { class: "row", role: "row" });
      node(row, "span", { class: "axis", role: "rowheader" }, at && (at - 1) % every ? "" : (layer ?? "mean"));
      return [null, ...data.heads].map(() => node(row, "span", { class: "cell", role: "gridcell" }));
    });
    const where = data.uniform === null ? "that is on the image" : `on the image that is ${data.where}`;
    view.title.textContent = `Share of the attention ${where}, by layer (down) and head (across)`;
    view.grid.setAttribute("aria-label", `${view.title.textContent}; arrow keys choose`);
    colors = colorsOf(data.palette);
    view.ramp.style.background = rampOf(colors);
  }

  const spoken = (at) => {
    const [layer, head] = numbers(at);
    return `${nameOf("layer", layer)}, ${nameOf("head", head)}: ${percent(shares()[at], 1)}`;
  };

  function paint() {
    const top = Math.max(...shares(), 1e-9);
    shares().forEach((share, at) => {
      cells[at].style.background = colors[Math.round((255 * share) / top)];
      cells[at].setAttribute("aria-label", spoken(at));
    });
    const uniform = data.uniform === null ? "" : ` (uniform attention: ${percent(data.uniform, 1)})`;
    view.most.textContent = `${percent(top, 1)}${uniform}`;
  }

  function pick(at) {
    const [layer, head] = numbers(at);
    set({ layer, head });
  }

  // ---- The map of the chosen head
  function show() {
    const at = cell();
    const size = maps.length / shown.peaks.length;
    const map = Float32Array.from(maps.subarray(at * size, (at + 1) * size), (value) => (value / 65535) * shown.peaks[at]);
    const cut = view.cut.checked;
    const top = cut ? map.toSorted()[Math.min(Math.floor(CUT * size), size - 2)] || shown.peaks[at] : shown.peaks[at];
    const inside = shown.inside ? `; of that, ${percent(shown.inside[at], 1)} ${data.where}` : "";
    const [layer, head] = numbers(at);
    view.facts.textContent =
      `"${phrase()}", ${nameOf("layer", layer)}, ${nameOf("head", head)}: ` +
      `${percent(shown.on_image[at], 1)} of its attention is on the image${inside}`;
    const tops = { own: top, common: Math.max(...shown.peaks) };
    view.picture.show(map, tops, view.facts.textContent, cut && top < shown.peaks[at]);
    cells.forEach((one, index) => index !== at && one.ariaSelected === "true" && (one.ariaSelected = "false"));
    cells[at].ariaSelected = "true";
    rove(cells, at);
  }

  function receive() {
    shown = model.get("shown");
    // Text in a page, else a view of a message, where it need not begin at an even place.
    const raw = typeof shown.maps === "string" ? bytes(shown.maps) : shown.maps;
    maps = new Uint16Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));
    paint();
    mark();
    show();
  }

  function load() {
    data = model.get("data");
    view.picture.load(data);
    layTokens();
    layGrid();
    receive();
  }

  // ---- Mouse and keys
  view.words.addEventListener("click", ({ target, ctrlKey, metaKey }) => {
    const at = tokens.indexOf(target);
    if (at < 0) return;
    rove(tokens, at);
    tokens[at].focus();
    press(data.tokens[at].position, ctrlKey || metaKey || view.several.ariaPressed === "true");
  });
  view.grid.addEventListener("click", ({ target }) => {
    const at = cells.indexOf(target);
    if (at < 0) return;
    pick(at);
    cells[at].focus();
  });
  view.grid.addEventListener("pointerover", ({ target }) => {
    const at = cells.indexOf(target);
    view.reading.textContent = at < 0 ? "" : spoken(at);
  });
  view.grid.addEventListener("pointerleave", () => (view.reading.textContent = ""));
  view.several.addEventListener("click", () => (view.several.ariaPressed = String(view.several.ariaPressed !== "true")));
  view.cut.addEventListener("change", show);

  function moveToken(at, { key }) {
    if (key === "Enter" || key === " ") press(data.tokens[at].position, key === " " || view.several.ariaPressed === "true");
    else if (!(key in ARROWS || key === "Home" || key === "End")) return false;
    else {
      const step = ARROWS[key] ? ARROWS[key][0] || ARROWS[key][1] : key === "Home" ? -Infinity : Infinity;
      const to = within(at + step, tokens.length - 1);
      rove(tokens, to);
      tokens[to].focus();
    }
    return true;
  }

  function moveCell(at, { key }) {
    const [row, column] = place(at);
    const ends = { Home: [row, 0], End: [row, columns() - 1] };
    const [down, right] = ARROWS[key] ?? [0, 0];
    if (!(key in ARROWS || key in ends)) return false;
    const to = ends[key] ?? [within(row + down, data.layers.length), within(column + right, columns() - 1)];
    pick(to[0] * columns() + to[1]);
    cells[to[0] * columns() + to[1]].focus();
    return true;
  }

  view.root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [token, at] = [tokens.indexOf(event.target), cells.indexOf(event.target)];
    if (token >= 0 ? moveToken(token, event) : at >= 0 && moveCell(at, event)) {
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
