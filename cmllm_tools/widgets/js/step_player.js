import { keepKeys } from "./keys.js";
import { bytes, mapOnImage, node, percent } from "./picture.js";

// Plays a trace: slider over steps, linked to the map on the image, energy and share with a cursor, and the answer.
// Everything arrives once in `data` (see player_data in step_player.py), but for the steps of a run that goes on, which
// follow one by one; a step is drawn here, without the kernel.

const CHART = { width: 420, height: 132, left: 48, right: 14, top: 24, bottom: 20 };
const PLAY_MS = 700;
const EVERY = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]; // steps between two numbers below a chart

// Numbers of a step's maps, decoded once: (layer, cell), as shares of each layer's highest.
const decoded = new WeakMap();
function numbersOf(step) {
  if (!decoded.has(step)) decoded.set(step, new Uint16Array(bytes(step.maps).buffer));
  return decoded.get(step);
}

// For each step a Float32Array over cells, in percent of the attention on the image, and the highest of all steps.
// `column` 0 is the mean over layers, 1.. one layer each: as in `energy` and `share` of a step.
function mapsOf(data, column) {
  const layers = data.layers.length;
  let top = 0;
  const maps = data.steps.map((step) => {
    const raw = numbersOf(step);
    const cells = raw.length / layers;
    const map = new Float32Array(cells);
    let sum = 0;
    for (let layer = 0; layer < layers; layer++) {
      if (column && layer !== column - 1) continue;
      for (let cell = 0; cell < cells; cell++) {
        const value = raw[layer * cells + cell] * step.peaks[layer];
        map[cell] += value;
        sum += value;
      }
    }
    for (let cell = 0; cell < cells; cell++) {
      map[cell] *= 100 / (sum || 1);
      top = Math.max(top, map[cell]);
    }
    return map;
  });
  return { maps, top: top || 1 };
}

