"""The fields of a method: which one, and those of its declared settings that are changed most."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ipywidgets as ipw

from ..errors import CmllmError, SettingsError
from ..models.mllm import Mllm
from ..referring.latent_method import LatentMethod
from ..referring.method import Method, as_method, given_method
from ..referring.methods.controlmllm import ControlMLLM
from ..referring.registry import all_methods
from .setting_fields import SettingField, field_of


class SettingsPanel(ipw.VBox):
    """Fields for a method, filled in for a model. What has no field stays as it was given.

    Args:
        mllm: the model.
        method: to start with; ControlMLLM when None.

    Attributes:
        kind: which method.
        fields: the widget of each setting of the chosen method, by its name; also an attribute of that name.

    Raises:
        SettingsError: for a setting out of range.
    """

    def __init__(self, mllm: Mllm, method: Method | None = None):
        self._mllm = mllm
        self._known = _methods_for(mllm)
        self._fields: dict[tuple[Any, ...], SettingField] = {}
        self._listeners: list[Callable[[Any], None]] = []
        self._filling = False
        self._looking: type[LatentMethod] = ControlMLLM
        start = given_method(method, ControlMLLM())
        self.kind = ipw.Dropdown(
            options=[(kind.called(), kind) for kind in self._known],
            value=next(iter(self._known)),
            description="method",
            layout=ipw.Layout(width="auto"),
            style={"description_width": "70px"},
        )
        super().__init__()
        self.method = start
        self.kind.observe(self._switch, "value")

    def __getattr__(self, name: str) -> ipw.Widget:
        for found in self.__dict__.get("_chosen", ()):
            if found.setting.name == name:
                return found.widget
        raise AttributeError(f"{type(self).__name__} has no attribute or field {name!r}")

    @property
    def fields(self) -> dict[str, ipw.Widget]:
        """The widgets of the chosen method's settings, by their names."""
        return {each.setting.name: each.widget for each in self._chosen}

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
            known = ", ".join(each.__name__ for each in self._known)
            raise SettingsError(f"A method must be one that is registered ({known}); got {kind.__name__}.")
        resolved = method.resolve(self._mllm)
        self._filling = True
        try:
            self.kind.value = kind
        finally:
            self._filling = False
        self._known[kind] = resolved
        self._fill(resolved)
        # Heads, and other settings without a field, may be all that changed.
        self._tell(None)

    @property
    def latent_method(self) -> LatentMethod:
        """The method, or where it takes no steps the one that does and was set last: it says where one looks.

        Raises:
            SettingsError: for a setting out of range.
        """
        if isinstance(found := self.method, LatentMethod):
            self._looking = type(found)
            return found
        last = self._known[self._looking]
        return last if isinstance(last, LatentMethod) else ControlMLLM().resolve(self._mllm)

    @property
    def sigma_shown(self) -> float:
        """How wide marks are shown: as the method takes them, or where it has no width as methods with steps do.

        Raises:
            SettingsError: for a setting out of range.
        """
        return float(getattr(self.method, "sigma", self.latent_method.sigma))

    def listen(self, listener: Callable[[Any], None]) -> None:
        """Have the listener called after each change of a field, or of the method."""
        self._listeners.append(listener)

    def _tell(self, change: Any) -> None:
        for listener in self._listeners:
            listener(change)

    def _switch(self, change: Any) -> None:
        if self._filling:
            return
        # So that what was set is there again when the method is chosen again.
        with suppress(SettingsError):
            self._known[change["old"]] = self._read(change["old"])
        self._fill(self._known[change["new"]])
        self._tell(change)

    def _fill(self, method: Method) -> None:
        self._chosen = self._fields_of(type(method))
        for each in self._chosen:
            each.fill(getattr(method, each.setting.name))
        self.children = [self.kind, *(row for each in self._chosen for row in each.rows)]

    def _fields_of(self, kind: type[Method]) -> list[SettingField]:
        """Methods share the field of a setting that they have in common."""
        found = []
        for setting in kind.settings():
            if setting.asked:
                key = (setting.name, setting.kind.name, setting.kind.choices)
                if key not in self._fields:
                    self._fields[key] = field_of(setting, self._mllm)
                    self._fields[key].widget.observe(self._tell, "value")
                found.append(self._fields[key])
        return found

    def _read(self, kind: type[Method]) -> Method:
        given = self._known[kind]
        read = {each.setting.name: each.read(getattr(given, each.setting.name)) for each in self._fields_of(kind)}
        return replace(given, **read).resolve(self._mllm)


def _methods_for(mllm: Mllm) -> dict[type[Method], Method]:
    """The methods that can be made without being given anything, as they are for this model."""
    found: dict[type[Method], Method] = {}
    for kind in all_methods().values():
        with suppress(CmllmError, TypeError):
            found[kind] = kind().resolve(mllm)
    return found
