"""What the workbench's tabs have in common that do longer work: begun by a button, in turns with all else, and stopped."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import ipywidgets as ipw

from ..errors import OptimizationError, SettingsError
from .event_loop import in_thread_of, running_loop, take_turns
from .messages import Messages
from .subject import Host

# How wide the names of fields are.
LABEL = {"description_width": "70px"}


class Candidates(ipw.Text):
    """A field of answers that are weighed against each other.

    Args:
        measured: what they are measured by, in words.
    """

    def __init__(self, measured: str):
        super().__init__(
            description="answers",
            placeholder=f"two or more, with commas between: {measured}",
            continuous_update=False,
            style=LABEL,
            layout=ipw.Layout(width="auto", max_width="620px"),
        )

    @property
    def given(self) -> list[str]:
        """The answers, none where the field is empty.

        Raises:
            SettingsError: for one alone.
        """
        found = [part.strip() for part in self.value.split(",") if part.strip()]
        if len(found) == 1:
            raise SettingsError("Give two answers or more, with commas between, or none; got one.")
        return found


class WorkTab(ipw.VBox):
    """Work that is done in turns of the kernel's event loop.

    Args:
        host: the workbench.
        what: the work, as "A comparison".
        button: begins it.
        stops: what Stop does, in words.

    Attributes:
        task: of the work that was begun last.
    """

    def __init__(self, host: Host, what: str, button: ipw.Button, stops: str):
        super().__init__()
        self._host, self._what, self._button = host, what, button
        # Messages of widgets may be handled by another thread, while a cell uses the model in this one.
        self._loop = running_loop()
        self.task: asyncio.Task[Any] | None = None
        self._busy = self._stopped = False
        self._stop = ipw.Button(description="Stop", disabled=True, tooltip=stops)
        self._progress, self._message = ipw.IntProgress(0, 0, 1), Messages()
        button.on_click(lambda _: self._do(self.begin))
        self._stop.on_click(lambda _: self.stop())

    def begin(self) -> asyncio.Task[Any]:
        """Begin the work, as the button does, and return at once.

        Raises:
            OptimizationError: when there is no event loop (`run` needs none), or other work goes on.
        """
        loop = running_loop()
        if loop is None:
            raise OptimizationError(f"{self._what} needs a running event loop, as notebooks have one. Call run() instead.")
        self._ready()
        self.task = loop.create_task(self._cooperate())
        return self.task

    def run(self) -> Any:
        """The work of the button, from start to end in this call; gives what was found.

        Raises:
            OptimizationError: when other work goes on, or it was stopped before it began.
            CmllmError: for a region, question or setting that is not possible.
        """
        self._ready()
        try:
            with self._host.turn:
                for _ in self._turns():
                    pass
        finally:
            self._end()
        found = self._result()
        if found is None:
            raise OptimizationError(f"{self._what} was stopped before it began.")
        return found

    def stop(self) -> None:
        """End the work after the turn that goes on now."""
        self._stopped = self._stopped or self._busy
        self._stop.disabled = True

    def _turns(self) -> Generator[None, None, None]:
        """The work, cut where others have their turn; looks at `_stopped` after each."""
        raise NotImplementedError

    def _result(self) -> Any:
        """What was found so far, None before anything was."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Let go of what was found before."""
        raise NotImplementedError

    def _do(self, action: Callable[[], Any]) -> None:
        in_thread_of(self._loop, self._host.attempt, action, self._message)

    def _ready(self) -> None:
        if self._busy:
            raise OptimizationError(f"{self._what} goes on: press Stop, or wait for its end.")
        self._busy, self._stopped = True, False
        self._forget()
        self._progress.value = 0
        self._stop.disabled, self._button.disabled = False, True

    async def _cooperate(self) -> Any:
        try:
            await take_turns(self._turns(), self._host.turn, self.stop)
        except (Exception, KeyboardInterrupt) as error:
            # Shown, and not raised, as nobody may await the task.
            self._message.failed(error)
        finally:
            self._end()
        return self._result()

    def _end(self) -> None:
        self._busy = False
        self._stop.disabled, self._button.disabled = True, False
