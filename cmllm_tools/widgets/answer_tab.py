"""The workbench's tab of the answer: where each of its tokens looks, or what speaks for it, before and after a run."""

from contextlib import suppress
from typing import Any

import ipywidgets as ipw

from ..causes.answering import AnswerTrace, trace_answer
from ..errors import SettingsError
from .answer_strip import AnswerStrip
from .closing import replace_children
from .event_loop import in_thread_of, running_loop
from .messages import Messages, hint
from .subject import AFTER, BEFORE, Host, Stale, state_when

_NOTHING_YET = (
    "Here you step through the answer: each token with a small map of where it looks, or of what speaks for it, and its "
    "share in the region. Press Read."
)
# As `trace_answer(maps=)` calls them.
_MAPS = {"attention": "attention", "activation (TAM)": "activation", "Grad-CAM": "grad_cam"}


class AnswerTab(ipw.VBox):
    """An `AnswerStrip` of the answer before or after steering, read when it is asked for.

    Args:
        host: the workbench; its settings' layers and heads are those that maps of attention are of.

    Attributes:
        strip: the last one, None before the first.
    """

    def __init__(self, host: Host):
        self._host = host
        self._loop = running_loop()
        self.strip: AnswerStrip | None = None
        # Layers and heads that the settings had last.
        self._of: tuple[Any, ...] = ()
        self._when = ipw.ToggleButtons(options=[BEFORE, AFTER], tooltips=["of the model as it is", "of the last run"])
        self._maps = ipw.Dropdown(
            options=[each for each in _MAPS.items() if each[1] != "activation" or not host.mllm.family.beside],
            tooltip="Where each token looks, or which visual states speak for it",
            layout=ipw.Layout(width="150px"),
        )
        self._read = ipw.Button(
            description="Read", button_style="primary", tooltip="Have the answer, and a map of each token"
        )
        self._message, self._stale = Messages(), Stale(self._shown, "Read")
        self._box = ipw.VBox([hint(_NOTHING_YET)])
        for choice in (self._when, self._maps):
            choice.observe(lambda _: self.follow(), "value")
        self._read.on_click(lambda _: in_thread_of(self._loop, self._host.attempt, self.read, self._message))
        row = ipw.HBox([self._when, self._maps, self._read, self._message], layout=ipw.Layout(flex_flow="row wrap"))
        super().__init__([row, self._stale, self._box])

    def read(self) -> AnswerStrip:
        """Have the answer that the panel asks for now, and show the map of each token, as the button does.

        An answer of the last run is not asked for again.

        Raises:
            SettingsError: for the answer after steering, when there was no run on this image and question.
            CaptureError: for a family whose answer's tokens do not look at the image themselves, and for another map than
                attention after keys were moved.
            UnsupportedModelError: for token activation, as `analysis.token_activation`.
        """
        with self._host.turn:
            self.strip = AnswerStrip(self._host.again(self._traced))
            self._stale.fresh()
        replace_children(self._box, self.strip)
        return self.strip

    def follow(self) -> None:
        """Something was set in the panel."""
        self._stale.follow()

    def _traced(self) -> AnswerTrace:
        subject, method = self._host.subject(), self._host.settings.latent_method
        layers = None if method.layers is None else range(*method.layers)
        of: dict[str, Any] = {"layers": layers, "heads": method.heads, "maps": self._maps.value}
        run, outcome = subject.run, subject.outcome
        if self._when.value == BEFORE:
            said = run.steps[0].answer if run is not None else None
            return trace_answer(self._host.mllm, subject.prompt, regions=subject.regions or None, answer=said, **of)
        if run is not None:
            return trace_answer(
                self._host.mllm, subject.prompt, run, regions=subject.regions or None, answer=run.steps[-1].answer, **of
            )
        if outcome is None:
            raise SettingsError("There is no run on this image and question to read the answer of; press Steer first.")
        # What was sent may be another image, or other words.
        return trace_answer(
            self._host.mllm,
            outcome.prompt(self._host.mllm),
            outcome.intervention,
            regions=outcome.sent.regions or None,
            answer=outcome.answer,
            **of,
        )

    def _shown(self) -> tuple[Any, ...]:
        """What the strip depends on."""
        # A field may hold what is no setting while it is being typed; Read says so, and what it held before counts.
        with suppress(SettingsError):
            method = self._host.settings.latent_method
            self._of = method.layers, method.heads
        return (*state_when(self._host.state(), self._when.value), self._maps.value, self._of)
