"""The one guard around every use of a model: one thread at a time, in the state it needs, given back as it was found."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..errors import UnsupportedModelError
from .hooks import another_use, modules_of
from .interrupts import hear, restoring
from .quantised import differentiable

_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
# How long an interrupt waits, in seconds, while another thread has what this one needs.
_PATIENCE = 0.05

# What a forward of a prompt leaves for the ones that continue it.
_DELTAS = "rope_deltas"

_LOCKS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_LOOKED_UP = threading.Lock()


@restoring
def locked(thing: Any) -> Iterator[None]:
    """While open, other threads that lock the same object wait; the thread that has it may lock it again."""
    with _LOOKED_UP:
        lock = _LOCKS.setdefault(thing, threading.RLock())
    while not lock.acquire(timeout=_PATIENCE):
        hear()
    try:
        yield
    finally:
        lock.release()


@restoring
def unaffected(gradient: bool) -> Iterator[None]:
    """Whatever the caller has open, torch works here with no inference mode, autocast or default device."""
    with ExitStack() as contexts:
        contexts.enter_context(torch.inference_mode(False))
        contexts.enter_context(torch.set_grad_enabled(gradient))
        if torch.get_default_device().type != "cpu":
            contexts.enter_context(torch.device("cpu"))
        for kind in _AUTOCAST:
            if torch.is_autocast_enabled(kind):
                contexts.enter_context(torch.autocast(kind, enabled=False))
        yield


@restoring
def undisturbed(model: nn.Module, gradient: bool = False) -> Iterator[None]:
    """While open, the model is this thread's, in evaluation mode and without gradients to its parameters.

    Each module's and parameter's own flag is put back afterwards. Open it for one forward or answer at a time, and never
    around a backward pass: with gradient checkpointing on a GPU the layers are computed again in autograd's own thread,
    which needs the model too.

    Args:
        model: the transformers model itself, not what is wrapped around it.
        gradient: whether a graph is kept.

    Raises:
        UnsupportedModelError: with `gradient`, for a model that was loaded in inference mode.
    """
    with locked(model), unaffected(gradient):
        modules = modules_of(model)
        training = [module for module in modules if module.training]
        parameters = [each for module in modules for each in module._parameters.values() if each is not None]
        frozen = next((each for each in parameters if each.is_inference()), None)
        if gradient and frozen is not None:
            raise UnsupportedModelError(
                "A model that is to be differentiated must not be loaded within torch.inference_mode(); the weights of "
                f"this {type(model).__name__} were. Load it again outside."
            )
        trainable = [each for each in parameters if each.requires_grad and not each.is_inference()]
        # Of the last prompt, for models with positions of several kinds, whose own next forward takes it.
        deltas = [(module, vars(module)[_DELTAS]) for module in modules if _DELTAS in vars(module)]
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            for module in training:
                module.training = False
            with differentiable(modules, gradient), another_use():
                yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module in training:
                module.training = True
            for module, delta in deltas:
                setattr(module, _DELTAS, delta)
