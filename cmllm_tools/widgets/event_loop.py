"""Long work in a notebook, one turn at a time: between two turns the kernel's event loop belongs to others."""

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

# How long others have, in seconds: many times what a message takes from the kernel's socket to its handler, and little
# beside a step.
PAUSE = 0.02


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def in_thread_of(loop: asyncio.AbstractEventLoop | None, act: Callable[..., Any], *given: Any) -> None:
    """Call in the thread of a loop that runs: at once where that is this thread, or where none runs."""
    if loop is None or not loop.is_running() or loop is running_loop():
        act(*given)
    else:
        loop.call_soon_threadsafe(act, *given)


async def take_turns(
    turns: Generator[None, None, None], lock: AbstractContextManager[Any], interrupt: Callable[[], None]
) -> None:
    """Run a generator to its end, each of its turns in one turn of the loop, with a pause before it.

    Args:
        turns: the work; an interrupt in the midst of it raises KeyboardInterrupt there, as in a cell.
        lock: held during each turn.
        interrupt: called when an interrupt comes between two turns.
    """
    signals, done = _Interrupts(interrupt), object()
    try:
        while True:
            signals.take()
            await asyncio.sleep(PAUSE)
            signals.take()
            with lock:
                signals.in_turn = True
                try:
                    if next(turns, done) is done:
                        return
                finally:
                    signals.in_turn = False
    finally:
        turns.close()
        signals.leave()


class _Interrupts:
    """Takes the kernel's interrupt, which ipykernel ignores while no cell runs."""

    def __init__(self, between: Callable[[], None]):
        self.in_turn = self.over = False
        self.between = between

    def __call__(self, *_: Any) -> None:
        # Outside of a turn the exception would end the kernel's loop.
        if self.in_turn:
            raise KeyboardInterrupt
        if not self.over:
            self.between()

    def take(self) -> None:
        # A handler of a run that is over may be left: a cell that began in a pause puts it back when it ends.
        handler = signal.getsignal(signal.SIGINT)
        free = handler is signal.SIG_IGN or (isinstance(handler, _Interrupts) and handler.over)
        if free and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self)

    def leave(self) -> None:
        self.over = True
        if signal.getsignal(signal.SIGINT) is self and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
