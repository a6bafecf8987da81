"""What a run came to: means with intervals to each method, and whether two ways differ on the same examples."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.intervals import bootstrap, interval_text
from ..errors import DataError
from ..notation import text_table
from ..shown import Fact, Shown
from ..strict import one_of, shown
from .records import Record, latest, read_records
from .scorers import Figure, mean_of, scorer_named

# Figures that are fractions, and shown as per cent.
FRACTIONS = ("right", "score")


@dataclass(frozen=True)
class Difference:
    """How one way differs from another on the same examples.

    Args:
        figure: by which.
        method: whose mean less the other's it is.
        against: the other.
        mean: of the differences.
        low: of the 95 % interval, from resampled examples.
        high: likewise.
        count: number of examples that both have.
        better: examples on which it is better.
        worse: examples on which it is worse.
        p: of McNemar's exact test, where the figure is right or wrong; else None.

    Examples:
        >>> ways = [cm.methods.AttentionEdit(3), cm.methods.RedCircle()]
        >>> evaluation = cm.evaluate(mllm, examples, ways, progress=False)
        >>> found = evaluation.difference("attention-edit", "red-circle")[0]
        >>> found.figure, found.count
        ('right', 2)
    """

    figure: str
    method: str
    against: str
    mean: float
    low: float
    high: float
    count: int
    better: int
    worse: int
    p: float | None

    def __str__(self) -> str:
        form = "+.1%" if self.figure.split()[0] in FRACTIONS else "+.2f"
        test = "" if self.p is None else f", McNemar p = {self.p:.2g}"
        return (
            f"{self.method} against {self.against}, {self.figure}: {self.mean:{form}} "
            f"({interval_text(self.count, (self.low, self.high), form)}; {self.better} better, {self.worse} worse{test})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Shown):
    """The records of a run.

    Args:
        records: one to each example and method.
        path: file of the records, where they were kept.
        complete: False when an interrupt left some out.

    Examples:
        >>> evaluation = cm.evaluate(mllm, examples, [cm.methods.RedCircle()], progress=False)
        >>> evaluation
        Evaluation(model embedded, 2 examples, 2 answers, red-circle right 100.0 % (34.2 to 100.0))
        >>> evaluation.methods
        ('red-circle',)
    """

    records: tuple[Record, ...]
    path: Path | None = None
    complete: bool = True

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Evaluation":
        """Of a file of records.

        Raises:
            DataError: for a file that is missing, damaged, or has no records.
        """
        records = latest(read_records(path))
        if not records:
            raise DataError(f"Records must be a file with one record or more; {shown(str(path))} has none.")
        return cls(tuple(records), Path(path).expanduser())

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order in which they were run."""
        return tuple(dict.fromkeys(each.method for each in self.records))

    @property
    def failed(self) -> tuple[Record, ...]:
        """Records of what went wrong."""
        return tuple(each for each in self.records if each.error is not None)

    def of(self, method: str) -> list[Record]:
        """A method's answers.

        Raises:
            DataError: for a method that there is not.
        """
        names = list(self.methods)
        one_of(method, "The method", [*names, names[0]] if len(names) == 1 else names, DataError)
        return [each for each in self.records if each.method == method and each.error is None]

    def facts(self) -> list[Fact]:
        facts: list[Fact] = [
            ("model", ", ".join(dict.fromkeys(each.model for each in self.records))),
            ("", f"{len({each.id for each in self.records})} examples"),
            ("", f"{len(self.records)} answers"),
        ]
        for method in self.methods:
            figures = self.figures(method)
            facts += [(method, ", ".join(f"{name} {written(name, each)}" for name, each in figures.items()) or "no answer")]
        facts += [("failed", str(len(self.failed)))] if self.failed else []
        facts += [] if self.complete else [("", "interrupted")]
        return [*facts, *([] if self.path is None else [("in", str(self.path))])]

    def figures(self, method: str) -> dict[str, Figure]:
        """A method's figures by their names; empty where it has no answers."""
        answers = self.of(method)
        if not answers:
            return {}
        found = scorer_named(answers[0].scorer).figures(answers)
        if shares := [each.share for each in answers if len(each.share) == 2]:
            before, after = (mean_of([share[end] for share in shares]) for end in (0, 1))
            found |= {"share before": before, "share": after}
        return found

    def difference(self, method: str, against: str, other: "Evaluation | None" = None) -> list[Difference]:
        """How a method differs from another, of this run or of another one, on the examples that both answered.

        Raises:
            DataError: for a method that there is not, or no example in common.
        """
        mine, theirs = self.of(method), (other or self).of(against)
        ids = {str(each.id) for each in mine} & {str(each.id) for each in theirs}
        mine, theirs = (
            sorted((e for e in some if str(e.id) in ids), key=lambda each: str(each.id)) for some in (mine, theirs)
        )
        if not mine:
            raise DataError(f"Two ways are compared on examples that both answered; {method} and {against} have none.")
        scorer = scorer_named(mine[0].scorer)
        ours, others = scorer.each(mine), scorer.each(theirs)
        return [compared(name, method, against, ours[name], others[name]) for name in ours if name in others]

    def summary(self) -> dict[str, Any]:
        """`{METHOD: {"n", "failed", "seconds", FIGURE: {"mean", "low", "high"}}}`, and `complete`; plain data."""
        found: dict[str, Any] = {"complete": self.complete, "failed": len(self.failed), "methods": {}}
        for method in self.methods:
            answers = self.of(method)
            found["methods"][method] = {
                "n": len(answers),
                "failed": sum(each.method == method for each in self.failed),
                "seconds": float(np.mean([each.seconds for each in answers])) if answers else None,
                **{
                    name: {"mean": each.mean, "low": each.low, "high": each.high}
                    for name, each in self.figures(method).items()
                },
            }
        return found

    def table(self) -> str:
        """Methods and their figures with intervals, differences to the first method, and what failed, as text."""
        figures = {method: self.figures(method) for method in self.methods}
        names = list(dict.fromkeys(name for each in figures.values() for name in each))
        rows = [["method", "n", "failed", "seconds", *names]]
        for method, found in figures.items():
            answers, failed = self.of(method), sum(each.method == method for each in self.failed)
            seconds = f"{np.mean([each.seconds for each in answers]):.2f}" if answers else ""
            cells = [written(name, found[name]) if name in found else "" for name in names]
            rows.append([method, str(len(answers)), str(failed), seconds, *cells])
        lines = [text_table(rows, "<" + ">" * (len(rows[0]) - 1))]
        first, *rest = self.methods
        if answered := {str(each.id) for each in self.of(first)}:
            shared = [each for each in rest if answered & {str(found.id) for found in self.of(each)}]
            lines += ["", *(str(found) for each in shared for found in self.difference(each, first))] if shared else []
        for each in self.failed[:10]:
            error = each.error or {}
            lines.append(f"failed: {each.where}, {each.method}: {error.get('kind')}: {error.get('message')}")
        if len(self.failed) > 10:
            lines.append(f"and {len(self.failed) - 10} more failed")
        return "\n".join(lines)


def compared(figure: str, method: str, against: str, ours: np.ndarray, others: np.ndarray) -> Difference:
    """The differences (example,) of two ways on the same examples."""
    from scipy.stats import binomtest

    there = np.isfinite(ours) & np.isfinite(others)
    if not there.any():
        raise DataError(f"Two ways are compared by figures that both have; {method} and {against} have no {figure}.")
    gain = (ours - others)[there]
    low, high = bootstrap(gain).tolist()
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    binary = bool(np.isin(np.concatenate([ours[there], others[there]]), (0.0, 1.0)).all())
    p = float(binomtest(better, better + worse, 0.5).pvalue) if binary and better + worse else 1.0 if binary else None
    return Difference(figure, method, against, float(gain.mean()), low, high, len(gain), better, worse, p)


def written(name: str, each: Figure) -> str:
    """`54.7 % (51.2 to 58.1)`, or as it is where the figure is no fraction."""
    fraction = name.split(maxsplit=1)[0] in (*FRACTIONS, "share")
    mean, low, high = (100 * value if fraction else value for value in (each.mean, each.low, each.high))
    text = f"{mean:.1f} %" if fraction else f"{mean:.2f}"
    return text if low == high else f"{text} ({low:.1f} to {high:.1f})"
