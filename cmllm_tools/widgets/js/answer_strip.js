// @ts-check
// Steps through an answer's tokens: a small map of each, and the chosen one's large. Everything arrives once in `data` (see
// strip_data in answer_strip.py).
/** @import { RenderProps } from "@anywidget/types" */
/** @import { PictureData } from "./picture_drawing.js" */
import { placesOf, titleOf } from "./answer_words.js";
import { shorts } from "./bytes.js";
import { colorsOf } from "./colors.js";
import { add, button } from "./dom.js";
import { mapAt, movedInList } from "./heads.js";
import { isCommand, keepKeys } from "./keys.js";
import { percent } from "./numbers.js";
import { mapOnImage } from "./picture.js";
import { drawMap, drawOutlines, drawPhotograph } from "./picture_drawing.js";

const [STAMP, DENSE] = [64, 2]; // longest side of a small map, in CSS pixels, and pixels of the canvas for each
const PLAY_MS = 700;

/**
 * @typedef {object} Token
 * @property {string} text
 * @property {[number, number]} span its characters in the answer, as Python counts them; none where it is not known
 * @property {string} map as shares of its peak
 * @property {number} peak in percent of what is on the image
 * @property {number} on_image share of all that the map is of
 * @property {number[]} shares in each region, of what is on the image
 * @property {[number, number, number][]} heads that look most: layer, head, attention
 *
 * @typedef {{ answer: string, where: string, mean: string, tokens: Token[] }} OwnData
 * @typedef {PictureData & OwnData} StripData
 * @typedef {{ data: StripData, token: number }} State
 */

/** @param {HTMLElement} el */
function partsIn(el) {
  const root = add(el, "div", { className: "cmllm-view cmllm-strip" });
  const title = add(root, "div", { className: "title" });
  const tokens = add(root, "div", { className: "tokens", role: "listbox", ariaLabel: "tokens of the answer" });
  const panels = add(root, "div", { className: "panels" });
  const picture = mapOnImage(add(panels, "div", { className: "left" }), "tokens", true);
  const right = add(panels, "div", { className: "right" });
  const said = add(right, "div", { className: "said" });
  const facts = add(right, "div", { className: "facts", ariaLive: "polite" });
  const mean = add(right, "div", { className: "mean" });
  const controls = add(right, "div", { className: "controls" });
  const back = button(controls, "Back");
  const on = button(controls, "Next");
  const play = button(controls, "Play");
  return { root, title, tokens, picture, said, facts, mean, back, on, play };
}

