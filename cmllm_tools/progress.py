"""Progress as text: a bar of ipywidgets is stored without its state, so that a reopened notebook shows it frozen."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# Seconds that people wait without a word; what is done by then stays silent.
PATIENCE = 2.0


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

    disable = not _wanted(shown)

    notebook = _in_notebook()
    # In a file or a pipe, each movement of a bar is a line of its own.
    seconds = 0.1 if notebook or sys.stderr.isatty() else 60.0
    return tqdm(
        iterable, desc, file=sys.stdout if notebook else sys.stderr, mininterval=seconds, disable=disable, **options
    )


@contextmanager
def waiting(doing: str, shown: object = True) -> Iterator[None]:
    """While open: after two seconds say what is being done, and at the end how long it took. What is quicker is silent.

    Args:
        doing: "loading the embedded model".
        shown: as for `progress_bar`; what is said goes where bars go.

    Raises:
        SettingsError: for a `shown` that is neither True nor False.
    """
    if not _wanted(shown):
        yield
        return
    begun, spoken = time.monotonic(), threading.Event()

    def speak() -> None:
        spoken.set()
        _say(f"{doing} ...")

    timer = threading.Timer(PATIENCE, speak)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    # What fails says so itself.
    if spoken.is_set():
        _say(f"{doing}: done in {time.monotonic() - begun:.0f} s")


def _wanted(shown: object) -> bool:
    if shown is True:
        return True
    # Numpy comes with it, for which a bar of the first import cannot wait.
    from .strict import flag

    return flag(shown, "progress")


def _say(text: str) -> None:
    # Found when it is said: the stream may be another by then, or none, as under pythonw.
    stream = sys.stdout if _in_notebook() else sys.stderr
    if stream is not None:
        from tqdm import tqdm

        # Not into the line of a bar that is drawn meanwhile, as transformers' of the weights is.
        tqdm.write(f"cmllm_tools: {text}", file=stream)
        stream.flush()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")
