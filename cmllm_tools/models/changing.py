"""Interventions that change while a model answers: at given tokens, or as a function of what it has said."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError, SettingsError
from ..strict import several, shown, whole_numbers
from .hooks import forwards_replaced, named_arguments
from .interventions import Intervention
from .undisturbed import locked

if TYPE_CHECKING:
    from .mllm import Mllm
    from .prompt import Prompt

# Of the number of the token that is about to be said, from 0, and the text so far.
Choose = Callable[[int, str], Intervention | None]


@dataclass(frozen=True, eq=False)
class Changing(Intervention):
    """One intervention after another, each from a token of the answer on.

    Args:
        parts: one or more; None for a part of the answer where nothing is done.
        since: the number of the answer's token, the first is 0, that each begins with; rising from 0.
        contrast: how the whole answer is decoded against the one without; the parts have none.

    Raises:
        SettingsError: for other numbers than parts, and a part that cannot begin or end while an answer goes on.

    Examples:
        >>> edit = cm.methods.AttentionEdit(3).intervention(mllm, prompt, (box,))
        >>> print(mllm.generate(prompt, cm.Changing((edit, None), (0, 1))))
        red cross at the right
    """

    parts: tuple[Intervention | None, ...]
    since: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        since = whole_numbers(self.since, "since, when each part begins,", 0)
        parts = several(self.parts, "Parts must be several interventions, one after another")
        if not parts or len(since) != len(parts) or since[0] != 0 or list(since) != sorted(set(since)):
            raise SettingsError(
                f"{len(parts)} parts need as many rising token numbers from 0 on; got since={shown(since)}."
            )
        for part in parts:
            check_part(part)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "since", since)

    def opened(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> AbstractContextManager[None]:
        return self._opened(mllm, prompt, copies)

    @contextmanager
    def _opened(self, mllm: "Mllm", prompt: "Prompt", copies: int) -> Iterator[None]:
        with ExitStack() as stack:
            for part, first, last in zip(self.parts, self.since, [*self.since[1:], None], strict=True):
                if part is not None:
                    stack.enter_context(part.during(first, last).opened(mllm, prompt, copies))
            yield


@dataclass(frozen=True, eq=False)
class ChosenBy(Intervention):
    """An intervention for each token of the answer, chosen by a function when the token is about to be said.

    A function cannot be saved: `schedule` gives what it chose for an answer as a `Changing`, which can.

    Args:
        choose: of the token's number, from 0, and the answer's text so far, stripped; gives an intervention or None. It is
            asked once for each token, in their order. Give the same object for tokens that are steered alike.
        contrast: how the whole answer is decoded against the one without; what is chosen has none.

    Raises:
        SettingsError: for what is no function.

    Examples:
        >>> edit = cm.methods.AttentionEdit(3).intervention(mllm, prompt, (box,))
        >>> first_word = cm.ChosenBy(lambda number, text: None if text else edit)
        >>> answer = mllm.generate(prompt, first_word)
        >>> first_word.schedule(mllm, answer.ids).since
        (0, 1)
    """

    choose: Choose = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.choose):
            raise SettingsError(
                f"What chooses an intervention must be a function of (token number, text so far); got {shown(self.choose)}."
            )

    def schedule(self, mllm: "Mllm", ids: "tuple[int, ...] | list[int]") -> Changing:
        """What is chosen for an answer of these tokens (`answer.ids`).

        Raises:
            SettingsError: for something else than interventions that may change.
        """
        chosen: list[Intervention | None] = []
        for number in range(max(len(ids), 1)):
            chosen.append(self._chosen(mllm, list(ids[:number])))
        return _changing(chosen, self.contrast)

    def opened(self, mllm: "Mllm", prompt: "Prompt", copies: int = 1) -> AbstractContextManager[None]:
        if prompt.answered:
            return self.read(mllm, prompt).opened(mllm, prompt, copies)
        if mllm.model.config.is_encoder_decoder:
            raise CaptureError(
                f"What steers can be chosen token by token where the answer follows the prompt; in {mllm.family.name} it "
                "does not. Give one intervention."
            )
        return forwards_replaced([mllm.model], _Choosing(self, mllm, prompt, copies).forward)

    def read(self, mllm: "Mllm", prompt: "Prompt") -> Changing:
        """What is chosen where all tokens are read at once: for those of a prompt's answer, or the first to come."""
        ids = prompt.inputs["input_ids"][0].tolist()
        return self.schedule(mllm, ids[len(ids) - prompt.answered :])

    def _chosen(self, mllm: "Mllm", ids: list[int]) -> Intervention | None:
        with locked(mllm.processor.tokenizer):
            text = str(mllm.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip() if ids else ""
        found = self.choose(len(ids), text)
        check_part(found)
        return found


class _Choosing:
    """Opens what is chosen for the tokens so far, for each forward of one answer."""

    def __init__(self, chosen_by: ChosenBy, mllm: "Mllm", prompt: "Prompt", copies: int):
        self.chosen_by, self.mllm, self.prompt, self.copies = chosen_by, mllm, prompt, copies
        self.ids: list[int] = []
        self.chosen: list[Intervention | None] = []

    def forward(self, module: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            self._read(named_arguments(module, given, named).get("input_ids"))
            self.chosen.append(self.chosen_by._chosen(self.mllm, self.ids))
            # As many tokens as there are by now, so that places in the sequence are counted right.
            said = ("",) * len(self.ids)
            longer = replace(self.prompt, tokens=self.prompt.tokens + said, answered=len(said))
            with _changing(self.chosen, None).opened(self.mllm, longer, self.copies):
                return forward(*given, **named)

        return called

    def _read(self, ids: Any) -> None:
        """Take up the tokens that are new: the last one, or all, where they come again."""
        if ids is None or len(ids) != self.copies:
            raise SettingsError(
                "What steers can be chosen token by token for one answer that is told in tokens: leave out num_beams, and "
                f"use a family whose answers are (see `cmllm families`); got {0 if ids is None else len(ids)} rows."
            )
        length = self.prompt.inputs["input_ids"].shape[1]
        row = ids[0].tolist()
        self.ids = row[length:] if len(row) >= length else [*self.ids, *row]


def check_part(part: Any) -> None:
    """Refuse what cannot begin or end while an answer goes on.

    Raises:
        SettingsError: naming it.
    """
    if part is None:
        return
    if not isinstance(part, Intervention):
        raise SettingsError(f"What steers a part of an answer must be an Intervention, or None; got {shown(part)}.")
    if part.contrast is not None:
        raise SettingsError(
            f"An answer is decoded in one way from its beginning: give the contrast of {type(part).__name__} to the whole, "
            "as Changing(..., contrast=...)."
        )
    part.during(0, None)


def _changing(chosen: list[Intervention | None], contrast: Any) -> Changing:
    """Of an intervention for each token, the runs of one."""
    begins = [number for number, part in enumerate(chosen) if number == 0 or part is not chosen[number - 1]]
    return Changing(tuple(chosen[number] for number in begins), tuple(begins), contrast=contrast)
