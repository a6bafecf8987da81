"""Interrupts that wait: Ctrl-C while something is changed or put back is heard once that is done.

Python hears a signal between any two instructions, also between those of a context's `__exit__`, which then would not put
back what its `__enter__` changed. While one of the contexts made here is open, a handler of this module stands before the
one that was there. It looks where the interrupt fell: within a context's own entering or leaving, the interrupt waits until
that is done; anywhere else the handler that was there hears it at once.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator, contextmanager
from functools import partial, wraps
from types import CodeType, FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _Watch:
    """What only the main thread reads and writes, as only it hears signals."""

    def __init__(self) -> None:
        self.open = 0
        self.waiting = False
        self.before: Callable[[int, FrameType | None], Any] = signal.default_int_handler


_WATCH = _Watch()
# In a frame of this code, and in what it calls, interrupts wait.
_HELD: set[CodeType] = set()


def _is_held(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _HELD:
            return True
        frame = frame.f_back
    return False


def _heard(number: int, frame: FrameType | None) -> None:
    if _is_held(frame):
        _WATCH.waiting = True
    else:
        _WATCH.before(number, frame)


def _begin() -> bool:
    """Stand before the handler of interrupts; False where there is none to stand before, or in another thread."""
    if threading.get_ident() != threading.main_thread().ident:
        return False
    if _WATCH.open == 0:
        before = signal.getsignal(signal.SIGINT)
        if not callable(before):
            return False
        _WATCH.waiting = False
        if before is not _heard:
            _WATCH.before = before
            signal.signal(signal.SIGINT, _heard)
    _WATCH.open += 1
    return True


def _end() -> None:
    _WATCH.open -= 1
    # Someone else's handler, set in the meantime, is theirs to take away.
    if _WATCH.open == 0 and signal.getsignal(signal.SIGINT) is _heard:
        signal.signal(signal.SIGINT, _WATCH.before)


def hear() -> None:
    """Let an interrupt that waits be heard now: for long waits, at a place where nothing is to be put back."""
    if _WATCH.waiting and threading.get_ident() == threading.main_thread().ident:
        _WATCH.waiting = False
        _WATCH.before(signal.SIGINT, sys._getframe())


class Restoring(AbstractContextManager[T], ContextDecorator):
    """A context that interrupts find closed or open, never between; may be entered again, and decorates functions.

    Args:
        make: makes the context that changes something and puts it back.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[T]]):
        self._make = make
        self._watched = False

    def _recreate_cm(self) -> "Restoring[T]":
        return Restoring(self._make)

    def __enter__(self) -> T:
        self._watched, entered = _begin(), False
        try:
            self._inner = self._make()
            value = self._inner.__enter__()
            entered = True
            heard = self._watched and not _is_held(sys._getframe(1))
            # The last look is no call, after which Python would hear signals once more, here instead of in the body.
            while heard and _WATCH.waiting:
                hear()
            return value
        except BaseException:
            try:
                if entered:
                    self._inner.__exit__(*sys.exc_info())
            finally:
                if self._watched:
                    _end()
            raise

    def __exit__(self, *raised: Any) -> bool | None:
        try:
            return self._inner.__exit__(*raised)
        finally:
            if self._watched:
                _end()
            heard = self._watched and not _is_held(sys._getframe(1))
            while heard and _WATCH.waiting:
                hear()


def restoring(function: Callable[P, Iterator[T]]) -> Callable[P, Restoring[T]]:
    """`contextlib.contextmanager`, but interrupts wait while the context is entered and left."""
    make = contextmanager(function)

    @wraps(function)
    def made(*given: P.args, **named: P.kwargs) -> Restoring[T]:
        return Restoring(partial(make, *given, **named))

    return made


def uninterrupted(function: Callable[P, T]) -> Callable[P, T]:
    """The function, during which interrupts wait: for a few assignments that belong together."""

    def whole(*given: P.args, **named: P.kwargs) -> T:
        watched = _begin()
        try:
            return function(*given, **named)
        finally:
            if watched:
                _end()
            heard = watched and not _is_held(sys._getframe(1))
            while heard and _WATCH.waiting:
                hear()

    _HELD.add(whole.__code__)
    return wraps(function)(whole)


_HELD |= {Restoring.__enter__.__code__, Restoring.__exit__.__code__}
