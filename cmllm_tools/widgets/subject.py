"""What a workbench gives its tabs: what they look into, whether it is still what the panel shows, and how to use it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..inputs.regions import Regions
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..referring.outcome import Outcome
from ..referring.trace import Trace
from .messages import Messages
from .settings import SettingsPanel

# What a tab looks into: the model as it is, or the last run.
BEFORE, AFTER = "before steering", "after"


@dataclass(frozen=True, eq=False)
class Subject:
    """What is looked into.

    Args:
        prompt: image and question.
        regions: to measure the share in; may be none.
        run: the last one on this prompt, None before one.
        outcome: of the last run on this prompt, where its method takes no steps.
    """

    prompt: Prompt
    regions: Regions
    run: Trace | None
    outcome: Outcome | None = None


@dataclass(frozen=True, eq=False)
class Host:
    """The workbench, as its tabs know it.

    Args:
        mllm: the model.
        settings: the fields of the method.
        subject: gives what to look into, when it is asked for.
        state: what the panel shows now, to compare with what was looked into: question, image, regions, and the last run.
        attempt: calls an action, and shows its error in the messages given with it.
        again: calls what uses the prompt, a second time where the model has changed since it was prepared.
        turn: held while the model is used.
    """

    mllm: Mllm
    settings: SettingsPanel
    subject: Callable[[], Subject]
    state: Callable[[], tuple[Any, ...]]
    attempt: Callable[[Callable[[], Any], Messages], None]
    again: Callable[[Callable[[], Any]], Any]
    turn: AbstractContextManager[Any]


class Stale(Messages):
    """Says where what is shown below is of the past.

    Args:
        state: what the panel shows now, to compare with what was looked into.
        button: what renews it, by its name.
    """

    def __init__(self, state: Callable[[], tuple[Any, ...]], button: str):
        super().__init__()
        self._state, self._button = state, button
        self._seen: tuple[Any, ...] | None = None

    def fresh(self) -> None:
        """What is shown is of now."""
        self._seen = self._state()
        self.clear()

    def follow(self) -> bool:
        """Something was set in the panel; whether what is shown is of the past."""
        past = self._seen is not None and self._state() != self._seen
        if past:
            self.say(f"What is shown below is from before the last change of the panel; press {self._button}.")
        else:
            self.clear()
        return past


def state_when(state: tuple[Any, ...], when: str) -> tuple[Any, ...]:
    """A panel's state as a tab depends on it: on the last run, which it ends with, only where one looks after it."""
    *asked, run = state
    return (*asked, run if when == AFTER else None, when)
