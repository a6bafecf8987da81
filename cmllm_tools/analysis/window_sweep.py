"""Which window of layers, and which context token, to steer with: each choice tried on a set of examples."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch

from ..attention.memory import estimate_memory
from ..errors import OutputError, OutputWarning, SettingsError, carry
from ..files import check_writable
from ..inputs.regions import as_regions
from ..models.batch import MAX_COPIES, Copies
from ..models.latent import LatentAdded
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt, Queries
from ..models.scoring import OWN_TOKENS, AnswerScore
from ..models.undisturbed import unaffected
from ..progress import progress_bar
from ..referring.kinds import read_window
from ..referring.latent_method import LatentMethod, given_latent_method
from ..referring.loop import steer_together
from ..referring.methods.controlmllm import ControlMLLMPlus
from ..strict import shown, whole_number
from .choices import FIGURES, Choice
from .examples import Example, as_examples, digest
from .sweep import Sweep
from .sweep_file import SweepFile

# Share of the free memory that a batch may take.
MEMORY = 0.5

Window = tuple[int, int]


@unaffected(gradient=False)
def sweep_windows(
    mllm: Mllm,
    examples: Iterable[Example],
    windows: Sequence[Window] | Literal["all"] = "all",
    contexts: Sequence[Queries] = ("text", "last"),
    method: LatentMethod | None = None,
    *,
    max_copies: int | None = None,
    path: str | PathLike[str] | None = None,
    progress: bool = True,
) -> Sweep:
    """Optimise with each window of layers and each context token on every example, and measure what comes of it.

    Choices run together, one to a copy of the prompt in a batch, with the results of runs one by one. An interrupt returns
    what is known of the examples that are done.

    Args:
        mllm: the model.
        examples: with `answer`, where the answers' figures are wanted; with `alternatives`, where it is to be known which
            one the model prefers.
        windows: of layers [a, b), or "all" of them.
        contexts: which tokens make up the context token; see `Prompt.positions`.
        method: its other settings; `ControlMLLMPlus()` when None.
        max_copies: runs in one batch. When None, as many as half of the free memory holds, up to 16; one where the
            family's batches are not kept apart.
        path: file to which each example is added when it was measured; examples that it holds already are not run again.
            Several sweeps may have one file at once: each adds what it finds. One that cannot be saved goes on, with a
            warning.
        progress: show a bar.

    Any error that ends a sweep has what is known in its attribute `sweep`.

    Raises:
        SettingsError: for a window or a setting out of range, and a method that moves something else than visual tokens.
        CaptureError: for a window without any of the method's (layer, head) pairs.
        OutputError: when the file cannot be written, before anything is run.
        DataError: for no examples, or a file of another sweep.
        RegionError: for a region that the model does not see.

    Examples:
        >>> sweep = cm.analysis.sweep_windows(
        ...     mllm, examples, [(0, 3), (0, 6)], ["last"], method=cm.ControlMLLMPlus(steps=2), progress=False
        ... )
        >>> sweep.choices
        (Choice(layers=(0, 3), queries='last'), Choice(layers=(0, 6), queries='last'))
    """
    require(mllm)
    several = as_examples(examples)
    method = given_latent_method(method, ControlMLLMPlus()).resolve(mllm)
    if not isinstance(method.done(torch.zeros(1, 1)), LatentAdded):
        raise SettingsError(
            f"A sweep scores answers with latents on the visual tokens, and {type(method).__name__} moves something else. "
            "Sweep with ControlMLLMPlus(), or compare optimize(...) with each window."
        )
    max_copies = None if max_copies is None else _checked_copies(max_copies)
    file = None if path is None else SweepFile(check_writable(path))
    choices = _choices(mllm, method, windows, contexts)
    digests = [digest(example) for example in several]
    given = dict(zip(digests, several, strict=True))
    sweep = Sweep.empty(mllm.name, method, choices, list(given))
    if file is not None:
        sweep = file.joined(sweep)
    # The file keeps examples of other sweeps too, after these; an example may have been given twice.
    wanted = [list(given).index(digest) for digest in digests]
    fitting: Callable[[Prompt], int] | None = None if max_copies is None else lambda prompt: max_copies
    total = len(list(sweep.missing())) * len(choices)
    bar = progress_bar(desc="sweep", shown=progress, total=total, unit="run")
    try:
        for number, example in enumerate(given.values()):
            # Another process may have filled it in meanwhile, through the file.
            if number not in sweep.missing():
                continue
            prompt = mllm.prepare(example.image, example.question)
            fitting = fitting or _copies_that_fit(mllm, prompt)
            sweep = sweep.with_example(number, _measured(mllm, prompt, example, sweep, fitting(prompt), bar))
            if file is not None:
                sweep = _saved(sweep, file)
    except KeyboardInterrupt:
        if not sweep.subset(wanted).done:
            raise
    except BaseException as error:
        if (so_far := sweep.subset(wanted)).done:
            carry(error, "sweep", so_far, f"The sweep so far, {so_far.done} of {len(wanted)} examples,")
        raise
    finally:
        bar.close()
    return sweep.subset(wanted)


def _saved(sweep: Sweep, file: SweepFile) -> Sweep:
    """The sweep with what others found meanwhile; one that cannot be saved goes on, as its results are in memory."""
    try:
        return file.merged(sweep)
    except OutputError as error:
        warnings.warn(f"{error} The sweep goes on, and is saved after the next example.", OutputWarning, stacklevel=3)
        return sweep


def _choices(
    mllm: Mllm, method: LatentMethod, windows: Sequence[Window] | Literal["all"], contexts: Sequence[Queries]
) -> list[Choice]:
    several = () if isinstance(contexts, str | bytes) or not isinstance(contexts, Iterable) else tuple(contexts)
    if not several:
        raise SettingsError(f"contexts must be a sequence of one or more context tokens; got {shown(contexts)}.")
    chosen = _windows(mllm, windows)
    for window in chosen:
        replace(method, layers=window).resolve(mllm)
    return list(dict.fromkeys(Choice(window, context) for context in several for window in chosen))


def _checked_copies(max_copies: int) -> int:
    try:
        return whole_number(max_copies, "max_copies", least=1)
    except SettingsError:
        raise SettingsError(
            f"max_copies must be at least 1, or None for as many as fit; got {shown(max_copies)}."
        ) from None


def _windows(mllm: Mllm, windows: Sequence[Window] | Literal["all"]) -> list[Window]:
    layers = mllm.attention_layers
    if isinstance(windows, str):
        if windows != "all":
            raise SettingsError(f"windows must be 'all' or a sequence of (a, b); got {windows!r}.")
        # Where not every layer looks at visual states, windows that take in the same ones are one.
        return [(low, high + 1) for index, low in enumerate(layers) for high in layers[index:]]
    if not isinstance(windows, Iterable):
        raise SettingsError(f"windows must be 'all' or a sequence of (a, b); got {shown(windows)}.")
    several = [read_window(window, "windows") for window in windows]
    if not several:
        raise SettingsError("At least one window of layers is needed; got none.")
    if () in several:
        raise SettingsError(f"Each of windows must be (a, b), and (0, {mllm.layers}) for all layers; got ().")
    return [(low, high) for low, high in several]


def _measured(mllm: Mllm, prompt: Prompt, example: Example, sweep: Sweep, max_copies: int, bar: Any) -> np.ndarray:
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
        bar.update(len(part))
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
