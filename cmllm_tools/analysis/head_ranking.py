"""Which heads find what a question refers to, measured over a set of examples."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..attention.capture import capture_attention
from ..attention.heads import pairs_within
from ..errors import CaptureError, DataError, SettingsError, carry
from ..files import check_writable, write_whole
from ..models.mllm import Mllm, require
from ..models.prompt import Queries
from ..models.undisturbed import unaffected
from ..notation import layers_text, text_table
from ..progress import progress_bar
from ..referring.energy import checked_sigma
from ..referring.target import Target
from ..shown import Fact, Shown
from ..stored import Reader, array_of, dump_json, finite, items, load_saved, record, text_of, unread, whole
from ..strict import kind_of, shown, whole_number, whole_numbers, whole_seed
from .examples import Example, as_examples
from .intervals import FEWEST, bootstrap, says_something, wilson
from .ranking_file import Found, RankingFile
from .region_shares import on_image

MARK, FORMAT = "cmllm_heads", 1


@dataclass(frozen=True, eq=False, repr=False)
class HeadRanking(Shown):
    """How well each head's raw attention finds the referred object, over a set of examples.

    Args:
        model: its name.
        layers: layer numbers of the arrays' first axis.
        heads: head numbers of the second.
        examples: how many were measured.
        hits: (layer, head), in how many the visual token with the most attention is in the region (pointing game).
        pointing_chance: the fraction of hits that a token drawn at random would have.
        lift: (layer, head), mean share of attention in the region, as a multiple of the share of area.
        lift_interval: (2, layer, head), its 95 % interval by a bootstrap over examples; of few it means nothing, and is
            not shown.

    Examples:
        >>> ranking = cm.analysis.rank_heads(mllm, examples, progress=False)
        >>> ranking.hits.shape
        (6, 6)
        >>> ranking.top(3)  # (layer, head), as heads= takes them
        ((0, 5), (1, 0), (4, 2))
    """

    model: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    examples: int
    hits: np.ndarray
    pointing_chance: float
    lift: np.ndarray
    lift_interval: np.ndarray

    @property
    def pointing(self) -> np.ndarray:
        """(layer, head): fraction of the examples in which the head points at the object."""
        return self.hits / self.examples

    @property
    def pointing_interval(self) -> np.ndarray:
        """(2, layer, head): 95 % interval of `pointing` (Wilson's, right also for none and for all)."""
        return wilson(self.pointing, self.examples)

    @property
    def order(self) -> tuple[tuple[int, int], ...]:
        """All (layer, head) pairs, best first: by hits, and by lift where these are equal."""
        best = np.lexsort((-self.lift.ravel(), -self.hits.ravel()))
        return tuple(
            (self.layers[index // len(self.heads)], self.heads[index % len(self.heads)]) for index in best.tolist()
        )

    def top(self, amount: float) -> tuple[tuple[int, int], ...]:
        """The best (layer, head) pairs, best first, as `heads=` of capture, maps and methods takes them.

        Args:
            amount: a whole number of heads, or a fraction of all in (0, 1): at least one head.

        Raises:
            SettingsError: for an amount out of range.
        """
        if isinstance(amount, float | np.floating) and 0 < amount < 1:
            return self.order[: max(1, round(amount * len(self.order)))]
        what = "The amount must be a fraction in (0, 1) or"
        try:
            return self.order[: whole_number(amount, "The amount", 1, len(self.order))]
        except SettingsError:
            raise SettingsError(f"{what} a whole number in 1..{len(self.order)}; got {shown(amount)}.") from None

    def rows(self, pairs: Iterable[tuple[int, int]]) -> list[dict[str, Any]]:
        """These heads' figures as plain data.

        Raises:
            CaptureError: for what are no (layer, head) pairs, or heads that were not ranked.
        """
        found = []
        wanted, numbers = pairs_within(pairs, None)
        unknown = [pair for pair in wanted or () if pair[0] not in self.layers or pair[1] not in self.heads]
        if numbers or unknown:
            raise CaptureError(f"Rows are of (layer, head) pairs that were ranked; got {shown(unknown or numbers)}.")
        for layer, head in wanted or ():
            at = self.layers.index(layer), self.heads.index(head)
            found.append(
                {
                    "layer": layer,
                    "head": head,
                    "pointing": float(self.pointing[at]),
                    "pointing_ci": self.pointing_interval[:, *at].tolist(),
                    "over_chance": float(self.lift[at]),
                    "over_chance_ci": self._lift_interval(at),
                }
            )
        return found

    def _lift_interval(self, at: tuple[int, int]) -> list[float] | None:
        interval = self.lift_interval[:, *at].tolist()
        return interval if says_something(self.examples, interval) else None

    def table(self, count: int | None = None) -> str:
        """The best heads as a plain-text table; all when None."""
        if count is not None:
            count = whole_number(count, "The number of rows", least=0)
        rows = [["layer", "head", "pointing", "95 % interval", "share over chance", "95 % interval"]]
        for row in self.rows(self.order[:count]):
            low, high = row["pointing_ci"]
            place = [str(row["layer"]), str(row["head"]), f"{row['pointing']:.1%}", f"{low:5.1%} .. {high:6.1%}"]
            rows.append([*place, f"{row['over_chance']:.2f}", interval_words(row["over_chance_ci"], "5.2f")])
        return "\n".join([text_table(rows, ">>><><"), *self._few()])

    def _few(self) -> list[str]:
        """That a bootstrap over these examples says nothing, where it does not."""
        few = f"n = {self.examples}: too few for an interval of the share; that of pointing is Wilson's, right for any n"
        return [few] if self.examples < FEWEST else []

    def facts(self) -> list[Fact]:
        (layer, head), *_ = self.order
        return [
            ("", self.model),
            ("", f"{layers_text(self.layers)} x {len(self.heads)} heads over {self.examples} examples"),
            ("best", f"layer {layer}, head {head}"),
            ("pointing", f"{self.pointing.min():.1%}..{self.pointing.max():.1%}, mean {self.pointing.mean():.1%}"),
            ("by chance", f"{self.pointing_chance:.1%}"),
            *(("", few) for few in self._few()),
        ]

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the ranking as JSON with a hash of its bytes, whole or not at all; see `files.write_whole`.

        Raises:
            OutputError: when the file cannot be written.
        """
        arrays = ("hits", "lift", "lift_interval")
        data = {MARK: FORMAT, **asdict(self), **{name: getattr(self, name).tolist() for name in arrays}}
        return write_whole(path, lambda file: file.write(dump_json(data)), "It is still in memory.")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "HeadRanking":
        """Reopen a saved ranking; what it holds is checked, its hash too where it has one.

        Raises:
            DataError: for a file that is missing, damaged, or not a ranking.
        """
        with load_saved(path, "A ranking must be a file written by HeadRanking.save", MARK, FORMAT) as data:
            found = record(data, "a ranking", _FIELDS)
            shape = len(found["layers"]), len(found["heads"])
            hits = array_of(found["hits"], "its hits", shape)
            lift = array_of(found["lift"], "its lift", shape)
            interval = array_of(found["lift_interval"], "its lift_interval", (2, *shape))
            if (hits % 1).any() or hits.min() < 0 or hits.max() > found["examples"]:
                raise DataError("its hits must be whole numbers, at most as many as its examples")
            return cls(**found | {"hits": hits.astype(int), "lift": lift, "lift_interval": interval})


def _numbers(value: Any, what: str) -> tuple[int, ...]:
    found = items(value, what, partial(whole, least=0, most=1 << 53))
    if not found or len(set(found)) < len(found):
        raise DataError(f"{what} must be one or more numbers that differ; got {shown(value)}.")
    return found


_FIELDS: dict[str, Reader] = {
    "model": text_of,
    "layers": _numbers,
    "heads": _numbers,
    "examples": partial(whole, least=1, most=1 << 53),
    "hits": unread,
    "pointing_chance": partial(finite, least=0, most=1),
    "lift": unread,
    "lift_interval": unread,
}


@unaffected(gradient=False)
def rank_heads(
    mllm: Mllm,
    examples: Iterable[Example],
    queries: Queries | Callable[[Example], Queries] = "text",
    *,
    layers: Iterable[int] | None = None,
    sigma: float = 0.1,
    seed: int = 0,
    path: str | PathLike[str] | None = None,
    progress: bool = True,
) -> HeadRanking:
    """Order heads by how well their raw attention finds the referred object.

    A head points at the object when the visual token that it looks at most has at least half of the weight that any token
    has in the region (pointing game, Zhang et al., arXiv 1608.00507). That a few heads do, and do on new images too, is
    what Kang et al. (arXiv 2503.06287) report for text tokens of several models, without regions to choose the heads by.

    An interrupt returns the ranking over the examples so far, and an error has it in its attribute `ranking`. Takes one
    replay for each example.

    Args:
        mllm: the model.
        examples: image, question and region each.
        queries: whose attention; see `Prompt.positions`. A function of the example where they differ: `answer_words`.
        layers: layer numbers; all that look at visual states when None.
        sigma: width of the Gaussian of scribbles and points.
        seed: of the bootstrap.
        path: file to which what was found of each example is added, and from which it is known again; several rankings of
            the same kind may have one file at once. One that cannot be added to goes on, with a warning.
        progress: show a progress bar.

    Raises:
        DataError: for no examples, or a file of another model, layers or sigma.
        OutputError: when the file cannot be written, before anything is run.
        PromptError: for queries that are not in a question, or stand before the image.
        RegionError: for a region the model does not see.
        SettingsError: for a sigma or a seed out of range.

    Examples:
        >>> ranking = cm.analysis.rank_heads(mllm, examples, "last", progress=False)
        >>> ranking.examples
        2
    """
    require(mllm)
    given = mllm.attention_layers if layers is None else whole_numbers(layers, "the layers", error=CaptureError)
    layers = tuple(sorted(set(given)))
    sigma, seed = checked_sigma(sigma), whole_seed(seed)
    file = None if path is None else RankingFile(check_writable(path), mllm, layers, sigma)
    found: list[Found] = []
    try:
        for example in progress_bar(as_examples(examples), "heads", shown=progress, unit="example"):
            chosen = queries(example) if callable(queries) else queries
            known = None if file is None else file.known(example, chosen)
            found.append(known or _found(mllm, example, chosen, layers, sigma))
            if file is not None and known is None:
                file.add(example, chosen, found[-1])
    except KeyboardInterrupt:
        if not found:
            raise
    except BaseException as error:
        if found:
            so_far = _ranking(mllm, layers, found, seed)
            carry(error, "ranking", so_far, f"The ranking over the {len(found)} examples so far")
        raise
    return _ranking(mllm, layers, found, seed)


def _found(mllm: Mllm, example: Example, queries: Queries, layers: Sequence[int], sigma: float) -> Found:
    prompt = mllm.prepare(example.image, example.question)
    values = capture_attention(mllm, prompt, layers, None, queries).values.mean(2)
    weights = Target.of(prompt.layout, example.region, sigma).weights().to(values)
    inside = weights >= weights.max() / 2
    lift = values @ weights / on_image(values) / weights.mean()
    hits = inside[values.argmax(-1)] & (values.amax(-1) > 0)
    return hits.cpu().numpy(), lift.double().cpu().numpy(), inside.to(values).mean().item()


def _ranking(mllm: Mllm, layers: Sequence[int], found: Sequence[Found], seed: int) -> HeadRanking:
    every_hit, lifts, chances = (np.stack(figures) for figures in zip(*found, strict=True))
    return HeadRanking(
        model=mllm.name,
        layers=tuple(layers),
        heads=tuple(range(every_hit.shape[2])),
        examples=len(found),
        hits=every_hit.sum(0),
        pointing_chance=float(chances.mean()),
        lift=lifts.mean(0),
        lift_interval=bootstrap(lifts, seed),
    )


def interval_words(interval: list[float] | None, form: str) -> str:
    """An interval for a table, or that there is none."""
    return "-" if interval is None else f"{interval[0]:{form}} .. {interval[1]:{form}}"


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
