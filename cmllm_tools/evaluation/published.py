"""The published tables as runs: their presets, splits and scorers, and their figures beside what comes out."""

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from ..data.dataset import Dataset
from ..data.format import read
from ..errors import DataError, SettingsError
from ..models.mllm import Mllm, require
from ..notation import text_table
from ..referring.citing import arxiv_number
from ..referring.defaults import FIGURES, LOCATED, MAX_PIXELS, MODELS, UNSTEERED, published_answer
from ..referring.latent_method import LatentMethod
from ..referring.methods.controlmllm import ControlMLLM, ControlMLLMPlus
from ..strict import one_of, several, whole_number_or_none
from .runner import Unsteered, evaluate
from .scorers import Figure
from .summary import Evaluation, written

METHODS: dict[str, type[ControlMLLM] | type[ControlMLLMPlus]] = {
    "controlmllm": ControlMLLM,
    "controlmllm++": ControlMLLMPlus,
}
TABLES = ("roc", "rtc", "refcocog", "screenspot")
# The split that is published, and the figure that the table has; ScreenSpot has no splits.
SPLITS = {"roc": "test", "rtc": "test", "refcocog": "test"}
FIGURE = {"roc": "right", "rtc": "right", "refcocog": "CIDEr", "screenspot": "CIDEr"}


@dataclass(frozen=True)
class Table:
    """One table of a paper, for a model.

    Args:
        method: "controlmllm" or "controlmllm++".
        name: of the table: "roc", "rtc", "refcocog", "screenspot".
        preset: whose published run it is: "llava-1.5" or "qwen2.5-vl"; "" for a model that the paper does not have, which
            is run with the settings of the published code for the model in hand.
        published: figures, to each kind of region and unsteered.
    """

    method: str
    name: str
    preset: str
    published: dict[str, float]

    @classmethod
    def of(cls, mllm: Mllm, method: str, name: str, preset: str | None = None) -> "Table":
        """The table for a model.

        Args:
            preset: of another model than the one it is taken for.

        Raises:
            SettingsError: for a method, table or preset that there is none of.
        """
        require(mllm)
        one_of(method, "The method", tuple(METHODS), SettingsError)
        one_of(name, "The table", TABLES, SettingsError)
        found = preset
        if found is None:
            found = MODELS.get((mllm.model.config.model_type, mllm.layers), "")
            # A paper need not have run each of them.
            found = found if found in FIGURES[method] else ""
        elif found not in FIGURES[method]:
            known = ", ".join(FIGURES[method])
            raise SettingsError(f"{_source(method)} has figures for {known}; got the preset {found!r}.")
        tables = FIGURES[method].get(found, FIGURES[method][_first(method)])
        if name not in tables:
            known = ", ".join(tables)
            raise SettingsError(f"{_source(method)} has for {found or _first(method)} the tables {known}; got {name}.")
        return cls(method, name, found, tables[name])

    @property
    def regions(self) -> tuple[str, ...]:
        """Kinds of region that the table has."""
        return tuple(kind for kind in self.published if kind != UNSTEERED)

    @property
    def figure(self) -> str:
        """The figure that it gives."""
        return FIGURE[self.name]

    def steered(self) -> LatentMethod:
        """The method as it was run for the table."""
        maker = METHODS[self.method]
        if self.preset:
            return maker.published(self.preset, self.name)
        # Of a model that was not published only the task's number of steps can be taken over, where it has one.
        task = self.name if maker is ControlMLLM else "roc"
        return maker.published(None, task)

    def options(self) -> dict[str, Any]:
        """How the answers were generated."""
        return published_answer(self.preset or _first(self.method), self.name)

    def dataset(self, folder: str | PathLike[str], region: str) -> Dataset:
        """The published split; for Qwen2.5-VL with the place in words, as it reads coordinates.

        Raises:
            DataError: for a folder that has no such set.
        """
        given: dict[str, Any] = {"located": True} if self.preset in LOCATED else {}
        if self.name in ("roc", "rtc"):
            given |= {"region": region}
        found = read(folder, self.name, **given)
        split = SPLITS.get(self.name)
        return found if split is None else found.split(split)


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What came out beside what was published.

    Args:
        table: of the paper.
        run: all answers; methods are `unsteered` and the kinds of region.
        of: number of examples that the published split has here.

    Examples:
        >>> from cmllm_tools.bench.heldout import HELDOUT
        >>> found = cm.evaluation.reproduce(mllm, "controlmllm++", "roc", HELDOUT, count=1, progress=False)
        >>> found.of, len(found.run.records), found.table.published
        (500, 2, {'unsteered': 54.72, 'box': 71.19})
    """

    table: Table
    run: Evaluation
    of: int

    def found(self, kind: str) -> Figure | None:
        """The table's figure of one kind of region, or unsteered; None where there is no answer."""
        return self.run.figures(kind).get(self.table.figure) if kind in self.run.methods else None

    def summary(self) -> dict[str, Any]:
        """Plain data: `{"table", "method", "preset", "n", "of", "complete", "failed", "rows": {KIND: {...}}}`."""
        rows = {}
        for kind, published in self.table.published.items():
            if (each := self.found(kind)) is not None:
                scale = 100 if self.table.figure == "right" else 1
                mean, low, high = (scale * value for value in (each.mean, each.low, each.high))
                rows[kind] = {"published": published, "mean": mean, "low": low, "high": high, "n": len(self.run.of(kind))}
        return {
            "table": self.table.name,
            "method": self.table.method,
            "preset": self.table.preset,
            "of": self.of,
            "complete": self.run.complete,
            "failed": len(self.run.failed),
            "rows": rows,
        }

    def text(self) -> str:
        """The table, and what keeps it from being the published one."""
        table, unit = self.table, " %" if self.table.figure == "right" else ""
        rows = [[table.figure, "published", "here (95 % interval)", "answers"]]
        for kind, published in table.published.items():
            each = self.found(kind)
            here = "" if each is None else written(table.figure, each)
            rows.append([kind, f"{published:.2f}{unit}", here, str(len(self.run.of(kind))) if each is not None else ""])
        lines = [f"{_source(table.method)}, {table.name}", text_table(rows, "<>>>"), ""]
        short = [kind for kind in table.published if self.found(kind) is not None and len(self.run.of(kind)) < self.of]
        if short:
            lines.append(f"Not all of the {self.of} examples of the published split are answered: {', '.join(short)}.")
        if not table.preset:
            lines.append(
                f"{self.run.records[0].model} is no model of the paper's: the settings are the published code's for a "
                f"model in hand, and the published figures those of {_first(table.method)}."
            )
        else:
            lines.append("The published figures rest on 4-bit weights computed in float16 (--load-in-4bit).")
        lines += [f"{len(self.run.failed)} answers failed."] if self.run.failed else []
        return "\n".join(lines)


