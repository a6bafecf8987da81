"""Hooks and forwards put on a model for one thread only: calls of it in other threads go on as if they were not there."""

import threading
from collections.abc import Callable, Iterable, Iterator
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


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that leaves alone what the user's own code makes of the model in other threads meanwhile."""
    thread = threading.get_ident()

    @wraps(hook)
    def heard(*given: Any) -> Any:
        return hook(*given) if threading.get_ident() == thread else None

    return heard


@restoring
def forwards_replaced(modules: Iterable[Any], by: Callable[[Any, Callable], Callable]) -> Iterator[None]:
    """While open, this thread calls `by(module, forward)` in place of each module's own forward."""
    thread = threading.get_ident()
    own = {module: vars(module).get("forward") for module in modules}

    def replaced(module: Any) -> Callable[..., Any]:
        forward = module.forward
        other = by(module, forward)

        @wraps(forward)
        def called(*given: Any, **named: Any) -> Any:
            return (other if threading.get_ident() == thread else forward)(*given, **named)

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
