"""What a panel has to say: one message at a time, an error with its traceback folded away."""

import traceback
from collections.abc import Sequence
from html import escape

import ipywidgets as ipw


class Messages(ipw.HTML):
    """A line that screen readers announce, beside the buttons that it tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("cmllm-message")

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


def hint(text: str) -> ipw.HTML:
    """What will be shown in a place that is still empty."""
    return ipw.HTML(f"<i>{escape(text)}</i>").add_class("cmllm-hint")


def unknown_text(words: Sequence[str], known: Sequence[str]) -> str:
    """HTML that warns of words that a model does not know; empty where it knows all.

    Args:
        words: it does not know.
        known: those that it does, folded away; none where they are too many to be read.
    """
    if not words:
        return ""
    all_known = f"<details><summary>the words it knows</summary>{escape(' '.join(known))}</details>" if known else ""
    return f'<div role="status">The model does not know: <b>{escape(", ".join(words))}</b>. {all_known}</div>'
