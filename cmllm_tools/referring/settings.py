"""Declaring a method's settings, once: whatever shows or asks for them reads the declaration."""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from .kinds import Kind

# Stands for a setting that `Method.resolve` takes from the model's own defaults.
MODEL_DEFAULT: Any = None
_KEY = "setting"


@dataclass(frozen=True)
class Setting:
    """What is known of a method's setting.

    Args:
        name: of the field.
        meaning: in a few words.
        kind: what values it takes.
        default: None, where it is left open.
        asked: whether panels have a field for it.
        open: whether it may be None, to be filled in for the model.
        strength: whether it says how far the method goes: the more, the further from the model as it is.
    """

    name: str
    meaning: str
    kind: Kind
    default: Any
    asked: bool
    open: bool
    strength: bool = False

    @property
    def default_text(self) -> str:
        """The default in words."""
        if self.open and self.default is None:
            return "the model's"
        return self.kind.write(self.default) or ("all" if self.kind.name in ("window", "heads") else "none")

    def read(self, value: Any) -> Any:
        """A plain value, None where it is left open.

        Raises:
            SettingsError: for what is not of its kind, or out of range.
        """
        return None if value is None and self.open else self.kind.read(value, self.name)


def setting(
    default: Any, meaning: str, kind: Kind, asked: bool = False, left_open: bool | None = None, strength: bool = False
) -> Any:
    """Declare a setting: the default of a dataclass's field, with what is known of it.

    Args:
        left_open: whether it may be None, to be filled in for the model; when None, where the default is MODEL_DEFAULT.
        strength: whether it is the number that says how far the method goes; of a method one at most.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Louder(cm.Method):
        ...     "A method with one setting."
        ...
        ...     strength: float = cm.methods.setting(1.0, "how much", cm.methods.kinds.real(above=0))
        >>> Louder(2).strength
        2.0
        >>> try:
        ...     Louder(-1)
        ... except cm.SettingsError as error:
        ...     print(error)
        strength must be a finite number above 0; got -1.
    """
    left_open = default is None if left_open is None else left_open
    known = {"meaning": meaning, "kind": kind, "asked": asked, "open": left_open, "strength": strength}
    return field(default=default, metadata={_KEY: known})


def settings_of(method: type) -> Iterator[Setting]:
    """A method's declared settings in their order; a subclass may give a field another default alone."""
    for each in fields(method):
        known = next((found[_KEY] for found in _declarations(method, each.name) if _KEY in found), None)
        if known is not None:
            default = None if each.default is MISSING else each.default
            yield Setting(each.name, default=default, **known)


def _declarations(method: type, name: str) -> Iterator[Any]:
    for base in method.__mro__:
        found = base.__dict__.get("__dataclass_fields__", {}).get(name)
        if found is not None:
            yield found.metadata
