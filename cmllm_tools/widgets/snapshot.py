"""A picture of a widget that stays in the notebook, for when the widget is gone: reopened, exported, on GitHub."""

from typing import Any

import ipywidgets as ipw

from .closing import close_whole


class Snapshot(ipw.DOMWidget):
    """A DOM widget whose MIME bundle has `text/html`: this becomes an output of its own below the widget.

    A front shows one form of an output only. Without a kernel JupyterLab takes the widget's form of it, and then finds no
    model; and what a notebook holds of an output is what it was when it was first shown. So the picture is an output that
    can be renewed (`keep`), with a style sheet that hides it while the page has the widget.
    """

    _shown = False

    def keep(self) -> None:
        """Renew the picture in the notebook."""
        if self._shown and self.comm is not None:
            self._send_picture("update_display")

    def close(self) -> None:
        """Close the widget and all that it is made of; its picture in the notebook stays."""
        if self.comm is not None:
            close_whole(self)

    def _ipython_display_(self, **_: Any) -> None:
        from IPython.display import display

        data, metadata = self._bundle()
        data.pop("text/html")
        # The widget's own text would stay what it was; the picture's is renewed.
        data["text/plain"] = type(self).__name__
        self.add_class(f"{self._mark}-alive")
        display(data, metadata=metadata, raw=True)
        self._send_picture("display")
        self._shown = True

    def _send_picture(self, how: str) -> None:
        from IPython import display

        mark = self._mark
        alive, kept = f"body:has(.{mark}-alive)", f".{mark}"
        # JupyterLab would leave room for an output that is empty.
        style = f"<style>{alive} {kept}, {alive} .jp-OutputArea-child:has({kept}) {{ display: none }}</style>"
        below = "<small>A picture of the widget; to use it, run the cell.</small>"
        page = f'{style}<div class="{mark}">{self._bundle()[0]["text/html"]}{below}</div>'
        getattr(display, how)({"text/html": page, "text/plain": repr(self)}, raw=True, display_id=mark)

    @property
    def _mark(self) -> str:
        return f"cmllm-{self.model_id}"

    def _bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Data and metadata; a widget of ipywidgets gives the first alone."""
        bundle = self._repr_mimebundle_()
        return bundle if isinstance(bundle, tuple) else (bundle, {})
