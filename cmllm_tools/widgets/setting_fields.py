"""One field for each kind of setting, from its declaration: a widget, and how a value goes into it and comes out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ipywidgets as ipw

from ..errors import SettingsError
from ..models.mllm import Mllm
from ..notation import layers_text
from ..referring.settings import Setting

NAMED = ("text", "after_image", "last")


@dataclass(eq=False)
class SettingField:
    """A setting's widget.

    Args:
        setting: its declaration.
        widget: whose `value` the user changes.
        show: the widget's value for a setting's.
        take: the setting's value from the widget's.
        beside: what stands below the widget.
    """

    setting: Setting
    widget: ipw.Widget
    show: Callable[[Any], Any]
    take: Callable[[Any], Any]
    beside: tuple[ipw.Widget, ...] = ()

    @property
    def rows(self) -> tuple[ipw.Widget, ...]:
        """The widgets, from top to bottom."""
        return (self.widget, *self.beside)

    def fill(self, value: Any) -> None:
        """Show a setting's value."""
        self.widget.value = self.show(value)

    def read(self, given: Any) -> Any:
        """The setting's value: as it was given, where the widget still shows that.

        Raises:
            SettingsError: for what is no such value.
        """
        now = self.widget.value
        return given if now == self.show(given) else self.take(now.strip() if isinstance(now, str) else now)


# Kinds whose widget's value is the setting's.
_PLAIN: dict[str, type[ipw.Widget]] = {"whole": ipw.IntText, "real": ipw.FloatText, "flag": ipw.Checkbox}


def field_of(setting: Setting, mllm: Mllm) -> SettingField:
    """The field of a declared setting."""
    common: dict[str, Any] = {
        "description": setting.name.replace("_", " "),
        "tooltip": f"{setting.meaning}: {setting.kind.range}",
        "layout": ipw.Layout(width="auto"),
        "style": {"description_width": "70px"},
    }
    kind = setting.kind
    if kind.name in _PLAIN:
        return SettingField(setting, _PLAIN[kind.name](**common), _same, _same)
    if kind.name == "choice":
        return SettingField(setting, ipw.Dropdown(options=kind.choices, **common), _same, _same)
    if kind.name == "window":
        return _window(setting, mllm, common)
    if kind.name == "queries":
        return SettingField(setting, ipw.Combobox(options=NAMED, **common), kind.write, _words(setting))
    empty = {"placeholder": "all"} if kind.name == "heads" else {}
    return SettingField(setting, ipw.Text(**empty, **common), kind.write, lambda words: kind.parsed(words, setting.name))


def _same(value: Any) -> Any:
    return value


def _words(setting: Setting) -> Callable[[str], Any]:
    def taken(words: str) -> Any:
        if not words.replace(",", " ").strip():
            raise SettingsError(f"{setting.name} must be one of {', '.join(NAMED)}, or words of the question; got nothing.")
        return setting.kind.parsed(words, setting.name)

    return taken


def _window(setting: Setting, mllm: Mllm, common: dict[str, Any]) -> SettingField:
    """From the first layer to the last, both ends of the slider included."""
    # A slider needs two ends, also for a model with one layer.
    slider = ipw.IntRangeSlider(min=0, max=max(mllm.layers - 1, 1), readout=False, **common)
    named = ipw.Label().add_class("cmllm-layers")

    def name(_change: Any = None) -> None:
        low, high = slider.value
        named.value = layers_text(range(low, high + 1))

    def ends(window: tuple[int, ...]) -> tuple[int, int]:
        low, high = window or (0, mllm.layers)
        return low, high - 1

    slider.observe(name, "value")
    name()
    return SettingField(setting, slider, ends, lambda value: (value[0], value[1] + 1), (named,))
