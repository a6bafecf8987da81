"""Which window of layers, and which context token, to steer with: each choice tried on a set of examples."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from ..attention.memory import estimate_memory
from ..data.dataset import Dataset
from ..data.lines import Row
from ..errors import DataError, SettingsError
from ..inputs.regions import as_regions
from ..models.batch import MAX_COPIES, Copies
from ..models.latent import LatentAdded
from ..models.mllm import Mllm
from ..models.prompt import Prompt, Queries
from ..models.scoring import OWN_TOKENS, AnswerScore
from ..models.undisturbed import unaffected
from ..referring.kinds import read_window
from ..referring.latent_method import LatentMethod, given_latent_method
from ..referring.loop import steer_together
from ..referring.methods.controlmllm import ControlMLLMPlus
from ..running.cluster import Workers
from ..running.drive import run
from ..running.task import Key, Task, Tick, Work, found_of
from ..strict import several, shown, whole_number
from .choices import FIGURES, Choice
from .example_lines import Found, first_line, is_whole, keys_of, opened
from .examples import Example, as_set
from .sweep import Sweep
from .sweep_file import differing, measured, read_sweep

# Share of the free memory that a batch may take.
MEMORY = 0.5

Window = tuple[int, int]


def sweep_windows(
    mllm: Mllm | Workers,
    examples: Iterable[Example],
    windows: Sequence[Window] | Literal["all"] | int = "all",
    contexts: Sequence[Queries] = ("text", "last"),
    method: LatentMethod | None = None,
    *,
    max_copies: int | None = None,
    path: str | PathLike[str] | None = None,
    strict: bool = False,
    retry: bool = False,
    progress: bool = True,
) -> Sweep:
    """Optimise with each window of layers and each context token on every example, and measure what comes of it.

    Choices run together, one to a copy of the prompt in a batch, with the results of runs one by one. An example that fails
    is recorded with its reason, and the sweep goes on; where all fail, the first one's error is raised. An interrupt
    returns what is known of the examples that are done.

    Args:
        mllm: the model, or `cm.evaluation.Workers` that load one each.
        examples: with `answer`, where the answers' figures are wanted; with `alternatives`, where it is to be known which
            one the model prefers.
        windows: of layers [a, b); "all" of them; or how many layers each has, which stand beside one another, and all
            layers together.
        contexts: which tokens make up the context token; see `Prompt.positions`.
        method: its other settings; `ControlMLLMPlus()` when None.
        max_copies: runs in one batch. When None, as many as half of the free memory holds, up to 16; one where the
            family's batches are not kept apart.
        path: file to which each example is added when it was measured; examples that it holds already are not run again.
            Files of parts of a set are put together by `cm.evaluation.merge`.
        strict: whether an example that fails ends the sweep.
        retry: whether examples that are recorded as failed are tried again.
        progress: show a bar.

    Any error that ends a sweep has what is known in its attribute `sweep`.

    Raises:
        SettingsError: for a window or a setting out of range, and a method that moves something else than visual tokens.
        CaptureError: for a window without any of the method's (layer, head) pairs.
        OutputError: when the file cannot be written, or another process writes it, before anything is run. On a disk that
            becomes full the sweep goes on with a warning, and ends with this error where that did not help.
        DataError: for no examples, or a file of another sweep.
        CmllmError: what an example failed with, where `strict`.

    Examples:
        >>> sweep = cm.analysis.sweep_windows(
        ...     mllm, examples, [(0, 3), (0, 6)], ["last"], method=cm.ControlMLLMPlus(steps=2), progress=False
        ... )
        >>> sweep.choices
        (Choice(layers=(0, 3), queries='last'), Choice(layers=(0, 6), queries='last'))
    """
    max_copies = None if max_copies is None else _checked_copies(max_copies)
    method = given_latent_method(method, ControlMLLMPlus())
    task = Windows(_read(windows), _several(contexts), method, max_copies)
    return run(task, mllm, as_set(examples), path=path, strict=strict, retry=retry, progress=progress)


@dataclass(frozen=True)
class Windows(Task[Found, Sweep]):
    """Every example steered with every choice, as `sweep_windows` has them."""

    gives: ClassVar[str] = "sweep"
    unit: ClassVar[str] = "run"

    windows: Sequence[Window] | str | int
    contexts: tuple[Queries, ...]
    method: LatentMethod
    max_copies: int | None

    def keys(self, dataset: Dataset) -> list[list[Key]]:
        return [[key] for key in keys_of(dataset)]

    def start(self, mllm: Mllm) -> "Sweeping":
        return Sweeping(self, mllm)

    def kept(self, path: str | PathLike[str], shared: Sweep) -> tuple[dict[Key, Found], bool]:
        before, lines = read_sweep(path)
        if before is None:
            return {}, False
        if what := differing(before, shared):
            raise DataError(
                f"A sweep is resumed from a file of the same {what}; got {_said(before, what)}, and now "
                f"{_said(shared, what)}. Give another path."
            )
        left = set(before.missing())
        whole: dict[Key, Found] = {
            example: Found(example, {"values": before.values[:, :, number]})
            for number, example in enumerate(before.examples)
            if number not in left
        }
        return whole | lines, True

    def is_whole(self, line: bytes) -> bool:
        return is_whole(line)

    def first_line(self, shared: Sweep) -> bytes:
        return first_line(shared.head())

    def parts(self, shared: Sweep) -> int:
        return len(shared.choices)

    def of_line(self, line: bytes, shared: Sweep) -> Found:
        return measured(Found.of_line(opened(line)), shared)

    def failed(self, shared: Sweep, row: Row, key: Key, error: dict[str, str]) -> Found:
        return Found(str(key), {}, row.where, error)

    def result(
        self, shared: Sweep, keys: Sequence[Key], records: Sequence[Found], path: Path | None, complete: bool
    ) -> Sweep:
        found_of(records, complete)
        failed = {each.key for each in records if each.error is not None}
        wanted = [key for key in keys if key not in failed]
        return Sweep.empty(shared.model, shared.method, shared.choices, wanted).with_found(records)


class Sweeping(Work[Found, Sweep]):
    """A model with the choices of a sweep.

    Raises:
        SettingsError, CaptureError: for windows and a method that do not fit it.
    """

    def __init__(self, task: Windows, mllm: Mllm):
        method = task.method.resolve(mllm)
        if not isinstance(method.done(torch.zeros(1, 1)), LatentAdded):
            raise SettingsError(
                f"A sweep scores answers with latents on the visual tokens, and {type(method).__name__} moves something "
                "else. Sweep with ControlMLLMPlus(), or compare optimize(...) with each window."
            )
        self.task: Windows = task
        self.mllm = mllm
        self.shared = Sweep.empty(mllm.name, method, _choices(mllm, method, task.windows, task.contexts), ())
        self._fitting: Callable[[Prompt], int] | None = None

    @unaffected(gradient=False)
    def record(self, example: Example, key: Key, tick: Tick) -> Found:
        """The figures of one example."""
        prompt = self.mllm.prepare(example.image, example.question)
        if self.task.max_copies is None and self._fitting is None:
            self._fitting = _copies_that_fit(self.mllm, prompt)
        most = self._fitting(prompt) if self._fitting else self.task.max_copies or 1
        return Found(str(key), {"values": _measured(self.mllm, prompt, example, self.shared, most, tick)})


def _said(sweep: Sweep, what: str) -> str:
    if what == "choices":
        return f"{len(sweep.choices)} choices, {sweep.choices[0]} to {sweep.choices[-1]}"
    return repr(getattr(sweep, what))


def _choices(
    mllm: Mllm, method: LatentMethod, windows: Sequence[Window] | str | int, contexts: Sequence[Queries]
) -> list[Choice]:
    layers = mllm.attention_layers
    if isinstance(windows, str):
        # Where not every layer looks at visual states, windows that take in the same ones are one.
        chosen: Sequence[Window] = [(low, high + 1) for index, low in enumerate(layers) for high in layers[index:]]
    elif isinstance(windows, int):
        parts = [layers[first : first + windows] for first in range(0, len(layers), windows)]
        chosen = [(part[0], part[-1] + 1) for part in (*parts, layers)]
    else:
        chosen = windows
    for window in chosen:
        replace(method, layers=window).resolve(mllm)
    return list(dict.fromkeys(Choice(window, context) for context in contexts for window in chosen))


def _several(contexts: object) -> tuple[Queries, ...]:
    needs = "contexts must be a sequence of one or more context tokens"
    found: tuple[Queries, ...] = several(contexts, needs)
    if not found:
        raise SettingsError(f"{needs}; got {shown(contexts)}.")
    return found


def _checked_copies(max_copies: int) -> int:
    try:
        return whole_number(max_copies, "max_copies", least=1)
    except SettingsError:
        raise SettingsError(
            f"max_copies must be at least 1, or None for as many as fit; got {shown(max_copies)}."
        ) from None


def _read(windows: object) -> Sequence[Window] | str | int:
    if isinstance(windows, str) and windows == "all":
        return windows
    if isinstance(windows, Integral):
        return whole_number(windows, "windows, as how many layers each has,", least=1)
    found = [read_window(each, "windows") for each in several(windows, "windows must be 'all' or a sequence of (a, b)")]
    if not found:
        raise SettingsError("At least one window of layers is needed; got none.")
    if () in found:
        raise SettingsError("Each of windows must be (a, b), and (0, the model's layers) for all layers; got ().")
    return [(low, high) for low, high in found]


def _measured(mllm: Mllm, prompt: Prompt, example: Example, sweep: Sweep, max_copies: int, tick: Tick) -> np.ndarray:
    """(figure, choice) of one example."""
    method = sweep.method
    target = method.target(prompt.layout, as_regions(example.region))
    scores, plain = _candidates(mllm, prompt, example)
    figures = np.full((len(FIGURES), len(sweep.choices)), np.nan)
    batches = Copies(mllm, prompt)
    for part in _parts(sweep.choices, max_copies):
        started = time.perf_counter()
        methods = [
            replace(method, layers=sweep.choices[index].layers, queries=sweep.choices[index].queries) for index in part
        ]
        ends = steer_together(mllm, batches.of(len(part)), target, methods)
        answers = _answer_figures(scores, plain, ends.latent, len({example.answer, *example.alternatives}))
        seconds = torch.full((1, len(part)), (time.perf_counter() - started) / len(part))
        figures[:, part] = torch.cat([ends.energy, ends.share, answers, seconds]).numpy()
        tick(len(part))
    return figures


def _parts(choices: Sequence[Choice], max_copies: int) -> Iterator[list[int]]:
    """Numbers of the choices that run together: windows that end together, as the forward stops with them."""
    for end in sorted({choice.layers[1] for choice in choices}):
        alike = [index for index, choice in enumerate(choices) if choice.layers[1] == end]
        count = -(-len(alike) // max_copies)
        yield from (alike[start::count] for start in range(count))


def _candidates(mllm: Mllm, prompt: Prompt, example: Example) -> tuple[list[AnswerScore], torch.Tensor]:
    """Scores of the answers that make sense, the right one first, and what each of them is unsteered."""
    if example.answer is None:
        return [], torch.empty(0)
    # All of a long answer would take memory for every copy and word of the vocabulary.
    own = mllm.generate(prompt, max_new_tokens=OWN_TOKENS)
    texts = [example.answer, *example.alternatives]
    # The model's own answer is one that makes sense, unless it is one of these with more or fewer words: as scores end with
    # the text, the shorter one would be likelier whatever is meant.
    if own and not any(own.startswith(text) or text.startswith(own) for text in texts):
        texts.append(own)
    scores = [AnswerScore(mllm, prompt, text) for text in dict.fromkeys(texts)]
    zero = prompt.zero_latent().detach()[None]
    return scores, torch.cat([score(zero).cpu() for score in scores])


def _answer_figures(scores: list[AnswerScore], plain: torch.Tensor, latents: torch.Tensor, named: int) -> torch.Tensor:
    """(moved, damage, right) x run."""
    if not scores:
        return torch.full((3, len(latents)), torch.nan)
    steered = torch.stack([score(latents, finite=False).cpu() for score in scores])
    moved = steered[0] - plain[0]
    damage = plain.logsumexp(0) - steered.logsumexp(0)
    # Among the answers that were given: the model's own wording of the right one may be likelier than the right one.
    right = (steered[0] >= steered[:named].amax(0)).float() if named > 1 else torch.full_like(moved, torch.nan)
    return torch.stack([moved, damage, right])


def _copies_that_fit(mllm: Mllm, prompt: Prompt) -> Callable[[Prompt], int]:
    """How many copies of any prompt fit, reckoned from what a step of this one takes: memory grows with the states."""
    if not mllm.family.batch:
        return lambda _: 1
    need = estimate_memory(mllm, prompt)
    step = need.checkpointed if need.checkpointing else need.step
    fit = MEMORY * need.free * prompt.call.states.numel() / max(step, 1)
    return lambda other: int(min(max(fit / other.call.states.numel(), 1), MAX_COPIES))