/** @param {RenderProps<State>} props */
function render({ model, el }) {
  const view = partsIn(el);
  const leaveKeys = keepKeys(() => view.root);
  /** @type {StripData} */
  let data;
  /** @type {Float32Array[]} */
  let maps;
  /** @type {HTMLElement[]} */
  let tokens = [];
  let top = 1;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer;

  /** @type {(text: string) => string} */
  const readable = (text) => (text.trim() ? text : JSON.stringify(text).slice(1, -1) || " ");
  /** @type {(token: Token) => number[]} */
  const sharesOf = ({ shares, on_image }) => (shares.length ? shares : [on_image]);

  /** @param {HTMLCanvasElement[]} stamps */
  function stampAll(stamps) {
    const colors = colorsOf(data.palette, data.opacity, data.rise);
    const [photograph, outlines] = [0, 1].map(() => document.createElement("canvas"));
    for (const sheet of [photograph, outlines]) {
      sheet.width = stamps[0].width;
      sheet.height = stamps[0].height;
    }
    drawOutlines(outlines, data, DENSE / 2);
    const image = new Image();
    const draw = () => {
      drawPhotograph(photograph, data, image, data.opacity);
      for (const [at, stamp] of stamps.entries()) drawMap(stamp, data, photograph, outlines, colors, maps[at], top);
    };
    image.onload = draw;
    image.src = data.image;
    draw();
  }

  function lay() {
    const most = Math.max(...data.tokens.flatMap(sharesOf), 1e-9);
    const [width, height] = data.size;
    view.tokens.replaceChildren();
    const stamps = data.tokens.map((token, at) => {
      const one = add(view.tokens, "div", { className: "token", role: "option", onclick: () => go(at, true) });
      const stamp = add(one, "canvas", { ariaHidden: "true" });
      stamp.width = Math.max(2, Math.round(STAMP * DENSE * Math.min(1, width / height)));
      stamp.height = Math.max(2, Math.round(STAMP * DENSE * Math.min(1, height / width)));
      stamp.style.width = `${stamp.width / DENSE}px`;
      add(one, "div", { className: "word", textContent: readable(token.text), title: token.text });
      for (const share of sharesOf(token)) {
        add(add(one, "div", { className: "bar" }), "span").style.width = percent(share / most, 1).replace(" ", "");
      }
      const values = sharesOf(token).map((share) => percent(share));
      add(one, "div", { className: "value", textContent: values.join(", ") });
      one.ariaLabel = `${readable(token.text)}: ${values.join(", ")} ${data.where || "on the image"}`;
      return stamp;
    });
    tokens = /** @type {HTMLElement[]} */ ([...view.tokens.children]);
    stampAll(stamps);
  }

  function load() {
    data = model.get("data");
    view.picture.load(data);
    maps = data.tokens.map(({ map, peak }) => mapAt(shorts(map), [peak], 0));
    top = Math.max(...data.tokens.map(({ peak }) => peak));
    view.title.textContent = titleOf(data.of, data.where);
    view.mean.textContent = data.mean;
    lay();
    show();
  }

  function show() {
    const at = Math.min(model.get("token"), tokens.length - 1);
    const token = data.tokens[at];
    const places = placesOf(token, data.of, data.where);
    const line = `"${readable(token.text)}", token ${at + 1} of ${tokens.length}: ${places}`;
    const heads = token.heads.map(([layer, head, value]) =>
      `layer ${layer} head ${head} (${percent(value)})`.replaceAll(" ", "\u00a0"),
    );
    view.facts.replaceChildren();
    add(view.facts, "div", { textContent: line });
    const most = data.where ? "Heads that look there most" : "Heads that look at the image most";
    add(view.facts, "div", { textContent: `${most}: ${heads.join(", ")}` });
    view.said.replaceChildren();
    const letters = [...data.answer];
    const [begin, end] = token.span;
    view.said.append(letters.slice(0, begin).join(""));
    add(view.said, "b", { textContent: letters.slice(begin, end).join("") });
    view.said.append(letters.slice(end).join(""));
    view.picture.show({ map: maps[at], tops: { own: token.peak, common: top }, spoken: line });
    tokens.forEach((one, number) => {
      one.ariaSelected = String(number === at);
      one.tabIndex = number === at ? 0 : -1;
    });
    view.back.disabled = at === 0;
    view.on.disabled = at === tokens.length - 1;
    // Within its own frame, and never the page.
    const [box, frame] = [tokens[at], view.tokens];
    if (box.offsetTop < frame.scrollTop || box.offsetTop + box.offsetHeight > frame.scrollTop + frame.clientHeight) {
      frame.scrollTop = box.offsetTop - frame.clientHeight / 2;
    }
  }

  /** @type {(to: number, focus?: boolean) => void} */
  function go(to, focus = false) {
    model.set("token", Math.max(0, Math.min(tokens.length - 1, to)));
    model.save_changes();
    if (focus) tokens[model.get("token")].focus({ preventScroll: true });
  }

  function pause() {
    clearInterval(timer);
    timer = undefined;
    view.play.textContent = "Play";
  }

  view.back.addEventListener("click", () => go(model.get("token") - 1));
  view.on.addEventListener("click", () => go(model.get("token") + 1));
  view.play.addEventListener("click", () => {
    if (timer) return pause();
    view.play.textContent = "Pause";
    if (model.get("token") === tokens.length - 1) go(0);
    timer = setInterval(() => {
      go(model.get("token") + 1);
      if (model.get("token") === tokens.length - 1) pause();
    }, PLAY_MS);
  });
  view.tokens.addEventListener("keydown", (event) => {
    const to = isCommand(event) ? null : movedInList(model.get("token"), event.key, tokens.length);
    if (to === null) return;
    go(to, true);
    event.preventDefault();
    event.stopPropagation();
  });

  const listeners = { data: load, token: show };
  for (const [name, listener] of Object.entries(listeners)) model.on(`change:${name}`, listener);
  load();
  return () => {
    leaveKeys();
    pause();
    for (const [name, listener] of Object.entries(listeners)) model.off(`change:${name}`, listener);
  };
}

export default { render };
