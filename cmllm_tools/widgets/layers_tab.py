"""The workbench's tab of layers and heads: where tokens look in each, what a sweep found, and both as settings."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ipywidgets as ipw

from ..analysis.choices import Choice
from ..analysis.sweep import Sweep
from ..errors import CmllmError, DataError, SettingsError
from ..models.prompt import Queries
from ..notation import layers_text
from ..strict import kind_of
from .attention_explorer import AttentionExplorer
from .closing import replace_children
from .event_loop import in_thread_of, running_loop
from .messages import Messages, hint
from .setting_fields import NAMED
from .subject import AFTER, BEFORE, Host, Stale, state_when

_NOTHING_YET = (
    "Here you see where each token looks, in every layer and head, and choose those to steer with. Press Look; "
    "a sweep of the layers is shown below once it is set: bench.layers.sweep = cm.analysis.sweep_windows(...)."
)


class LayersTab(ipw.VBox):
    """An `AttentionExplorer` of what the panel shows, before or after steering; what is chosen in it can be steered with.

    Args:
        host: the workbench, whose settings take over what is chosen here.

    Attributes:
        explorer: the last one, None before the first.
        sweep: shown below it; may be set, to a `Sweep` or None.
    """

    def __init__(self, host: Host):
        self._host = host
        # The settings' tokens that the explorer has followed.
        self._followed: Queries | None = None
        # Messages of widgets may be handled by another thread, while a cell uses the model in this one.
        self._loop = running_loop()
        self.explorer: AttentionExplorer | None = None
        self._sweep: Sweep | None = None
        self._when = ipw.ToggleButtons(options=[BEFORE, AFTER], tooltips=["without a latent", "with that of the last run"])
        self._look = ipw.Button(description="Look", button_style="primary", tooltip="Capture the attention of all layers")
        self._use = ipw.Button(
            description="Use in settings", disabled=True, tooltip="Steer with the tokens, layer and head chosen here"
        )
        self._message, self._stale = Messages(), Stale(lambda: state_when(host.state(), self._when.value), "Look")
        self._note, self._box, self._found = ipw.VBox(), ipw.VBox([hint(_NOTHING_YET)]), ipw.VBox()
        self._look.on_click(lambda _: self._do(self.look))
        self._when.observe(lambda _: self.follow(), "value")
        self._use.on_click(lambda _: self._do(self.use))
        row = ipw.HBox([self._when, self._look, self._use, self._message], layout=ipw.Layout(flex_flow="row wrap"))
        super().__init__([row, self._stale, self._note, self._box, self._found])

    def _do(self, action: Callable[[], Any]) -> None:
        in_thread_of(self._loop, self._host.attempt, action, self._message)

    def look(self) -> AttentionExplorer:
        """Capture the attention of what the panel shows now, and explore it, as the button does.

        It opens with the settings' tokens, and with their layer and head where they have one.

        Raises:
            SettingsError: for a look after steering, when there was no run on this image and question.
        """
        with self._host.turn:
            self.explorer = self._host.again(self._explored)
            self._followed = self._host.settings.latent_method.queries
            self._stale.fresh()
        low, high = self._host.settings.latent_method.layers or (0, 1)
        window = f"The mean of all layers; the settings have {layers_text(range(low, high))}: click one of them."
        replace_children(self._note, *[hint(window)] * (1 < high - low < self._host.mllm.layers))
        replace_children(self._box, self.explorer)
        self._use.disabled = False
        return self.explorer

    def _explored(self) -> AttentionExplorer:
        subject, after = self._host.subject(), self._when.value == AFTER
        if after and subject.run is None:
            raise SettingsError("There is no run on this image and question to look after; press Steer first.")
        method = self._host.settings.latent_method
        low, high = method.layers or (0, self._host.mllm.layers)
        single = [head for head in method.heads or () if isinstance(head, int)] if len(method.heads or ()) == 1 else []
        return AttentionExplorer(
            self._host.mllm,
            subject.prompt,
            subject.regions or None,
            queries=method.queries,
            layer=low if high - low == 1 else None,
            head=single[0] if single else None,
            latent=subject.run if after else None,
            sigma=method.sigma,
        )

    def follow(self) -> None:
        """Something was set in the panel: choose the settings' new tokens, and say where what is shown is of the past."""
        if self._stale.follow() or self.explorer is None:
            return
        # A field may hold what is no setting, or no token, while it is being typed; Steer says so.
        with suppress(CmllmError):
            queries = self._host.settings.latent_method.queries
            if queries != self._followed:
                self.explorer.queries = self._followed = queries

    def use(self) -> None:
        """Take the tokens, the layer and the head chosen in the explorer over into the settings, as the button does.

        Raises:
            SettingsError: before the first look, after the question or the image has changed since, and for tokens of the
                answer, which no prompt has.
        """
        explorer = self.explorer
        if explorer is None:
            raise SettingsError("There is nothing chosen yet; press Look first.")
        prompt, method = explorer.prompt, self._host.settings.latent_method
        with self._host.turn:
            same = self._host.subject().prompt is prompt
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
        self._host.settings.method = replace(method, queries=queries, layers=layers, heads=heads)

    @property
    def sweep(self) -> Sweep | None:
        """What `analysis.sweep_windows` found, shown with its choices, the best first, to be taken over."""
        return self._sweep

    @sweep.setter
    def sweep(self, sweep: Sweep | None) -> None:
        if sweep is not None:
            kind_of(sweep, Sweep, "A sweep must be one from analysis.sweep_windows", DataError)
        self._sweep = sweep
        if sweep is None:
            replace_children(self._found)
            return
        options = [("choose layers and context token of the sweep", None)]
        options += [(f"{row['choice']}: moved {row['moved']:.3f}", row["choice"]) for row in sweep.rows()]
        choices = ipw.Dropdown(options=options, layout=ipw.Layout(width="auto"))
        choices.observe(lambda change: self._do(lambda: self._take(change["new"])), "value")
        replace_children(self._found, choices, ipw.HTML(sweep._repr_html_()))

    def _take(self, choice: Choice | None) -> None:
        if choice is not None:
            self._host.settings.method = replace(
                self._host.settings.latent_method, layers=choice.layers, queries=choice.queries, heads=None
            )
