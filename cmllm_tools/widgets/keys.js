// Keys typed at a widget are the widget's; put before each one's own module (see modules.py).

// JupyterLab and Notebook 7 listen on the document before anyone below it, and take single letters for commands: x cuts the
// cell. They leave alone what comes from within an element with this attribute. Saving the notebook stays theirs, so that
// the attribute is set anew for each key, before they hear of it. Returns a function that ends this.
function keepKeys(rootOf) {
  const take = (event) => {
    const root = rootOf();
    if (!root?.contains(event.target)) return;
    const saves = (event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "s";
    root.toggleAttribute("data-lm-suppress-shortcuts", !saves);
  };
  rootOf()?.setAttribute("data-lm-suppress-shortcuts", "true");
  window.addEventListener("keydown", take, { capture: true });
  return () => window.removeEventListener("keydown", take, { capture: true });
}

