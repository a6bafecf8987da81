"""Python code to take along: shown, and copied to the clipboard."""

import anywidget
import traitlets

from .modules import script, style


class CodeView(anywidget.AnyWidget):
    """Code that is hidden until it is shown first; setting `code` then follows silently."""

    _esm = script("code_view")
    _css = style("code_view")

    code = traitlets.Unicode().tag(sync=True)
    shown = traitlets.Int(0).tag(sync=True)

    def show(self, code: str) -> None:
        """Show this code, and have the browser copy it."""
        with self.hold_sync():
            self.code = code
            self.shown += 1
