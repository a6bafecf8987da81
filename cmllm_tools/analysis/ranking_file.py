"""A file of what was found of the examples of rankings of heads, a line to each."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, OutputError, OutputWarning
from ..files import said
from ..models.mllm import Mllm
from ..models.prompt import Queries, as_queries
from ..stored import array_of, record, unread
from ..strict import number, shown
from .example_lines import ExampleLines
from .examples import Example, digest

# Hits and lifts (layer, head), and the hits of chance, of an example.
Found = tuple[np.ndarray, np.ndarray, float]


class RankingFile:
    """What was found of the examples of rankings of one model, by example and queries.

    Args:
        path: of the file.
        mllm: the model.
        layers: numbers of the layers that are ranked.
        sigma: width of the Gaussian of scribbles and points.

    Raises:
        DataError: for a file of another model, layers or sigma, or a damaged one.
    """

    def __init__(self, path: Path, mllm: Mllm, layers: Sequence[int], sigma: float):
        self.head: dict[str, Any] = {"ranking of": mllm.name, "layers": list(layers), "heads": mllm.heads, "sigma": sigma}
        self.shape = len(self.head["layers"]), mllm.heads
        self.file = ExampleLines(path, "What a ranking goes on from must be a file that one has added to")
        self.found: dict[str, Found] = {}
        # What could not be added yet.
        self.left: dict[str, dict[str, Any]] = {}
        if path.exists() and path.stat().st_size:
            news = self.file.news()
            if self.file.head not in (None, self.head):
                raise DataError(
                    f"A ranking goes on from a file of the same model, layers and sigma; {said(path)} has "
                    f"{shown(self.file.head)}. Give another path."
                )
            self._hear(news)

    def known(self, example: Example, queries: Queries) -> Found | None:
        """What the file has of an example."""
        return self.found.get(self._key(example, queries))

    def add(self, example: Example, queries: Queries, found: Found) -> None:
        """Add what was found of an example; what cannot be written comes with the next one, and is warned about."""
        hits, lift, chance = found
        key, data = (
            self._key(example, queries),
            {"hits": hits.astype(int).tolist(), "lift": lift.tolist(), "chance": chance},
        )
        self.left[key], self.found[key] = data, found
        try:
            self._hear(self.file.add(self.head, self.left))
            self.left = {}
        except OutputError as error:
            warnings.warn(f"{error} The ranking goes on.", OutputWarning, stacklevel=3)

    @staticmethod
    def _key(example: Example, queries: Queries) -> str:
        return f"{digest(example)} {as_queries(queries)!r}"

    def _hear(self, news: dict[str, dict[str, Any]]) -> None:
        for key, data in news.items():
            read = record(data, "an example", dict.fromkeys(("hits", "lift", "chance"), unread))
            hits = array_of(read["hits"], "its hits", self.shape).astype(bool)
            self.found[key] = (
                hits,
                array_of(read["lift"], "its lift", self.shape),
                number(read["chance"], "its chance", 0, 1),
            )
