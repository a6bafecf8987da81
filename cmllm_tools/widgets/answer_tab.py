"""The workbench's tab of the answer: where each of its tokens looks, unsteered or after the last run."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import ipywidgets as ipw

from ..causes.answering import AnswerTrace, trace_answer
from ..errors import SettingsError
from ..models.mllm import Mllm
from .answer_strip import AnswerStrip
from .closing import replace_children
from .event_loop import in_thread_of, running_loop
from .messages import Messages, hint
from .settings import SettingsPanel
from .subject import AFTER, BEFORE, Stale, Subject, state_when

_NOTHING_YET = (
    "Here you step through the answer: each token with a small map of where it looks, and its share in the region. "
    "Press Read."
)


class AnswerTab(ipw.VBox):
    """An `AnswerStrip` of the answer before or after steering, read when it is asked for.

    Args:
        mllm: the model.
        subject: gives what to look into, when it is asked for.
        settings: the fields of the method, whose layers and heads the maps are of.
        attempt: calls an action, and shows its error in the messages given with it.
        again: calls what uses the prompt, a second time where the model has changed since it was prepared.
        turn: held while the model is used.
        state: what the panel shows now: question, image, regions, and the last run.

    Attributes:
        strip: the last one, None before the first.
    """

    def __init__(
        self,
        mllm: Mllm,
        subject: Callable[[], Subject],
        settings: SettingsPanel,
        attempt: Callable[[Callable[[], Any], Messages], None],
        again: Callable[[Callable[[], Any]], Any],
        turn: AbstractContextManager[Any],
        state: Callable[[], tuple[Any, ...]],
    ):
        self._mllm, self._subject, self._settings = mllm, subject, settings
        self._attempt, self._again, self._turn, self._state = attempt, again, turn, state
        self._loop = running_loop()
        self.strip: AnswerStrip | None = None
        # Layers and heads that the settings had last.
        self._of: tuple[Any, ...] = ()
        self._when = ipw.ToggleButtons(options=[BEFORE, AFTER], tooltips=["of the model as it is", "of the last run"])
        self._read = ipw.Button(description="Read", button_style="primary", tooltip="Have the answer, and where it looks")
        self._message, self._stale = Messages(), Stale(self._shown, "Read")
        self._box = ipw.VBox([hint(_NOTHING_YET)])
        self._when.observe(lambda _: self.follow(), "value")
        self._read.on_click(lambda _: in_thread_of(self._loop, self._attempt, self.read, self._message))
        row = ipw.HBox([self._when, self._read, self._message], layout=ipw.Layout(flex_flow="row wrap"))
        super().__init__([row, self._stale, self._box])

    def read(self) -> AnswerStrip:
        """Have the answer that the panel asks for now, and show where each token looks, as the button does.

        An answer of the last run is not asked for again.

        Raises:
            SettingsError: for the answer after steering, when there was no run on this image and question.
            CaptureError: for a family whose answer's tokens do not look at the image themselves.
        """
        with self._turn:
            self.strip = AnswerStrip(self._again(self._traced))
            self._stale.fresh()
        replace_children(self._box, self.strip)
        return self.strip

    def follow(self) -> None:
        """Something was set in the panel."""
        self._stale.follow()

    def _traced(self) -> AnswerTrace:
        subject, method = self._subject(), self._settings.latent_method
        layers = None if method.layers is None else range(*method.layers)
        of: dict[str, Any] = {"layers": layers, "heads": method.heads}
        run, outcome = subject.run, subject.outcome
        if self._when.value == BEFORE:
            said = run.steps[0].answer if run is not None else None
            return trace_answer(self._mllm, subject.prompt, regions=subject.regions or None, answer=said, **of)
        if run is not None:
            return trace_answer(
                self._mllm, subject.prompt, run, regions=subject.regions or None, answer=run.steps[-1].answer, **of
            )
        if outcome is None:
            raise SettingsError("There is no run on this image and question to read the answer of; press Steer first.")
        # What was sent may be another image, or other words.
        return trace_answer(
            self._mllm,
            outcome.prompt(self._mllm),
            outcome.intervention,
            regions=outcome.sent.regions or None,
            answer=outcome.answer,
            **of,
        )

    def _shown(self) -> tuple[Any, ...]:
        """What the strip depends on."""
        # A field may hold what is no setting while it is being typed; Read says so, and what it held before counts.
        with suppress(SettingsError):
            method = self._settings.latent_method
            self._of = method.layers, method.heads
        return (*state_when(self._state(), self._when.value), self._of)
