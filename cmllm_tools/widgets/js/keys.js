// Keys typed at a widget are the widget's.

const SUPPRESS = "data-lm-suppress-shortcuts";

// JupyterLab and Notebook 7 listen on the document before anyone below it, and take single letters for commands: x cuts the
// cell. They go up from the element that has the focus to one that a command is for, and stop at one with this attribute.
// As commands are for whatever has the focus, it must be that element's own; on the view's root it comes too late. Saving
// the notebook stays theirs, so that it is set anew for each key, before they hear of it. Returns what ends this.
export function keepKeys(rootOf) {
  const take = (event) => {
    const root = rootOf();
    if (!root?.contains(event.target)) return;
    const saves = (event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "s";
    for (const element of [root, event.target]) {
      if (saves) element.removeAttribute(SUPPRESS);
      else element.setAttribute(SUPPRESS, "true");
    }
  };
  rootOf()?.setAttribute(SUPPRESS, "true");
  window.addEventListener("keydown", take, { capture: true });
  return () => window.removeEventListener("keydown", take, { capture: true });
}

