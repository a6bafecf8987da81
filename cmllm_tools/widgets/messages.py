"""What a panel has to say: one message at a time, an error with its traceback folded away."""

import traceback
from html import escape

import ipywidgets as ipw


class Messages(ipw.HTML):
    """A line that screen readers announce."""

    def say(self, text: str, more: str = "") -> None:
        """Show a text, and HTML after it."""
        self.value = f'<div role="alert"><b>{escape(text)}</b>{more}</div>'

    def failed(self, error: BaseException) -> None:
        """Show an exception, in its own words."""
        told = "".join(traceback.format_exception(error))
        name = type(error).__name__
        self.say(str(error) or name, f"<details><summary>{name}: traceback</summary><pre>{escape(told)}</pre></details>")

    def clear(self) -> None:
        """Show nothing."""
        self.value = ""
