// @ts-check
// The elements of the step player; what they do is in step_player.js.
import { add, button } from "./dom.js";
import { mapOnImage } from "./picture.js";

/** @param {HTMLElement} el */
export function playerParts(el) {
  const root = add(el, "div", { className: "cmllm-view cmllm-player" });
  const question = add(root, "div", { className: "question" });
  const panels = add(root, "div", { className: "panels" });
  const picture = mapOnImage(add(panels, "div", { className: "left" }), "steps", true);
  const right = add(panels, "div", { className: "right" });
  const charts = add(right, "div", { className: "charts" });
  const facts = add(right, "div", { className: "facts" });
  const answers = add(right, "div", { className: "answers" });
  add(answers, "span", { className: "when", textContent: "unsteered" });
  const before = add(answers, "div", { className: "before" });
  const when = add(answers, "span", { className: "when" });
  const answer = add(answers, "div", { className: "answer", ariaLive: "polite" });
  const controls = add(root, "div", { className: "controls" });
  const play = button(controls, "Play", { className: "play" });
  const slider = add(controls, "input", { type: "range", className: "step", min: "0", step: "1", ariaLabel: "step" });
  const label = add(controls, "output", { className: "label" });
  const layers = add(controls, "select", { ariaLabel: "layers" });
  const frames = add(root, "div", { className: "controls frames" });
  const frame = add(frames, "input", { type: "range", className: "frame", min: "0", step: "1", ariaLabel: "frame" });
  const place = add(frames, "output", { className: "place" });
  controls.append(picture.looks); // the tab key comes to Play first
  return {
    root,
    question,
    picture,
    charts,
    facts,
    before,
    when,
    answer,
    play,
    slider,
    label,
    layers,
    frames,
    frame,
    place,
  };
}