def reproduce(
    mllm: Mllm,
    method: str,
    table: str,
    folder: str | PathLike[str],
    *,
    preset: str | None = None,
    regions: Iterable[str] | None = None,
    count: int | None = None,
    path: str | PathLike[str] | None = None,
    progress: bool = True,
) -> Reproduction:
    """Run a published table: unsteered, and with each kind of region, by the published presets, splits and scorers.

    Args:
        mllm: the model; images for Qwen2.5-VL are made at most as large as in the published runs.
        method: "controlmllm" or "controlmllm++".
        table: "roc", "rtc", "refcocog" or "screenspot".
        folder: of the set, in the reference's layout.
        preset: "llava-1.5" or "qwen2.5-vl"; told by the model when None.
        regions: kinds of region; all that the table has when None.
        count: of examples; all when None.
        path: file of the records; the same call goes on where it was.
        progress: whether bars are shown.

    Raises:
        SettingsError: for a method, table, preset or kind of region that there is none of, no kinds, or a count below 1.
        DataError: for a folder that has no such set, or a file of another run.
        OutputError: when the file cannot be written.

    Examples:
        >>> from cmllm_tools.bench.heldout import HELDOUT
        >>> found = cm.evaluation.reproduce(
        ...     mllm, "controlmllm", "roc", HELDOUT, regions=["box"], count=1, path="roc.jsonl", progress=False
        ... )
        >>> print(found.text())
        ControlMLLM, arXiv 2407.21534, roc
        right      published ...
    """
    found = Table.of(mllm, method, table, preset)
    kinds = found.regions if regions is None else several(regions, "Kinds of region must be several, as ('box', 'mask')")
    if not kinds:
        raise SettingsError("A table must be run with one kind of region or more; got none.")
    whole_number_or_none(count, "count", least=1)
    for kind in kinds:
        one_of(kind, "A kind of region of this table", (*found.regions, found.regions[0]), SettingsError)
    mllm = _bounded(mllm, MAX_PIXELS[found.preset]) if found.preset in MAX_PIXELS else mllm
    runs: list[Evaluation] = []
    sets = {kind: found.dataset(folder, kind) for kind in kinds}
    for kind, dataset in sets.items():
        # What is not steered is the same for all kinds, and answered with the first.
        methods = ({} if runs else {UNSTEERED: Unsteered()}) | {kind: found.steered()}
        runs.append(evaluate(mllm, dataset[:count], methods, path=path, progress=progress, **found.options()))
        if not runs[-1].complete:
            break
    together = Evaluation(tuple(record for run in runs for record in run.records), runs[-1].path, runs[-1].complete)
    if not together.records:
        raise DataError("A table needs answers; the run was interrupted before the first.")
    return Reproduction(found, together, len(next(iter(sets.values()))))


def _source(method: str) -> str:
    """The paper that a table is from."""
    maker = METHODS[method]
    return f"{maker.called()}, arXiv {arxiv_number(maker.source[0])}"


def _first(method: str) -> str:
    """The model that a paper begins with."""
    return next(iter(FIGURES[method]))


def _bounded(mllm: Mllm, pixels: int) -> Mllm:
    """The same model with a processor of its own, by which no image has more pixels than in the published runs."""
    found = copy(mllm)
    found.processor = copy(mllm.processor)
    images = found.processor.image_processor = copy(mllm.processor.image_processor)
    images.size = (
        {**dict(images.size), "longest_edge": pixels}
        if isinstance(images.size, dict)
        else replace(images.size, longest_edge=pixels)
    )
    return found
