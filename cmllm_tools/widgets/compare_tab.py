"""The workbench's tab that compares ways of referring to what is drawn: what each makes the model answer, and its price."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import ipywidgets as ipw

from ..errors import OptimizationError, RegionError, SettingsError
from ..inputs.images import ImageSource
from ..inputs.regions import Regions
from ..models.mllm import Mllm
from ..referring.compare import Comparing, usual_methods
from ..referring.comparison import Comparison
from ..referring.method import Method
from .closing import replace_children
from .event_loop import in_thread_of, running_loop, take_turns
from .messages import Messages, hint

AS_SET = "as set above"
_NOTHING_YET = (
    "Here several ways of referring to the regions are set side by side: answers, attention, damage, time. Choose some, "
    "and press Compare."
)


class CompareTab(ipw.VBox):
    """Chosen ways of referring to the drawn regions, one per turn of the kernel's event loop, as a table.

    Args:
        mllm: the model.
        asked: gives image, question and regions, when it is asked for.
        method: gives the method that the panel has now.
        attempt: calls an action, and shows its error in the messages given with it.
        turn: held while the model is used.

    Attributes:
        comparison: the last one, growing while it goes on; None before the first.
        task: of the comparison that was begun last.
    """

    def __init__(
        self,
        mllm: Mllm,
        asked: Callable[[], tuple[ImageSource, str, Regions]],
        method: Callable[[], Method],
        attempt: Callable[[Callable[[], Any], Messages], None],
        turn: AbstractContextManager[Any],
    ):
        self._mllm, self._asked, self._method, self._attempt, self._turn = mllm, asked, method, attempt, turn
        self._loop = running_loop()
        self.comparison: Comparison | None = None
        self.task: asyncio.Task[Any] | None = None
        self._busy = self._stopped = False
        names = [AS_SET, *usual_methods()]
        self._ways = ipw.SelectMultiple(options=names, value=names, rows=len(names), description="ways")
        self._candidates = ipw.Text(
            description="answers", placeholder="two or more, with commas between: their log-odds", continuous_update=False
        )
        self._compare = ipw.Button(description="Compare", button_style="primary", tooltip="Refer in each of the ways")
        self._stop = ipw.Button(
            description="Stop", disabled=True, tooltip="End after this way, and keep those that were done"
        )
        self._progress, self._message = ipw.IntProgress(0, 0, 1), Messages()
        self._found = ipw.VBox([hint(_NOTHING_YET)])
        self._compare.on_click(lambda _: in_thread_of(self._loop, self._attempt, self.begin, self._message))
        self._stop.on_click(lambda _: self.stop())
        row = ipw.HBox([self._compare, self._stop, self._progress, self._message], layout=ipw.Layout(flex_flow="row wrap"))
        super().__init__([self._ways, self._candidates, row, self._found])

    @property
    def methods(self) -> dict[str, Method]:
        """The chosen ways by name; they may be set by name alone, as the list does.

        Raises:
            SettingsError: for none, or a setting of the panel that is out of range.
        """
        known = usual_methods()
        found = {name: self._method() if name == AS_SET else known[name] for name in self._ways.value}
        if not found:
            raise SettingsError("Choose one way or more to compare; none is chosen.")
        return found

    def begin(self) -> asyncio.Task[Any]:
        """Begin a comparison, as the button does, and return at once.

        Raises:
            OptimizationError: when there is no event loop (`run` needs none), or another comparison goes on.
        """
        loop = running_loop()
        if loop is None:
            raise OptimizationError("A comparison needs a running event loop, as notebooks have one. Call run() instead.")
        self._ready()
        self.task = loop.create_task(self._cooperate())
        return self.task

    def run(self) -> Comparison:
        """The comparison of the button, from start to end in this call.

        Raises:
            OptimizationError: when another comparison goes on.
            CmllmError: for a region, question or setting that is not possible.
        """
        self._ready()
        try:
            with self._turn:
                for _ in self._turns():
                    pass
        finally:
            self._end()
        if self.comparison is None:
            raise OptimizationError("The comparison was stopped before it began.")
        return self.comparison

    def stop(self) -> None:
        """End the comparison after the way that is tried now."""
        self._stopped = self._stopped or self._busy
        self._stop.disabled = True

    def _ready(self) -> None:
        if self._busy:
            raise OptimizationError("A comparison goes on: press Stop, or wait for its end.")
        self._busy, self._stopped, self.comparison = True, False, None
        self._stop.disabled, self._compare.disabled = False, True

    async def _cooperate(self) -> Comparison | None:
        try:
            await take_turns(self._turns(), self._turn, self.stop)
        except (Exception, KeyboardInterrupt) as error:
            # Shown, and not raised, as nobody may await the task.
            self._message.failed(error)
        finally:
            self._end()
        return self.comparison

    def _turns(self) -> Generator[None, None, None]:
        """A comparison, cut where others have their turn."""
        image, question, regions = self._asked()
        if not regions:
            raise RegionError("Draw at least one region on the image first; there is none yet.")
        candidates = [part.strip() for part in self._candidates.value.split(",") if part.strip()]
        run = Comparing(self._mllm, image, question, regions, methods=self.methods, candidates=candidates)
        self._progress.max = len(run)
        number = 0
        try:
            for number, _ in enumerate(run, 1):
                self._progress.value = number
                self._show(run.so_far(complete=not self._stopped or number == len(run)))
                if self._stopped:
                    return
                yield
        except BaseException:
            # An interrupt, or the end of its task: ways may be missing.
            if self.comparison is not None and number < len(run):
                self._show(replace(self.comparison, complete=False))
            raise

    def _show(self, found: Comparison) -> None:
        self.comparison = found
        if self.comm is not None:
            replace_children(self._found, ipw.HTML(str(found._repr_html_())))

    def _end(self) -> None:
        self._busy = False
        self._stop.disabled, self._compare.disabled = True, False
