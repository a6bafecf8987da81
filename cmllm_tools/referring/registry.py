"""Which methods there are: those in `methods/`, those that installed packages declare, and those registered by hand."""

import warnings
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from ..errors import SettingsError
from ..stored import as_tuple
from ..strict import register_class, shown
from .method import Method

# By the class's name.
METHODS: dict[str, type[Method]] = {}
# Other packages declare modules, or classes, that register methods under this name in their pyproject.toml.
GROUP = "cmllm_tools.methods"
Kind = TypeVar("Kind", bound=type[Method])


def register(method: Kind) -> Kind:
    """Make a method known by its name, to the command line, the workbench, saved files and documents; a decorator, too.

    Raises:
        SettingsError: for what is no subclass of `Method`, or a name that another method has.

    Examples:
        >>> from dataclasses import dataclass, replace
        >>> @cm.methods.register
        ... @dataclass(frozen=True)
        ... class Whispered(cm.Method):
        ...     "Says in words where the middle of the region is."
        ...
        ...     def sent(self, request, mllm):
        ...         x0, y0, x1, y1 = request.regions[0].bounds
        ...         return replace(request, question=f"{request.question} Look at {(x0 + x1) // 2}, {(y0 + y1) // 2}.")
        >>> cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.Whispered()).sent.question
        'describe the object. Look at 169, 103.'
    """
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise SettingsError(f"A method must be a subclass of Method; got {shown(method)}.")
    register_class(METHODS, method.__name__, method, "A method")
    return method


def all_methods() -> dict[str, type[Method]]:
    """Every method by its class's name, those of installed packages among them."""
    from . import methods  # noqa: F401

    _load_installed()
    return METHODS


@cache
def _load_installed() -> None:
    for declared in entry_points(group=GROUP):
        try:
            declared.load()
        except Exception as error:
            # Another package's fault must not close this one's files.
            warnings.warn(f"The method {declared.name} of {declared.value} is left out: {error!r}.", stacklevel=3)


def method_from_json(data: dict[str, Any]) -> Method:
    """The method that `to_json` described.

    Raises:
        SettingsError: for a name that is not known, or a setting that does not exist or is out of range.
    """
    if not isinstance(data, dict):
        raise SettingsError(f"A method must be described by its name and settings; got {shown(data)}.")
    settings, known = dict(data), all_methods()
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in known:
        raise SettingsError(
            f"A method must be one of {', '.join(known)}; got {shown(name)}. "
            "A class of your own is made known by cmllm_tools.methods.register."
        )
    if unknown := set(settings) - known[name].names():
        raise SettingsError(f"{name} has the settings {sorted(known[name].names())}; got {sorted(unknown)} too.")
    return known[name](**{key: as_tuple(value) for key, value in settings.items()})
