// @ts-check
// Plays a trace: slider over steps, linked to the map on the image, energy and share with a cursor, and the answer.
// Everything arrives once in `data` (see player_data in step_player.py), but for the steps of a run that goes on, which
// follow one by one; a step is drawn here, without the kernel.
/** @import { InitializeProps, RenderProps } from "@anywidget/types" */
/** @import { PictureData } from "./picture_drawing.js" */
/** @import { Step } from "./step_maps.js" */
import { chart } from "./chart.js";
import { add } from "./dom.js";
import { isCommand, keepKeys } from "./keys.js";
import { percent, within } from "./numbers.js";
import { playerParts } from "./player_parts.js";
import { mapOf, movedFrame, movedStep, topOf } from "./step_maps.js";

const PLAY_MS = 700;

/**
 * @typedef {object} OwnData
 * @property {string} question
 * @property {string} where the regions are, in words
 * @property {number[]} layers
 * @property {string} all_layers in words
 * @property {Step[]} steps
 * @property {Frame[]} [frames] of a video
 *
 * A frame's picture, and the place in a map where the cells of those that are seen with it begin.
 *
 * @typedef {{ image: string, outlines: PictureData["outlines"], label: string, begin: number }} Frame
 * @typedef {PictureData & OwnData} PlayerData
 * @typedef {{ data: PlayerData, step: number, layer: number | null, frame: number }} State
 */

/**
 * What a run has added, or answered since; before it is known to any view.
 *
 * @param {InitializeProps<State>} props
 */
function initialize({ model }) {
  model.on("msg:custom", ({ from, steps }) => {
    model.get("data").steps.splice(from, Infinity, ...steps);
  });
}

