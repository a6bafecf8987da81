"""Which heads find what a question refers to, measured over a set of examples."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..attention import capture_attention
from ..display import Fact, Html, bar, card, one_line, table
from ..energy import Target
from ..errors import DataError, SettingsError
from ..models.mllm import Mllm
from ..models.prompt import Queries
from ..notation import layers_text
from ..progress import progress_bar
from .examples import Example, as_examples
from .intervals import bootstrap, wilson
from .layers import ROWS, head_picture, on_image

FORMAT = 1


@dataclass(frozen=True, eq=False)
class HeadRanking:
    """How well each head's raw attention finds the referred object, over a set of examples.

    Args:
        model: its name.
        layers: layer numbers of the arrays' first axis.
        heads: head numbers of the second.
        examples: how many were measured.
        hits: (layer, head), in how many the visual token with the most attention is in the region (pointing game).
        pointing_chance: the fraction of hits that a token drawn at random would have.
        lift: (layer, head), mean share of attention in the region, as a multiple of the share of area.
        lift_interval: (2, layer, head), its 95 % interval by a bootstrap over examples.
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
        count = max(1, round(amount * len(self.order))) if isinstance(amount, float) and 0 < amount < 1 else amount
        if not isinstance(count, int) or not 1 <= count <= len(self.order):
            raise SettingsError(
                f"The amount must be a fraction in (0, 1) or a whole number in 1..{len(self.order)}; got {amount!r}."
            )
        return self.order[:count]

    def rows(self, pairs: Iterable[tuple[int, int]]) -> list[dict[str, Any]]:
        """These heads' figures as plain data."""
        found = []
        for layer, head in pairs:
            at = self.layers.index(layer), self.heads.index(head)
            found.append(
                {
                    "layer": layer,
                    "head": head,
                    "pointing": float(self.pointing[at]),
                    "pointing_ci": self.pointing_interval[:, *at].tolist(),
                    "over_chance": float(self.lift[at]),
                    "over_chance_ci": self.lift_interval[:, *at].tolist(),
                }
            )
        return found

    def table(self, count: int | None = None) -> str:
        """The best heads as a plain-text table; all when None."""
        lines = ["layer  head  pointing  95 % interval   share over chance  95 % interval"]
        for row in self.rows(self.order[:count]):
            (low, high), (least, most) = row["pointing_ci"], row["over_chance_ci"]
            lines.append(
                f"{row['layer']:5d}  {row['head']:4d}  {row['pointing']:8.1%}  {low:5.1%} .. {high:6.1%}  "
                f"{row['over_chance']:17.2f}  {least:5.2f} .. {most:5.2f}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return one_line("HeadRanking", self._facts())

    def _repr_html_(self) -> str:
        rows = [
            [
                row["layer"],
                row["head"],
                f"{row['pointing']:.1%}",
                bar(row["pointing"]),
                "{:.1%} .. {:.1%}".format(*row["pointing_ci"]),
                f"{row['over_chance']:.2f}",
                "{:.2f} .. {:.2f}".format(*row["over_chance_ci"]),
            ]
            for row in self.rows(self.order[:ROWS])
        ]
        head = ["layer", "head", "pointing", Html("at the object"), "95 % interval", "share over chance", "95 % interval"]
        grid = head_picture(self.pointing, self.layers, self.heads, "at the object")
        return card("HeadRanking", self._facts(), grid, below=table(head, rows))

    def _facts(self) -> list[Fact]:
        (layer, head), *_ = self.order
        return [
            ("", self.model),
            ("", f"{layers_text(self.layers)} x {len(self.heads)} heads over {self.examples} examples"),
            ("best", f"layer {layer}, head {head}"),
            ("pointing", f"{self.pointing.min():.1%}..{self.pointing.max():.1%}, mean {self.pointing.mean():.1%}"),
            ("by chance", f"{self.pointing_chance:.1%}"),
        ]

    def save(self, path: str | PathLike) -> Path:
        """Write the ranking as JSON.

        Raises:
            DataError: when the file cannot be written.
        """
        arrays = ("hits", "lift", "lift_interval")
        data = asdict(self) | {name: getattr(self, name).tolist() for name in arrays}
        path = Path(path).expanduser()
        try:
            path.write_text(json.dumps({"cmllm_heads": FORMAT, **data}), encoding="utf-8")
        except OSError as error:
            raise DataError(f"The ranking cannot be written to {path}: {error}. It is still in memory.") from error
        return path

    @classmethod
    def load(cls, path: str | PathLike) -> "HeadRanking":
        """Reopen a saved ranking.

        Raises:
            DataError: for a file that is missing, damaged, or not a ranking.
        """
        try:
            data = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
            if data.pop("cmllm_heads") != FORMAT:
                raise ValueError("it is of another format")
            shape = len(data["layers"]), len(data["heads"])
            return cls(
                model=str(data["model"]),
                layers=tuple(map(int, data["layers"])),
                heads=tuple(map(int, data["heads"])),
                examples=int(data["examples"]),
                hits=np.asarray(data["hits"], int).reshape(shape),
                pointing_chance=float(data["pointing_chance"]),
                lift=np.asarray(data["lift"], float).reshape(shape),
                lift_interval=np.asarray(data["lift_interval"], float).reshape(2, *shape),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"A ranking must be a file written by HeadRanking.save; {path} is not: {error}") from error


def rank_heads(
    mllm: Mllm,
    examples: Iterable[Example],
    queries: Queries | Callable[[Example], Queries] = "text",
    *,
    layers: Iterable[int] | None = None,
    sigma: float = 0.1,
    seed: int = 0,
) -> HeadRanking:
    """Order heads by how well their raw attention finds the referred object.

    A head points at the object when the visual token that it looks at most has at least half of the weight that any token
    has in the region (pointing game, Zhang et al., arXiv 1608.00507). That a few heads do, and do on new images too, is
    what Kang et al. (arXiv 2503.06287) report for text tokens of several models, without regions to choose the heads by.

    An interrupt returns the ranking over the examples so far. Takes one replay for each example.

    Args:
        mllm: the model.
        examples: image, question and region each.
        queries: whose attention; see `Prompt.positions`. A function of the example where they differ, `named` for one.
        layers: layer numbers; all that look at visual states when None.
        sigma: width of the Gaussian of scribbles and points.
        seed: of the bootstrap.

    Raises:
        DataError: for no examples.
        PromptError: for queries that are not in a question.
        RegionError: for a region the model does not see.
    """
    layers = list(mllm.attention_layers if layers is None else layers)
    # Hits and lifts (layer, head), and the hits of chance, of each example.
    found: list[tuple[np.ndarray, np.ndarray, float]] = []
    try:
        for example in progress_bar(as_examples(examples), "heads", unit="example"):
            prompt = mllm.prepare(example.image, example.question)
            chosen = queries(example) if callable(queries) else queries
            attention = capture_attention(mllm, prompt, layers, None, chosen)
            values = attention.values.mean(2)
            weights = Target.of(prompt.layout, example.region, sigma).weights().to(values)
            inside = weights >= weights.max() / 2
            lift = values @ weights / on_image(values) / weights.mean()
            hits = inside[values.argmax(-1)] & (values.amax(-1) > 0)
            found.append((hits.cpu().numpy(), lift.cpu().numpy(), inside.to(values).mean().item()))
    except KeyboardInterrupt:
        if not found:
            raise
    every_hit, lifts, chances = (np.stack(figures) for figures in zip(*found, strict=True))
    return HeadRanking(
        model=mllm.name,
        layers=attention.layers,
        heads=attention.heads,
        examples=len(found),
        hits=every_hit.sum(0),
        pointing_chance=float(chances.mean()),
        lift=lifts.mean(0),
        lift_interval=bootstrap(lifts, seed),
    )


def named(example: Example) -> str:
    """The words of the question that are the example's answer: "red six" in "Is the object a red six or a blue one?".

    Raises:
        DataError: for an example without an answer.
    """
    if not example.answer:
        raise DataError(f"Queries by name need examples with an answer; {example.question!r} has none.")
    return example.answer
