"""The workbench's tab of causes: which layers and heads the answer needs, by forbidding their look at the region."""

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ipywidgets as ipw
import numpy as np

from .. import causes
from ..causes.cells import windows_of
from ..causes.cutting import cut_of
from ..errors import PromptError, RegionError, SettingsError
from ..inputs.regions import as_regions
from ..models.answer import Answer
from ..notation import number_ranges
from .cause_view import CauseView
from .closing import replace_children
from .code_view import CodeView
from .messages import hint
from .subject import BEFORE, Host, Stale, Subject, state_when
from .work_tab import LABEL, Candidates, WorkTab

FROM = {
    "what follows the image": "after_image",
    "the question": "text",
    "the last token": "last",
    "the tokens that answer": "answering",
}
REGION, IMAGE = "the region", "the whole image"
# Layers up to which each is knocked out alone at first, head by head; and windows that more of them are cut into.
_FEW, _WINDOWS = 12, 10
# Cells that are knocked out in one turn, at least, and turns at most: what a turn begins with takes as long as a few cells.
_LEAST, _TURNS = 4, 8
_NOTHING_YET = (
    "Here you see which layers and heads the answer needs: they are kept from looking at the region, each by itself, and "
    "what becomes of the answer is a cell of a grid. Press Knock out."
)


