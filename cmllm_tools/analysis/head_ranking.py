"""Which heads find what a question refers to: what was measured over a set of examples."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..attention.heads import pairs_within
from ..errors import CaptureError, DataError, SettingsError
from ..files import write_whole
from ..notation import layers_text, text_table
from ..shown import Fact, Shown
from ..stored import Reader, array_of, dump_json, finite, items, load_saved, record, text_of, unread, whole
from ..strict import shown, whole_number
from .intervals import FEWEST, says_something, wilson

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
        failed: where each example that failed stands, and why; they are not among the others.

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
    failed: tuple[str, ...] = ()

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
            *([("failed", str(len(self.failed)))] if self.failed else []),
        ]

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the ranking as JSON with a hash of its bytes, whole or not at all; see `files.write_whole`.

        Raises:
            OutputError: when the file cannot be written.
        """
        arrays = ("hits", "lift", "lift_interval")
        data = {MARK: FORMAT, **asdict(self), **{name: getattr(self, name).tolist() for name in arrays}}
        if not self.failed:
            del data["failed"]
        return write_whole(path, lambda file: file.write(dump_json(data)), "It is still in memory.")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "HeadRanking":
        """Reopen a saved ranking; what it holds is checked, its hash too where it has one.

        Raises:
            DataError: for a file that is missing, damaged, or not a ranking.
        """
        with load_saved(path, "A ranking must be a file written by HeadRanking.save", MARK, FORMAT) as data:
            found = record({"failed": []} | data, "a ranking", _FIELDS)
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
    "failed": partial(items, read=text_of),
}


def interval_words(interval: list[float] | None, form: str) -> str:
    """An interval for a table, or that there is none."""
    return "-" if interval is None else f"{interval[0]:{form}} .. {interval[1]:{form}}"
