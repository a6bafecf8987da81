"""What a sweep over windows of layers and context tokens found."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CmllmError, DataError
from ..files import write_whole
from ..models.prompt import Queries, as_queries
from ..notation import text_table
from ..referring.latent_method import LatentMethod
from ..running.task import fault
from ..shown import Fact, Shown
from ..stored import array_of, dump_json, record
from ..strict import one_of, shown, whole_number, whole_numbers
from .choices import FIELDS, FIGURES, Choice
from .example_lines import Found, plain

# Figures of which less is better.
LESS = ("energy before", "energy", "damage", "seconds")


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Shown):
    """Figures of every choice on every example.

    Args:
        model: its name.
        method: the settings that all choices share.
        choices: in order of the second axis of `values`.
        examples: digest of each example, in order of the third axis.
        values: (figure, choice, example), nan where an example was not run, or has no answer to measure. The figures are
            `energy before`, `energy`, `share before`, `share` (of the first and the last step), `moved` (log-probability
            of the right answer, steered less unsteered), `damage` (log-probability of any answer that makes sense: the
            right one, the alternatives, the model's own; unsteered less steered), `right` (1 where the right answer is
            likelier than every alternative) and `seconds`.
        failed: where each example that failed stands, and why; they are not among the others.

    Examples:
        >>> sweep.values.shape  # (figure, choice, example)
        (8, 2, 2)
    """

    model: str
    method: LatentMethod
    choices: tuple[Choice, ...]
    examples: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    failed: tuple[str, ...] = ()

    @classmethod
    def empty(cls, model: str, method: LatentMethod, choices: Sequence[Choice], examples: Sequence[str]) -> "Sweep":
        """A sweep that has yet to run."""
        values = np.full((len(FIGURES), len(choices), len(examples)), np.nan)
        return cls(model, method, tuple(choices), tuple(examples), values)

    def facts(self) -> list[Fact]:
        return [
            ("model", self.model),
            ("method", type(self.method).__name__),
            ("", f"{len(self.choices)} choices of layers and context token"),
            ("", f"{self.done} of {len(self.examples)} examples"),
            *([("failed", str(len(self.failed)))] if self.failed else []),
        ]

    @property
    def decisive(self) -> str:
        """The figure to choose by: "moved" where examples have answers, else "share"."""
        return "moved" if np.isfinite(self.figure("moved")).any() else "share"

    @property
    def done(self) -> int:
        """Number of examples that were run."""
        return int(self._ran().sum())

    def missing(self) -> Iterator[int]:
        """Numbers of the examples that were not run."""
        return iter(np.flatnonzero(~self._ran()).tolist())

    def figure(self, name: str) -> np.ndarray:
        """(choice, example): one figure of the examples that were run.

        Raises:
            DataError: for a name that is not one of the figures.
        """
        one_of(name, "A sweep's figure", FIGURES, DataError)
        result: np.ndarray = self.values[FIGURES.index(name)][:, self._ran()]
        return result

    def means(self, name: str) -> np.ndarray:
        """(choice,): mean of a figure over the examples on which it was measured; nan for a choice that failed on one."""
        values = where_measured(self.figure(name))
        return values.mean(1) if values.shape[1] else np.full(len(values), np.nan)

    def grid(self, name: str, queries: Queries) -> np.ndarray:
        """(a, b - 1): mean of a figure for each window [a, b) with one context token; nan where there is none."""
        contexts, wanted = list(dict.fromkeys(choice.queries for choice in self.choices)), as_queries(queries, DataError)
        if wanted not in contexts:
            raise DataError(f"The context token must be one that was swept, of {contexts}; got {shown(queries)}.")
        ends = max(choice.layers[1] for choice in self.choices)
        grid = np.full((ends, ends), np.nan)
        for choice, mean in zip(self.choices, self.means(name), strict=True):
            if choice.queries == wanted:
                grid[choice.layers[0], choice.layers[1] - 1] = mean
        return grid

    def rows(self, by: str = "moved") -> list[dict[str, Any]]:
        """Means over the examples, a row to each choice, the best by one figure first."""
        one_of(by, "A sweep's figure", FIGURES, DataError)
        means = {name: self.means(name) for name in FIGURES}
        sign = -1 if by in LESS else 1
        order = np.argsort(-sign * np.nan_to_num(means[by], nan=-sign * np.inf), kind="stable")
        return [
            {"choice": self.choices[index], **{name: float(values[index]) for name, values in means.items()}}
            for index in order
        ]

    def table(self, top: int | None = None, by: str = "moved") -> str:
        """The first rows as text, all when `top` is None."""
        rows = self.rows(by)[: None if top is None else whole_number(top, "The number of rows", least=1, error=DataError)]
        cells = [[str(row["choice"]), *(f"{row[name]:.3f}" for name in FIGURES)] for row in rows]
        return text_table([["", *FIGURES], *cells], "<" + ">" * len(FIGURES), (0, *[12] * len(FIGURES)))

    def with_found(self, found: Iterable[Found]) -> "Sweep":
        """The sweep with what was found of examples; those that are not its own come last, and those that failed apart."""
        several = list(found)
        own = {each.key: each.figures["values"] for each in several if each.error is None}
        known = set(self.examples)
        new = [example for example in own if example not in known]
        joined = Sweep.empty(self.model, self.method, self.choices, [*self.examples, *new])
        joined.values[:, :, : len(self.examples)] = self.values
        for number, example in enumerate(joined.examples):
            if example in own:
                joined.values[:, :, number] = own[example]
        return replace(joined, failed=self.failed + tuple(fault(each) for each in several if each.error is not None))

    def subset(self, numbers: Sequence[int]) -> "Sweep":
        """The sweep over some of its examples."""
        chosen = list(whole_numbers(numbers, "numbers of examples", 0, len(self.examples) - 1, DataError))
        return replace(self, examples=tuple(self.examples[n] for n in chosen), values=self.values[:, :, chosen])

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes an equal sweep."""
        wrong = {"failed": list(self.failed)} if self.failed else {}
        return {**self.head(), "examples": list(self.examples), "values": plain(self.values), **wrong}

    def head(self) -> dict[str, Any]:
        """What all examples share, as plain data."""
        return {
            "model": self.model,
            "method": self.method.to_json(),
            "choices": [{"layers": list(choice.layers), "queries": choice.queries} for choice in self.choices],
            "figures": list(FIGURES),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Sweep":
        """The sweep that `to_json` described.

        Raises:
            DataError: for other data.
        """
        try:
            found = record({"failed": []} | data, "a sweep", FIELDS)
            if found["figures"] != FIGURES:
                raise DataError(f"its figures must be {', '.join(FIGURES)}; they are {shown(found['figures'])}")
            if len(set(found["choices"])) < len(found["choices"]):
                raise DataError("its choices must differ from each other")
            shape = len(FIGURES), len(found["choices"]), len(found["examples"])
            values = array_of(found["values"], "its values", shape, missing=True)
            return cls(found["model"], found["method"], found["choices"], found["examples"], values, found["failed"])
        except (CmllmError, TypeError) as error:
            raise DataError(f"The data must be those of a sweep's to_json; they are not: {error}") from error

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the sweep to a JSON file with a hash of its bytes, whole or not at all; see `files.write_whole`.

        Raises:
            OutputError: when the file cannot be written.
        """
        return write_whole(path, lambda file: file.write(dump_json(self.to_json())), "It is still in memory.")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Sweep":
        """Read a saved sweep, or the file that one adds to; what it holds is checked, its hash too where it has one.

        Raises:
            DataError: for a file that is missing, damaged, or not a sweep.
        """
        from .sweep_file import load_sweep

        return load_sweep(path)

    def _ran(self) -> np.ndarray:
        result: np.ndarray = np.isfinite(self.values[FIGURES.index("seconds")]).all(0)
        return result


def where_measured(values: np.ndarray) -> np.ndarray:
    """(choice, example): a figure of the examples that have it; some of a set may have no answer to measure."""
    return values[:, np.isfinite(values).any(0)]
