// @ts-check
// Python code under a panel. Each time it is asked for, it is copied to the clipboard.
/** @import { RenderProps } from "@anywidget/types" */
import { add } from "./dom.js";
import { keepKeys } from "./keys.js";

/** @param {RenderProps<{ code: string, shown: number }>} props */
function render({ model, el }) {
  const root = add(el, "div", { className: "cmllm-code" });
  const status = add(root, "div", { role: "status" });
  const text = add(root, "pre", { tabIndex: 0 });
  const leaveKeys = keepKeys(() => root); // JupyterLab would copy the cell instead of what is selected

  function show() {
    root.hidden = !model.get("shown");
    text.textContent = model.get("code");
  }

  async function copy() {
    show();
    try {
      await navigator.clipboard.writeText(model.get("code"));
      status.textContent = "Copied to the clipboard. Below it follows what is set in the panel.";
    } catch {
      // No secure page (plain http to another machine), or not allowed.
      getSelection()?.selectAllChildren(text);
      text.focus({ preventScroll: true });
      status.textContent = "The browser gives no access to the clipboard: the code is selected, press Ctrl-C.";
    }
  }

  model.on("change:code", show);
  model.on("change:shown", copy);
  show();
  return () => {
    leaveKeys();
    model.off("change:code", show);
    model.off("change:shown", copy);
  };
}

export default { render };
