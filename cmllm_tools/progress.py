"""Progress as text: a bar of ipywidgets is stored without its state, so that a reopened notebook shows it frozen."""

import sys
from collections.abc import Iterable
from typing import Any

from .strict import flag


def progress_bar(iterable: Iterable[Any] | None = None, desc: str = "", shown: object = True, **options: Any) -> Any:
    """A tqdm bar in plain text: in a notebook on the output, whose stored text is the bar's end, else on standard error.

    Args:
        iterable: to go through, or None where the bar is moved by hand.
        desc: what is done.
        shown: the `progress` that callers of public functions give.
        **options: tqdm's own: `total`, `unit`, `leave`.

    Raises:
        SettingsError: for a `shown` that is neither True nor False.
    """
    from tqdm import tqdm

    disable = not flag(shown, "progress")

    notebook = _in_notebook()
    # In a file or a pipe, each movement of a bar is a line of its own.
    seconds = 0.1 if notebook or sys.stderr.isatty() else 60.0
    return tqdm(
        iterable, desc, file=sys.stdout if notebook else sys.stderr, mininterval=seconds, disable=disable, **options
    )


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")