// A small line chart over steps; returns how to move its cursor.
function chart(parent, name, title, values, highest, format, last) {
  const { width, height, left, right, top, bottom } = CHART;
  const svg = node(parent, "svg", { viewBox: `0 0 ${width} ${height}`, class: `chart ${name}`, "aria-hidden": "true" });
  const x = (step) => left + ((width - left - right) * step) / Math.max(values.length - 1, 1);
  const y = (value) => height - bottom - ((height - top - bottom) * value) / highest;
  for (const tick of [0, highest / 2, highest]) {
    node(svg, "line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "grid" });
    node(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, format(tick));
  }
  const every = EVERY.find((steps) => values.length <= 10 * steps) ?? values.length;
  for (let step = 0; last && step < values.length; step += every) {
    node(svg, "text", { x: x(step), y: height - 4, "text-anchor": "middle" }, step);
  }
  node(svg, "text", { x: left, y: 13, class: "title" }, title);
  const reading = node(svg, "text", { x: width - right, y: 13, "text-anchor": "end", class: "title" });
  const cursor = node(svg, "line", { y1: top - 4, y2: height - bottom, class: "cursor" });
  node(svg, "polyline", { points: values.map((value, step) => `${x(step)},${y(value)}`).join(" "), class: "curve" });
  const dots = values.map((value, step) => node(svg, "circle", { cx: x(step), cy: y(value), r: 3 }));
  return {
    svg,
    stepAt: (clientX) => {
      const box = svg.getBoundingClientRect();
      const at = ((clientX - box.left) / box.width) * width;
      return Math.round(((at - left) / (width - left - right)) * (values.length - 1));
    },
    move: (step) => {
      cursor.setAttribute("x1", x(step));
      cursor.setAttribute("x2", x(step));
      dots.forEach((dot, at) => dot.classList.toggle("now", at === step));
      reading.textContent = format(values[step], true);
    },
  };
}

function build(el) {
  const root = node(el, "div", { class: "cmllm-view cmllm-player" });
  const question = node(root, "div", { class: "question" });
  const panels = node(root, "div", { class: "panels" });
  const picture = mapOnImage(node(panels, "div", { class: "left" }), "steps", true);
  const right = node(panels, "div", { class: "right" });
  const charts = node(right, "div", { class: "charts" });
  const facts = node(right, "div", { class: "facts" });
  const answers = node(right, "div", { class: "answers" });
  node(answers, "span", { class: "when" }, "unsteered");
  const before = node(answers, "div", { class: "before" });
  const when = node(answers, "span", { class: "when" });
  const answer = node(answers, "div", { class: "answer", "aria-live": "polite" });
  const controls = node(root, "div", { class: "controls" });
  const play = node(controls, "button", { type: "button", class: "play" });
  const slider = node(controls, "input", { type: "range", class: "step", min: 0, step: 1, "aria-label": "step" });
  const label = node(controls, "output", { class: "label" });
  const layers = node(controls, "select", { "aria-label": "layers" });
  controls.append(picture.looks); // the tab key comes to Play first
  return { root, question, picture, charts, facts, before, when, answer, play, slider, label, layers };
}

// What a run has added, or answered since; before it is known to any view.
function initialize({ model }) {
  model.on("msg:custom", ({ from, steps }) => model.get("data").steps.splice(from, Infinity, ...steps));
}

function render({ model, el }) {
  const view = build(el);
  const leaveKeys = keepKeys(() => view.root);
  let data, now, curves, timer;

  const step = () => Math.min(model.get("step"), data.steps.length - 1);
  const column = () => data.layers.indexOf(model.get("layer")) + 1;
  const go = (to) => {
    model.set("step", Math.max(0, Math.min(data.steps.length - 1, to)));
    model.save_changes();
  };

  function show() {
    const at = step();
    const { number, answer, latent, gradient, seconds } = data.steps[at];
    const [energy, share] = [data.steps[at].energy[column()], data.steps[at].share[column()]];
    for (const curve of curves) curve.move(at);
    const spoken = `step ${number}: energy ${energy.toFixed(3)}, ${percent(share)} of the attention ${data.where}`;
    view.picture.show(now.maps[at], { own: Math.max(...now.maps[at]) || 1, common: now.top }, spoken);
    view.slider.value = at;
    view.slider.setAttribute("aria-valuetext", spoken);
    view.label.textContent = `step ${number} of ${data.steps.at(-1).number}`;
    const slope = gradient === null ? "" : `, of gradient ${gradient.toPrecision(3)}`;
    view.facts.textContent = `norm of latent ${latent.toPrecision(3)}${slope}; ${seconds.toFixed(3)} s`;
    view.when.textContent = `step ${number}`;
    view.answer.textContent = answer ?? "not asked for at this step";
    view.answer.classList.toggle("none", answer === null);
    view.answer.classList.toggle("changed", answer !== null && answer !== data.steps[0].answer);
  }

  function choose() {
    now = mapsOf(data, column());
    view.layers.value = String(model.get("layer") ?? "all");
    const [energies, shares] = ["energy", "share"].map((name) => data.steps.map((one) => one[name][column()]));
    const digits = (value, exact) => value.toFixed(exact ? 4 : 2);
    view.charts.replaceChildren();
    curves = [
      chart(view.charts, "energy", "energy", energies, Math.max(1, ...energies), digits, false),
      chart(view.charts, "share", `share of attention ${data.where}`, shares, 1, (v, all) => percent(v, +!!all), true),
    ];
    for (const curve of curves) {
      const drag = (event) => event.buttons && go(curve.stepAt(event.clientX));
      curve.svg.addEventListener("pointerdown", drag);
      curve.svg.addEventListener("pointermove", drag);
    }
    show();
  }

  function load() {
    data = model.get("data");
    view.picture.load(data);
    view.question.textContent = data.question;
    view.layers.replaceChildren();
    node(view.layers, "option", { value: "all" }, data.all_layers);
    for (const layer of data.layers) node(view.layers, "option", { value: layer }, `layer ${layer}`);
    grow();
  }

  function grow() {
    view.before.textContent = data.steps[0].answer ?? "not asked for";
    view.slider.max = data.steps.length - 1;
    choose();
  }

  function pause() {
    clearInterval(timer);
    timer = undefined;
    view.play.textContent = "Play";
  }

  function toggle() {
    if (timer) return pause();
    view.play.textContent = "Pause";
    if (step() === data.steps.length - 1) go(0);
    timer = setInterval(() => {
      go(step() + 1);
      if (step() === data.steps.length - 1) pause();
    }, PLAY_MS);
  }

  function press(event) {
    const elsewhere = event.target === view.layers || view.picture.looks.contains(event.target);
    if (elsewhere || event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = { ArrowLeft: step() - 1, ArrowRight: step() + 1, Home: 0, End: data.steps.length - 1 };
    if (event.key in moves) go(moves[event.key]);
    else if (event.key === " " && event.target !== view.play) toggle();
    else return;
    // Else the slider would move as well.
    event.preventDefault();
    event.stopPropagation();
  }

  view.slider.addEventListener("input", () => go(Number(view.slider.value)));
  view.play.addEventListener("click", toggle);
  view.layers.addEventListener("change", () => {
    model.set("layer", view.layers.value === "all" ? null : Number(view.layers.value));
    model.save_changes();
  });
  view.root.addEventListener("keydown", press);
  model.on("change:step", show);
  model.on("change:layer", choose);
  model.on("change:data", load);
  model.on("msg:custom", grow);
  pause();
  load();
  return () => {
    leaveKeys();
    pause();
    model.off("change:step", show);
    model.off("change:layer", choose);
    model.off("change:data", load);
    model.off("msg:custom", grow);
  };
}

export default { initialize, render };
