"""Where a result comes from: which model, which libraries, which seed."""

import platform
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from ..version import VERSION

LIBRARIES = ("torch", "transformers", "numpy")


@dataclass(frozen=True)
class Provenance:
    """What is to be known to make a result again.

    Args:
        model: name, revision, class, dtype and attention implementation.
        versions: of Python and the libraries.
        seed: torch's, at the start of the run.
    """

    model: dict[str, str | None]
    versions: dict[str, str]
    seed: int

    @classmethod
    def of(cls, mllm: Any) -> "Provenance":
        """Of what an `Mllm` is about to do."""
        model = {
            "name": mllm.name,
            "revision": mllm.revision,
            "class": type(mllm.model).__name__,
            "dtype": str(mllm.model.dtype),
            "attention": next(iter(mllm.attention_modules)).config._attn_implementation,
        }
        versions = {"cmllm_tools": VERSION, "python": platform.python_version(), **_library_versions()}
        return cls(model, versions, torch.initial_seed())


@cache
def _library_versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}