class CausesTab(WorkTab):
    """Attention from chosen tokens to the region, or the image, knocked out by layer and head, and the answer's measure.

    Args:
        host: the workbench.
        code: gives the Python that knocks out the same, from the arguments of `knockout_grid`.

    Attributes:
        grid: the last `CauseGrid`, growing while it goes on; None before the first.
        view: of it, None before.
    """

    def __init__(
        self,
        host: Host,
        code: Callable[[dict[str, Any]], str],
    ):
        button = ipw.Button(description="Knock out", button_style="primary", tooltip="Forbid these looks, cell by cell")
        super().__init__(host, "A knockout", button, "End after the cells of this turn, and keep those that were done")
        self.add_class("cmllm-causes-tab")
        self._written = code
        self.grid: causes.CauseGrid | None = None
        self.view: CauseView | None = None
        self._asked: tuple[Subject, dict[str, Any]] | None = None
        self._plain: Answer | None = None
        numbers = host.mllm.attention_layers
        few = len(numbers) <= _FEW
        self._from = ipw.Dropdown(options=list(FROM.items()), description="from", style=LABEL)
        self._to = ipw.Dropdown(options=[REGION, IMAGE], description="to", style=LABEL)
        self._heads = ipw.Dropdown(
            options=[("one by one", False), ("all at once", True)], value=not few, description="heads", style=LABEL
        )
        self._window = ipw.BoundedIntText(
            value=1 if few else -(-len(numbers) // _WINDOWS),
            min=1,
            max=len(numbers),
            description="layers at once",
            tooltip="How many layers in a row are knocked out at once",
            style={"description_width": "100px"},
            layout=ipw.Layout(width="190px"),
        )
        self._candidates = Candidates("log-odds; none: the model's own")
        self._copy = ipw.Button(description="Copy as code", tooltip="Copy the Python that knocks out the same")
        self._stale = Stale(lambda: state_when(host.state(), BEFORE), "Knock out")
        self._code, self._found = CodeView(), ipw.VBox([hint(_NOTHING_YET)])
        self._copy.on_click(lambda _: self._host.attempt(lambda: self._code.show(self.code()), self._message))
        wrap = ipw.Layout(flex_flow="row wrap")
        self.children = [
            ipw.HBox([self._from, self._to], layout=wrap),
            ipw.HBox([self._heads, self._window], layout=wrap),
            self._candidates,
            ipw.HBox([button, self._stop, self._progress, self._copy, self._message], layout=wrap),
            self._stale,
            self._found,
            self._code,
        ]

    @property
    def choices(self) -> dict[str, Any]:
        """What is set here, as arguments of `causes.knockout_grid`; regions are the word "regions".

        Raises:
            SettingsError: for one answer alone.
        """
        candidates = self._candidates.given
        found: dict[str, Any] = {"from_": self._from.value, "to": "regions" if self._to.value == REGION else "image"}
        if self._heads.value:
            found["together"] = True
        if self._window.value > 1:
            found |= {"window": self._window.value, "step": self._window.value}
        return found | ({"candidates": candidates} if candidates else {})

    def follow(self) -> None:
        """Something was set in the panel."""
        self._stale.follow()
        # A field may hold what cannot be knocked out while it is being typed; Knock out says so.
        if self._code.shown:
            with suppress(SettingsError):
                self._code.code = self.code()

    def code(self) -> str:
        """The Python that does what Knock out would do now; raises like `choices`."""
        return self._written(self.choices)

    def answer_at(self, row: int, column: int) -> Answer:
        """What the model says when the looks of this cell are forbidden, as a click on the cell shows.

        Raises:
            SettingsError: before there is a grid, and after the model has changed since.
        """
        if self.grid is None or self._asked is None:
            raise SettingsError("There is no grid yet; press Knock out.")
        subject, choices = self._asked
        heads = None if choices.get("together") else [int(self.grid.columns[column])]
        with self._host.turn:
            try:
                subject.prompt.check(self._host.mllm)
            except PromptError as error:
                raise SettingsError("The model has changed since the grid was made; press Knock out.") from error
            cut = cut_of(
                self._host.mllm, subject.prompt, choices["from_"], choices["to"], self._windows(choices)[row], heads
            )
            if self._plain is None:
                self._plain = self._host.mllm.generate(subject.prompt)
            after = self._host.mllm.generate(subject.prompt, cut)
        if self.view is not None:
            self.view.answered((row, column), self._plain, after)
        return after

    def _turns(self) -> Generator[None, None, None]:
        subject, choices = self._host.subject(), self.choices
        if choices["to"] == "regions":
            if not subject.regions:
                raise RegionError(
                    "Draw at least one region on the image first, or choose the whole image; there is none yet."
                )
            choices["to"] = as_regions(subject.regions)
        windows = self._windows(choices)
        columns = 1 if choices.get("together") else self._host.mllm.heads
        rows = -(-max(_LEAST, len(windows) * columns // _TURNS) // columns)
        parts = [windows[at : at + rows] for at in range(0, len(windows), rows)]
        self._progress.max = len(parts)
        # The first turn finds out what is measured, and whether the prompt is still the model's.
        part = self._host.again(lambda: self._part(self._host.subject(), choices, parts[0]))
        subject = self._host.subject()
        self._asked, self._plain = (subject, choices), None
        self._stale.fresh()
        values = np.full((len(windows), part.values.shape[1]), np.nan)
        whole = replace(part, rows=tuple(map(number_ranges, windows)))
        # The very tokens that were measured.
        measured = choices if choices.get("candidates") else choices | {"answer": part.answers[0]}
        for number, these in enumerate(parts):
            if number:
                yield
                part = self._part(subject, measured, these)
            values[number * rows : number * rows + len(these)] = part.values
            self._progress.value = number + 1
            self._show(replace(whole, values=values.copy(), interrupted=part.interrupted))
            if self._stopped or part.interrupted:
                return

    def _part(self, subject: Subject, choices: dict[str, Any], windows: list[tuple[int, ...]]) -> causes.CauseGrid:
        numbers = [layer for window in windows for layer in window]
        # The last window may be shorter, and in a turn of its own.
        choices = choices | {"window": max(map(len, windows))}
        return causes.knockout_grid(self._host.mllm, subject.prompt, layers=numbers, progress=False, **choices)

    def _windows(self, choices: dict[str, Any]) -> list[tuple[int, ...]]:
        """The layers of each row, as `knockout_grid` cuts them."""
        return windows_of(self._host.mllm.attention_layers, choices.get("window", 1), choices.get("step", 1))

    def _show(self, grid: causes.CauseGrid) -> None:
        self.grid = grid
        if self.comm is None:
            return
        if self.view is None:
            self.view = view = CauseView(grid)
            view.observe(lambda change: self._clicked(view), "cell")
            replace_children(self._found, view)
        else:
            self.view.show(grid)

    def _clicked(self, view: CauseView) -> None:
        if view is self.view and view.cell is not None:
            row, column = view.cell
            self._do(lambda: self.answer_at(row, column))

    def _result(self) -> causes.CauseGrid | None:
        return self.grid

    def _forget(self) -> None:
        self.grid = self.view = self._asked = None
        self._message.clear()
        replace_children(self._found, hint(_NOTHING_YET))
