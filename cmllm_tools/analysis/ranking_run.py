"""Every head of some layers looked at on every example of a set, as a task of the one runner."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..attention.capture import capture_attention
from ..attention.context_token import existing
from ..data.dataset import Dataset
from ..data.lines import Row
from ..errors import CaptureError, CmllmError, DataError
from ..files import reason, said
from ..models.mllm import Mllm
from ..models.prompt import Queries, as_queries
from ..models.undisturbed import unaffected
from ..referring.energy import checked_sigma
from ..referring.target import Target
from ..running.cluster import Workers
from ..running.drive import run
from ..running.task import Key, Task, Tick, Work, found_of
from ..stored import array_of, record, unread
from ..strict import kind_of, number, shown, whole_numbers, whole_seed
from .example_lines import Found, first_line, head_of, is_head, is_whole, keys_of, opened, read_lines
from .examples import Example, as_set
from .head_ranking import HeadRanking
from .intervals import bootstrap
from .region_shares import on_image

# What a line has of an example: hits and lifts (layer, head), and the hits of chance.
FIGURES = ("hits", "lift", "chance")
_WHAT = "What a ranking goes on from must be a file that one has added to"


def rank_heads(
    mllm: Mllm | Workers,
    examples: Iterable[Example],
    queries: Queries | Callable[[Example], Queries] = "text",
    *,
    layers: Iterable[int] | None = None,
    sigma: float = 0.1,
    seed: int = 0,
    path: str | PathLike[str] | None = None,
    strict: bool = False,
    retry: bool = False,
    progress: bool = True,
) -> HeadRanking:
    """Order heads by how well their raw attention finds the referred object.

    A head points at the object when the visual token that it looks at most has at least half of the weight that any token
    has in the region (pointing game, Zhang et al., arXiv 1608.00507). That a few heads do, and do on new images too, is
    what Kang et al. (arXiv 2503.06287) report for text tokens of several models, without regions to choose the heads by.

    An example that fails is recorded with its reason, and the ranking goes on; where all fail, the first one's error is
    raised. An interrupt returns the ranking over the examples so far, and an error has it in its attribute `ranking`. Takes
    one replay for each example.

    Args:
        mllm: the model, or `cm.evaluation.Workers` that load one each.
        examples: image, question and region each.
        queries: whose attention; see `Prompt.positions`. A function of the example where they differ: `answer_words`.
        layers: layer numbers; all that look at visual states when None.
        sigma: width of the Gaussian of scribbles and points.
        seed: of the bootstrap.
        path: file to which what was found of each example is added, and from which it is known again. Files of parts of a
            set are put together by `cm.evaluation.merge`.
        strict: whether an example that fails ends the ranking.
        retry: whether examples that are recorded as failed are tried again.
        progress: show a progress bar.

    Raises:
        DataError: for no examples, or a file of another model, layers or sigma.
        OutputError: when the file cannot be written, or another process writes it, before anything is run. On a disk that
            becomes full the ranking goes on with a warning, and ends with this error where that did not help.
        CaptureError: for layers that do not exist.
        SettingsError: for a sigma or a seed out of range.
        CmllmError: what an example failed with, where `strict`: queries that are not in a question, or stand before the
            image (`PromptError`), a region the model does not see (`RegionError`).

    Examples:
        >>> ranking = cm.analysis.rank_heads(mllm, examples, "last", progress=False)
        >>> ranking.examples
        2
    """
    if not callable(queries):
        as_queries(queries)
    given = None if layers is None else tuple(sorted(set(whole_numbers(layers, "the layers", error=CaptureError))))
    task = Heads(queries, given, checked_sigma(sigma), whole_seed(seed))
    return run(task, mllm, as_set(examples), path=path, strict=strict, retry=retry, progress=progress)


@dataclass(frozen=True)
class Heads(Task[Found, HeadRanking]):
    """Every head of some layers seen on every example, as `rank_heads` has them."""

    gives: ClassVar[str] = "ranking"
    unit: ClassVar[str] = "example"

    queries: Queries | Callable[[Example], Queries]
    layers: tuple[int, ...] | None
    sigma: float
    seed: int

    def chosen(self, example: Example) -> Queries:
        """Whose attention is looked at."""
        return self.queries(example) if callable(self.queries) else self.queries

    def keys(self, dataset: Dataset) -> list[list[Key]]:
        return [[key] for key in keys_of(dataset, lambda example: repr(as_queries(self.chosen(example))))]

    def start(self, mllm: Mllm) -> "Ranking":
        return Ranking(self, mllm)

    def kept(self, path: str | PathLike[str], shared: dict[str, Any]) -> tuple[dict[Key, Found], bool]:
        lines = read_lines(path, _WHAT)
        if not lines:
            return {}, False
        for head in filter(is_head, lines):
            if head_of(head) != shared:
                raise DataError(
                    f"A ranking goes on from a file of the same model, layers and sigma; {said(path)} has "
                    f"{shown(head_of(head))}. Give another path."
                )
        try:
            found = [Found.of_line(each) for each in lines if not is_head(each)]
            return {each.key: _read(each, shared) for each in found}, is_head(lines[0])
        except CmllmError as error:
            raise DataError(f"{_WHAT}; {said(path)} is none: {reason(error)}") from error

    def is_whole(self, line: bytes) -> bool:
        return is_whole(line)

    def first_line(self, shared: dict[str, Any]) -> bytes:
        return first_line(shared)

    def of_line(self, line: bytes, shared: dict[str, Any]) -> Found:
        return _read(Found.of_line(opened(line)), shared)

    def failed(self, shared: dict[str, Any], row: Row, key: Key, error: dict[str, str]) -> Found:
        return Found(str(key), {}, row.where, error)

    def result(
        self, shared: dict[str, Any], keys: Sequence[Key], records: Sequence[Found], path: Path | None, complete: bool
    ) -> HeadRanking:
        found, failed = found_of(records, complete)
        hits, lifts, chances = (np.stack([each.figures[name] for each in found]) for name in FIGURES)
        return HeadRanking(
            model=shared["ranking of"],
            layers=tuple(shared["layers"]),
            heads=tuple(range(shared["heads"])),
            examples=len(found),
            hits=hits.sum(0),
            pointing_chance=float(chances.mean()),
            lift=lifts.mean(0),
            lift_interval=bootstrap(lifts, self.seed),
            failed=failed,
        )


class Ranking(Work[Found, HeadRanking]):
    """A model whose heads are ranked."""

    def __init__(self, task: Heads, mllm: Mllm):
        layers = mllm.attention_layers if task.layers is None else existing(task.layers, mllm.attention_layers, "Layers")
        self.task: Heads = task
        self.mllm, self.layers = mllm, tuple(layers)
        self.shared = {"ranking of": mllm.name, "layers": list(layers), "heads": mllm.heads, "sigma": task.sigma}

    @unaffected(gradient=False)
    def record(self, example: Example, key: Key, tick: Tick) -> Found:
        """What its heads look at."""
        figures = _found(self.mllm, example, self.task.chosen(example), self.layers, self.task.sigma)
        return Found(str(key), dict(zip(FIGURES, figures, strict=True)))


def _read(line: Found, shared: dict[str, Any]) -> Found:
    """A line with its figures looked into."""
    if line.error is not None:
        return line
    shape = len(shared["layers"]), shared["heads"]
    read = record(dict(line.figures), "an example", dict.fromkeys(FIGURES, unread))
    hits, lift = (array_of(read[name], f"its {name}", shape) for name in ("hits", "lift"))
    return Found(line.key, {"hits": hits.astype(int), "lift": lift, "chance": number(read["chance"], "its chance", 0, 1)})


def _found(
    mllm: Mllm, example: Example, queries: Queries, layers: Sequence[int], sigma: float
) -> tuple[np.ndarray, np.ndarray, float]:
    prompt = mllm.prepare(example.image, example.question)
    values = capture_attention(mllm, prompt, layers, None, queries).values.mean(2)
    weights = Target.of(prompt.layout, example.region, sigma).weights().to(values)
    inside = weights >= weights.max() / 2
    lift = values @ weights / on_image(values) / weights.mean()
    hits = inside[values.argmax(-1)] & (values.amax(-1) > 0)
    return hits.cpu().numpy().astype(int), lift.double().cpu().numpy(), inside.to(values).mean().item()


def answer_words(example: Example) -> str:
    """The words of the question that are the example's answer: "red six" in "Is the object a red six or a blue one?".

    Raises:
        DataError: for what is no example, or one without an answer.

    Examples:
        >>> cm.analysis.answer_words(examples[0])
        'red cross'
    """
    kind_of(example, Example, "What is named must be an analysis.Example(image, question, region, answer)", DataError)
    if not example.answer:
        raise DataError(f"Queries by name need examples with an answer; {example.question!r} has none.")
    return example.answer
