// @ts-check
// Nothing to see: keeps the keys of the panel that this is part of, whose other widgets are of ipywidgets and do not.
/** @import { RenderProps } from "@anywidget/types" */
import { keepKeys } from "./keys.js";

/** @param {RenderProps} props */
function render({ el }) {
  // Looked for at each key, as a view is made before it has its place in the page.
  const panel = () => el.closest(".cmllm-workbench");
  const leaveKeys = keepKeys(panel);
  // A question has no line breaks; its field has several lines because it may be long.
  /** @param {KeyboardEvent} event */
  const oneLine = (event) => {
    const field = event.key === "Enter" && event.target instanceof Element && event.target.closest(".cmllm-question");
    if (field && panel()?.contains(field)) event.preventDefault();
  };
  window.addEventListener("keydown", oneLine, { capture: true });
  return () => {
    leaveKeys();
    window.removeEventListener("keydown", oneLine, { capture: true });
  };
}

export default { render };
