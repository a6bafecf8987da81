"""Hooks and forwards put on a model for one use of it: calls in other threads, or in a use within, do not meet them."""

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from functools import wraps
from typing import Any

from .interrupts import restoring


def modules_of(model: Any) -> list[Any]:
    """The model and all modules within it, which every use goes through: in a quarter of the time of `model.modules()`."""
    found, seen = [model], {id(model)}
    for module in found:
        for inner in module._modules.values():
            if inner is not None and id(inner) not in seen:
                seen.add(id(inner))
                found.append(inner)
    return found


class _Depth(threading.local):
    """How many uses of a model are open in a thread, one within the other."""

    count = 0


_DEPTH = _Depth()


@contextmanager
def another_use() -> Iterator[None]:
    """While open, hooks that were made before are not heard: a logits processor, say, may capture or answer itself."""
    _DEPTH.count += 1
    try:
        yield
    finally:
        _DEPTH.count -= 1


def this_use() -> tuple[int, int]:
    """What tells the use of a model that is open now from those in other threads, around it and within it."""
    return threading.get_ident(), _DEPTH.count


def in_this_use(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that leaves alone what is made of the model in other threads meanwhile, or in a use within this one."""
    use = this_use()

    @wraps(hook)
    def heard(*given: Any) -> Any:
        return hook(*given) if this_use() == use else None

    return heard


@restoring
def forwards_replaced(
    modules: Iterable[Any], by: Callable[[Any, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """While open, this use calls `by(module, forward)` in place of each module's own forward."""
    use = this_use()
    own = {module: vars(module).get("forward") for module in modules}

    def replaced(module: Any) -> Callable[..., Any]:
        forward = module.forward
        other = by(module, forward)

        @wraps(forward)
        def called(*given: Any, **named: Any) -> Any:
            return (other if this_use() == use else forward)(*given, **named)

        return called

    try:
        for module in own:
            module.forward = replaced(module)
        yield
    finally:
        for module, forward in own.items():
            if forward is None:
                vars(module).pop("forward", None)
            else:
                module.forward = forward


def given_again(before: Mapping[Any, list[Any]]) -> AbstractContextManager[None]:
    """While open, modules give what they gave before, call by call, and compute again once that has run out."""
    left = {module: list(outputs) for module, outputs in before.items()}

    def again(module: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        # A copy, as some models write into what they are given.
        return lambda *values, **named: copy(left[module].pop(0)) if left[module] else forward(*values, **named)

    return forwards_replaced(left, again)


def named_arguments(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """Every argument of a call by name."""
    if not arguments:
        return dict(keywords)
    names = [name for name in inspect.signature(module.forward).parameters if name not in keywords]
    return dict(zip(names, arguments, strict=False)) | keywords
