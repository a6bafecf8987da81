import { keepKeys } from "./keys.js";

// Python code under a panel. Each time it is asked for, it is copied to the clipboard.

function render({ model, el }) {
  const root = el.appendChild(document.createElement("div"));
  const [status, text] = ["div", "pre"].map((tag) => root.appendChild(document.createElement(tag)));
  root.className = "cmllm-code";
  const leaveKeys = keepKeys(() => root); // JupyterLab would copy the cell instead of what is selected
  text.tabIndex = 0;
  status.setAttribute("role", "status");

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
      getSelection().selectAllChildren(text);
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
