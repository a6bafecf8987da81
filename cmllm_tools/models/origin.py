"""What a prompt was prepared with: which model, in which state."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from weakref import ref

import torch

from ..errors import PromptError
from .hooks import modules_of

# In so many places each weight is looked at.
_PLACES = 8


class _Known(threading.local):
    """What was found out about models within `looked_once`; None outside."""

    found: dict[tuple[str, int], Any] | None = None


_KNOWN = _Known()


@contextmanager
def looked_once() -> Iterator[None]:
    """While open, this thread looks at a model's weights once: for several checks in a row, between which nothing runs."""
    before, _KNOWN.found = _KNOWN.found, {} if _KNOWN.found is None else _KNOWN.found
    try:
        yield
    finally:
        _KNOWN.found = before


def _once(look: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @wraps(look)
    def known(model: Any) -> Any:
        if _KNOWN.found is None:
            return look(model)
        key = look.__name__, id(model)
        if key not in _KNOWN.found:
            _KNOWN.found[key] = look(model)
        return _KNOWN.found[key]

    return known


class WeightsWarning(UserWarning):
    """A model's weights have changed since a prompt was prepared.

    Examples:
        >>> issubclass(cm.WeightsWarning, UserWarning)
        True
    """


@dataclass(eq=False)
class Origin:
    """The model that prepared a prompt, and its state then.

    Args:
        model: weak reference to the transformers model.
        dtype: of its weights, or several where they differ.
        device: where it takes its inputs.
        weights: mark of its weights; see `weights_mark`.
        told: whether a change of the weights has been warned about.
    """

    model: Any
    dtype: str
    device: torch.device
    weights: int
    told: bool = False

    @classmethod
    def of(cls, mllm: Any) -> "Origin":
        """Of a prompt that `mllm` prepares now."""
        return cls(ref(mllm.model), _dtypes(mllm.model), mllm.device, weights_mark(mllm.model))

    def unchanged(self, mllm: Any) -> bool:
        """Whether it is this model, and as it was then."""
        now = (_dtypes(mllm.model), mllm.device, weights_mark(mllm.model))
        return self.model() is mllm.model and (self.dtype, self.device, self.weights) == now

    def check(self, mllm: Any) -> None:
        """Refuse another model, or one that was moved or cast since; warn once when its weights have changed.

        Raises:
            PromptError: naming what differs.
        """
        if self.model() is not mllm.model:
            raise PromptError(
                f"A prompt must be used with the model that prepared it; {mllm.name} is another one. "
                "Prepare it again with this model."
            )
        for what, then, now in (("dtype", self.dtype, _dtypes(mllm.model)), ("device", self.device, mllm.device)):
            if then != now:
                raise PromptError(
                    f"A prompt must be used with the {what} that its model had when it was prepared, {then}; the model "
                    f"now has {now}. Prepare it again."
                )
        if not self.told and self.weights != weights_mark(mllm.model):
            self.told = True
            warnings.warn(
                f"The weights or adapters of {mllm.name} have changed since this prompt was prepared; its visual states "
                "are those of before. Prepare it again where they depend on what changed.",
                WeightsWarning,
                stacklevel=_outside(),
            )


def _outside() -> int:
    """How many frames up the caller's own code is that uses the package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == __package__.split(".")[0]:
        level, frame = level + 1, frame.f_back
    return level


@_once
def _dtypes(model: Any) -> str:
    """Types of the model's weights, the first one's first."""
    kinds = [
        model.dtype,
        *(each.dtype for module in modules_of(model) for each in module._parameters.values() if each is not None),
    ]
    return ", ".join(map(str, dict.fromkeys(kinds)))


@_once
def weights_mark(model: Any) -> int:
    """A number that changes with a model's weights, and takes some six milliseconds for the 700 of a 7B model.

    It counts where each parameter and saved buffer lies and how often it was written to, which adapters are in use, and
    a few values of each, as writing through `.data` is not counted by torch: what is written so to a few values of a weight
    alone may go unseen. Weights that accelerate brings in from elsewhere are
    not looked at, and quantised ones not at where they lie, as bitsandbytes moves them about.
    """
    marks: list[Any] = []
    plain: list[torch.Tensor] = []
    for module in modules_of(model):
        own = module.__dict__
        if (adapters := own.get("_active_adapter")) is not None:
            marks.append(repr((own.get("_disable_adapters"), adapters, own.get("merged_adapters"), own.get("scaling"))))
        saved = [each for name, each in module._buffers.items() if name not in module._non_persistent_buffers_set]
        for each in [*module._parameters.values(), *saved]:
            if each is None or each.is_meta:
                continue
            # Tensors of inference mode are not counted.
            marks.append(0 if each.is_inference() else each._version)
            if each.is_floating_point() and not hasattr(each, "quant_state"):
                marks.append(each.data_ptr())
                plain.append(each)
    values: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for each in plain:
        count = each.numel()
        if count and each.is_contiguous():
            step = max(1, count // _PLACES)
            places = each.detach().as_strided((-(-count // step),), (step,))
            values.setdefault((each.device, each.dtype), []).append(places)
    marks += [torch.cat(several).float().cpu().numpy().tobytes() for several in values.values()]
    return hash(tuple(marks))
