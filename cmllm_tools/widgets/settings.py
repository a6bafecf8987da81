"""The fields of a method: which one, and the settings that are changed most."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ipywidgets as ipw

from ..errors import SettingsError
from ..methods import ControlMLLM, ControlMLLMPlus, Method, as_method, given_method
from ..models.mllm import Mllm
from ..models.prompt import queries_name
from ..notation import layers_text

NAMED = ("text", "after_image", "last")


class Settings(ipw.VBox):
    """Fields for a method, filled in for a model. What has no field stays as it was given.

    Args:
        mllm: the model.
        method: to start with; ControlMLLM when None.

    Raises:
        SettingsError: for a setting out of range.
    """

    def __init__(self, mllm: Mllm, method: Method | None = None):
        self._mllm = mllm
        self._known: dict[type[Method], Method] = {kind: kind().resolve(mllm) for kind in (ControlMLLM, ControlMLLMPlus)}
        common: dict[str, Any] = {
            "layout": ipw.Layout(width="auto"),
            "style": {"description_width": "70px"},
        }
        kinds = [("ControlMLLM", ControlMLLM), ("ControlMLLM++", ControlMLLMPlus)]
        self.kind = ipw.Dropdown(options=kinds, description="method", **common)
        self.steps = ipw.IntText(description="steps", **common)
        self.step_size = ipw.FloatText(description="step size", **common)
        self.layers = ipw.IntRangeSlider(
            min=0,
            # A slider needs two ends, also for a model with one layer.
            max=max(mllm.layers - 1, 1),
            description="layers",
            tooltip="from the first to the last, both included",
            readout=False,
            **common,
        )
        self._named = ipw.Label().add_class("cmllm-layers")
        self.queries = ipw.Combobox(
            options=NAMED, description="queries", tooltip="text, after_image, last, or words of the question", **common
        )
        self.heads = ipw.Text(
            description="heads", placeholder="all", tooltip="numbers, or layer:head pairs; empty for all", **common
        )
        self.sigma = ipw.FloatText(description="sigma", tooltip="width of scribbles and points", **common)
        self._fields = (self.steps, self.step_size, self.layers, self.heads, self.queries, self.sigma)
        self._listeners: list[Callable[[Any], None]] = []
        self.method = given_method(method, ControlMLLM())
        self.kind.observe(self._switch, "value")
        self.layers.observe(self._name_layers, "value")
        self._name_layers()
        rows: list[ipw.Widget] = [self.kind, *self._fields]
        rows.insert(rows.index(self.layers) + 1, self._named)
        super().__init__(rows)

    @property
    def method(self) -> Method:
        """The method as its fields say, every setting filled in; it may be set.

        Raises:
            SettingsError: for a setting out of range.
        """
        return self._read(self.kind.value)

    @method.setter
    def method(self, method: Method) -> None:
        kind = type(as_method(method))
        if kind not in self._known:
            raise SettingsError(f"A method must be a ControlMLLM or a ControlMLLMPlus; got {kind.__name__}.")
        resolved = method.resolve(self._mllm)
        self.kind.value = kind
        self._known[kind] = resolved
        self._fill(resolved)
        # Heads, and other settings without a field, may be all that changed.
        for listener in self._listeners:
            listener(None)

    def listen(self, listener: Callable[[Any], None]) -> None:
        """Have the listener called after each change of a field, or of the method."""
        self._listeners.append(listener)
        for field in (self.kind, *self._fields):
            field.observe(listener, "value")

    def _switch(self, change: Any) -> None:
        # So that what was set is there again when the method is chosen again.
        with suppress(SettingsError):
            self._known[change["old"]] = self._read(change["old"])
        self._fill(self._known[change["new"]])

    def _fill(self, method: Method) -> None:
        self.steps.value, self.step_size.value, self.sigma.value = method.steps, method.step_size, method.sigma
        self.layers.value = self._window(method)
        self.queries.value, self.heads.value = queries_name(method.queries), _heads_text(method.heads)

    def _name_layers(self, _change: Any = None) -> None:
        low, high = self.layers.value
        self._named.value = layers_text(range(low, high + 1))

    def _window(self, method: Method) -> tuple[int, int]:
        """The first and the last layer: both ends of the slider are meant."""
        low, high = method.layers or (0, self._mllm.layers)
        return low, high - 1

    def _read(self, kind: type[Method]) -> Method:
        given = self._known[kind]
        (low, high), queries = self.layers.value, self.queries.value.strip()
        method = replace(
            given,
            steps=self.steps.value,
            step_size=self.step_size.value,
            layers=given.layers if (low, high) == self._window(given) else (low, high + 1),
            heads=_as_heads(self.heads.value),
            queries=given.queries if queries == queries_name(given.queries) else _as_queries(queries),
            sigma=self.sigma.value,
        )
        return method.resolve(self._mllm)


def _heads_text(heads: Any) -> str:
    return " ".join(":".join(map(str, head)) if isinstance(head, tuple) else str(head) for head in heads or ())


def _as_heads(text: str) -> Any:
    """Numbers, or layer:head pairs; None for all."""
    heads = text.replace(",", " ").split()
    try:
        several = tuple(tuple(map(int, head.split(":"))) if ":" in head else int(head) for head in heads)
    except ValueError:
        raise SettingsError(f"heads must be numbers, or layer:head pairs, such as 2:4 3:1; got {text!r}.") from None
    return several or None


def _as_queries(text: str) -> Any:
    """A name, a word, a position, or several words and positions."""
    words = text.replace(",", " ").split()
    if not words:
        raise SettingsError(f"queries must be one of {', '.join(NAMED)}, or words of the question; got nothing.")
    several = tuple(int(word) if word.lstrip("-").isdigit() else word for word in words)
    return several[0] if len(several) == 1 else several
