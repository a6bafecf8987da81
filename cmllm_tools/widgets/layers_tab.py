"""The workbench's tab of layers and heads: where tokens look in each, what a sweep found, and both as settings."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets as ipw

from ..analysis.sweep import Choice, Sweep
from ..errors import SettingsError
from ..models.mllm import Mllm
from ..models.prompt import Prompt, Queries
from ..regions import Regions
from ..trace import Trace
from .attention_explorer import AttentionExplorer
from .settings import NAMED, Settings
from .turns import in_thread_of, running_loop

BEFORE, AFTER = "before steering", "after"


@dataclass(frozen=True, eq=False)
class Subject:
    """What is looked into.

    Args:
        prompt: image and question.
        regions: to measure the share in; may be none.
        run: the last one on this prompt, None before one.
    """

    prompt: Prompt
    regions: Regions
    run: Trace | None


class LayersTab(ipw.VBox):
    """An `AttentionExplorer` of what the panel shows, before or after steering; what is chosen in it can be steered with.

    Args:
        mllm: the model.
        subject: gives what to look into, when it is asked for.
        settings: the fields of the method, which take over what is chosen here.
        attempt: calls an action, and shows its error in the panel.
        turn: held while the model is used.

    Attributes:
        explorer: the last one, None before the first.
        sweep: shown below it; may be set, to a `Sweep` or None.
    """

    def __init__(
        self,
        mllm: Mllm,
        subject: Callable[[], Subject],
        settings: Settings,
        attempt: Callable[[Callable[[], Any]], None],
        turn: AbstractContextManager,
    ):
        self._mllm, self._subject, self._settings = mllm, subject, settings
        self._attempt, self._turn = attempt, turn
        # Messages of widgets may be handled by another thread, while a cell uses the model in this one.
        self._loop = running_loop()
        self.explorer: AttentionExplorer | None = None
        self._sweep: Sweep | None = None
        self._when = ipw.ToggleButtons(options=[BEFORE, AFTER], tooltips=["without a latent", "with that of the last run"])
        self._look = ipw.Button(description="Look", button_style="primary", tooltip="Capture the attention of all layers")
        self._use = ipw.Button(
            description="Use in settings", disabled=True, tooltip="Steer with the tokens, layer and head chosen here"
        )
        self._box, self._found = ipw.VBox(), ipw.VBox()
        self._look.on_click(lambda _: self._do(self.look))
        self._use.on_click(lambda _: self._do(self.use))
        row = ipw.HBox([self._when, self._look, self._use], layout=ipw.Layout(flex_flow="row wrap"))
        super().__init__([row, self._box, self._found])

    def _do(self, action: Callable[[], Any]) -> None:
        in_thread_of(self._loop, self._attempt, action)

    def look(self) -> AttentionExplorer:
        """Capture the attention of what the panel shows now, and explore it, as the button does.

        Raises:
            SettingsError: for a look after steering, when there was no run on this image and question.
        """
        with self._turn:
            subject = self._subject()
            if self._when.value == AFTER and subject.run is None:
                raise SettingsError("There is no run on this image and question to look after; press Steer first.")
            latent = subject.run if self._when.value == AFTER else None
            old, region = self.explorer, subject.regions or None
            sigma = self._settings.method.sigma
            self.explorer = AttentionExplorer(self._mllm, subject.prompt, region, latent=latent, sigma=sigma)
        self._box.children = [self.explorer]
        self._use.disabled = False
        if old is not None:
            old.close()
        return self.explorer

    def use(self) -> None:
        """Take the tokens, the layer and the head chosen in the explorer over into the settings, as the button does.

        Raises:
            SettingsError: before the first look, after the question or the image has changed since, and for tokens of the
                answer, which no prompt has.
        """
        explorer = self.explorer
        if explorer is None:
            raise SettingsError("There is nothing chosen yet; press Look first.")
        prompt, method = explorer.prompt, self._settings.method
        with self._turn:
            same = self._subject().prompt is prompt
        if not same:
            raise SettingsError(
                "The question or the image has changed since the last look, and tokens with it; press Look."
            )
        if not prompt.learned and max(explorer.queries) >= len(prompt.tokens):
            raise SettingsError(
                "Tokens of the answer cannot be steered with, as they come after it; choose some of the prompt."
            )
        layers = method.layers if explorer.layer is None else (explorer.layer, explorer.layer + 1)
        heads = None if explorer.head is None else (explorer.head,)
        named: dict[tuple[int, ...], Queries] = {prompt.positions(name): name for name in reversed(NAMED)}
        queries = named.get(explorer.queries, explorer.queries)
        self._settings.method = replace(method, queries=queries, layers=layers, heads=heads)

    @property
    def sweep(self) -> Sweep | None:
        """What `analysis.sweep_windows` found, shown with its choices, the best first, to be taken over."""
        return self._sweep

    @sweep.setter
    def sweep(self, sweep: Sweep | None) -> None:
        self._sweep = sweep
        if sweep is None:
            self._found.children = []
            return
        options = [("choose layers and context token of the sweep", None)]
        options += [(f"{row['choice']}: moved {row['moved']:.3f}", row["choice"]) for row in sweep.rows()]
        choices = ipw.Dropdown(options=options, layout=ipw.Layout(width="auto"))
        choices.observe(lambda change: self._do(lambda: self._take(change["new"])), "value")
        self._found.children = [choices, ipw.HTML(sweep._repr_html_())]

    def _take(self, choice: Choice | None) -> None:
        if choice is not None:
            self._settings.method = replace(self._settings.method, layers=choice.layers, queries=choice.queries, heads=None)