/** @param {RenderProps<State>} props */
function render({ model, el }) {
  const view = playerParts(el);
  const leaveKeys = keepKeys(() => view.root);
  /** @type {PlayerData} */
  let data;
  /** @type {Float32Array[]} */
  let maps;
  /** @type {number} */
  let top;
  /** @type {ReturnType<typeof chart>[]} */
  let curves;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer;

  const last = () => data.steps.length - 1;
  const step = () => Math.min(model.get("step"), last());
  const column = () => {
    const layer = model.get("layer");
    return layer === null ? 0 : data.layers.indexOf(layer) + 1;
  };

  const frame = () => model.get("frame");

  /** @param {number} to */
  function turnTo(to) {
    model.set("frame", to);
    model.save_changes();
  }

  /** @param {number} to */
  function go(to) {
    model.set("step", within(to, last()));
    model.save_changes();
  }

  /**
   * Of a map of a video, what is on the frame that is shown.
   *
   * @param {Float32Array} map
   */
  function partOf(map) {
    if (!data.frames) return map;
    const { begin, label } = data.frames[frame()];
    const part = map.subarray(begin, begin + (data.xs.length - 1) * (data.ys.length - 1));
    const share = part.reduce((sum, value) => sum + value, 0).toFixed(1);
    const said = `${label} of ${data.frames.length - 1}: ${share} % of the attention`;
    view.place.textContent = said;
    view.frame.ariaValueText = said;
    return part;
  }

  function turn() {
    if (!data.frames) return;
    view.frame.value = String(frame());
    view.picture.turn({ ...data, ...data.frames[frame()] });
    show();
  }

  function show() {
    const at = step();
    const { number, answer, latent, gradient, seconds, energy, share } = data.steps[at];
    const reached = `energy ${energy[column()].toFixed(3)}, ${percent(share[column()])} of the attention ${data.where}`;
    const spoken = `step ${number}: ${reached}`;
    for (const curve of curves) curve.move(at);
    view.picture.show({ map: partOf(maps[at]), tops: { own: topOf([maps[at]]), common: top }, spoken });
    view.slider.value = String(at);
    view.slider.ariaValueText = spoken;
    view.label.textContent = `step ${number} of ${data.steps[last()].number}`;
    const slope = gradient === null ? "" : `, of gradient ${gradient.toPrecision(3)}`;
    view.facts.textContent = `norm of latent ${latent.toPrecision(3)}${slope}; ${seconds.toFixed(3)} s`;
    view.when.textContent = `step ${number}`;
    view.answer.textContent = answer ?? "not asked for at this step";
    view.answer.classList.toggle("none", answer === null);
    view.answer.classList.toggle("changed", answer !== null && answer !== data.steps[0].answer);
  }

  function choose() {
    maps = data.steps.map((one) => mapOf(one, column()));
    top = topOf(maps);
    view.layers.value = String(model.get("layer") ?? "all");
    const energies = data.steps.map(({ energy }) => energy[column()]);
    const shares = data.steps.map(({ share }) => share[column()]);
    view.charts.replaceChildren();
    curves = [
      chart(view.charts, {
        name: "energy",
        title: "energy",
        values: energies,
        highest: Math.max(1, ...energies),
        format: (value, exact) => value.toFixed(exact ? 4 : 2),
        last: false,
      }),
      chart(view.charts, {
        name: "share",
        title: `share of attention ${data.where}`,
        values: shares,
        highest: 1,
        format: (value, exact) => percent(value, exact ? 1 : 0),
        last: true,
      }),
    ];
    for (const { svg, stepAt } of curves) {
      /** @param {PointerEvent} event */
      const drag = (event) => {
        if (event.buttons) go(stepAt(event.clientX));
      };
      svg.addEventListener("pointerdown", drag);
      svg.addEventListener("pointermove", drag);
    }
    show();
  }

  function load() {
    data = model.get("data");
    view.picture.load(data);
    view.frames.hidden = !data.frames;
    view.frame.max = String((data.frames?.length ?? 1) - 1);
    view.question.textContent = data.question;
    view.layers.replaceChildren();
    add(view.layers, "option", { value: "all", textContent: data.all_layers });
    for (const layer of data.layers) add(view.layers, "option", { value: String(layer), textContent: `layer ${layer}` });
    grow();
  }

  function grow() {
    view.before.textContent = data.steps[0].answer ?? "not asked for";
    view.slider.max = String(last());
    choose();
    turn();
  }

  function pause() {
    clearInterval(timer);
    timer = undefined;
    view.play.textContent = "Play";
  }

  function toggle() {
    if (timer) return pause();
    view.play.textContent = "Pause";
    if (step() === last()) go(0);
    timer = setInterval(() => {
      go(step() + 1);
      if (step() === last()) pause();
    }, PLAY_MS);
  }

  /** @param {KeyboardEvent} event */
  function type(event) {
    const { target, key } = event;
    const elsewhere = target === view.layers || (target instanceof Node && view.picture.looks.contains(target));
    if (elsewhere || isCommand(event)) return;
    const count = data.frames?.length ?? 0;
    const across = target === view.frame ? movedStep(frame(), key, count) : null;
    const to = movedStep(step(), key, data.steps.length);
    const next = across ?? (count ? movedFrame(frame(), key, count) : null);
    if (next !== null) turnTo(next);
    else if (to !== null) go(to);
    else if (key === " " && target !== view.play) toggle();
    else return;
    // Else the slider would move as well.
    event.preventDefault();
    event.stopPropagation();
  }

  view.slider.addEventListener("input", () => go(Number(view.slider.value)));
  view.frame.addEventListener("input", () => turnTo(Number(view.frame.value)));
  view.play.addEventListener("click", toggle);
  view.layers.addEventListener("change", () => {
    model.set("layer", view.layers.value === "all" ? null : Number(view.layers.value));
    model.save_changes();
  });
  view.root.addEventListener("keydown", type);
  const listeners = {
    "change:step": show,
    "change:layer": choose,
    "change:frame": turn,
    "change:data": load,
    "msg:custom": grow,
  };
  for (const [name, listener] of Object.entries(listeners)) model.on(name, listener);
  load();
  return () => {
    leaveKeys();
    pause();
    for (const [name, listener] of Object.entries(listeners)) model.off(name, listener);
  };
}

export default { initialize, render };
