"""Ways of referring by their names, as `cm.methods.Drawn("ellipse")`, and what a method of your own is made with.

Examples:
    >>> method = cm.methods.AttentionEdit(strength=3)
    >>> print(cm.refer(mllm, scene.image, "describe the object.", box, method).answer)
    red cross at the right
"""

from typing import Any

from .models.interventions import Intervention
from .referring import kinds
from .referring.defaults import published_answer
from .referring.latent_method import LatentMethod
from .referring.method import Method, Request
from .referring.registry import all_methods, register
from .referring.settings import MODEL_DEFAULT, setting
from .referring.updates import Updates

__all__ = [
    "MODEL_DEFAULT",
    "Intervention",
    "LatentMethod",
    "Method",
    "Request",
    "Updates",
    "kinds",
    "published_answer",
    "register",
    "setting",
]


def __getattr__(name: str) -> Any:
    found = all_methods()
    if name not in found:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; the methods are {', '.join(found)}.")
    return found[name]


def __dir__() -> list[str]:
    return sorted({*__all__, *all_methods()})
