"""What a workbench shows of its last run: the player or the outcome, and the answers before and after."""

from collections.abc import Callable, Iterator

import ipywidgets as ipw

from ..errors import TraceError
from ..referring.outcome import Outcome
from ..referring.trace import Trace
from ..show.html import card
from .closing import replace_children
from .step_player import StepPlayer

# Why a run without updates ended.
UNSTEERED = "unsteered"


class Results:
    """The last run's results, in the parts of a panel that show them.

    Args:
        player_box: where the steps, or an outcome, are shown.
        answers_box: where the answers are.
        save: enabled once there is something to be saved.

    Attributes:
        player: of the steps; None before the first run, and for a method that takes none.
        trace: growing while a run goes on; None where the method takes no steps.
        outcome: of a method that takes no steps; None before its end.
        before: its answer without the method.
    """

    def __init__(self, player_box: ipw.VBox, answers_box: ipw.HTML, save: ipw.Button):
        self._player_box, self._answers_box, self._save = player_box, answers_box, save
        self.player: StepPlayer | None = None
        self.trace: Trace | None = None
        self.outcome: Outcome | None = None
        self.before: str | None = None

    @property
    def answers(self) -> tuple[str | None, str | None]:
        """Before and after; None for one that was not decoded."""
        steps = self.trace.steps if self.trace else []
        if self.trace is not None and steps:
            return steps[0].answer, None if self.trace.stopped == UNSTEERED else steps[-1].answer
        return self.before, None if self.outcome is None else self.outcome.answer

    def kept(self) -> Trace | Outcome:
        """What can be saved.

        Raises:
            TraceError: when there is nothing yet.
        """
        found = self.trace if self.trace is not None else self.outcome
        if found is None:
            raise TraceError("There is no trace to save yet; press Steer first.")
        return found

    def of_answers(self, plain: Callable[[], str], referred: Callable[[], Outcome]) -> Iterator[str]:
        """Have the answer without a method that takes no steps, and with it, and show each; what comes next is yielded."""
        self.trace = self.outcome = self.before = None
        yield "answer 1 of 2"
        self.before = plain()
        self.show_answers(ended=False)
        yield "answer 2 of 2"
        self.show_outcome(referred())

    def show_trace(self, trace: Trace) -> None:
        """Show what a trace has become: in the player, which stays at the last step if it was there, and the answers."""
        if self.trace is not trace or self.player is None:
            self.trace, self.player, self.outcome = trace, StepPlayer(trace), None
            replace_children(self._player_box, self.player)
            self._save.disabled = False
        else:
            follows = self.player.step == len(self.player.data["steps"]) - 1
            self.player.refresh()
            if follows:
                self.player.step = len(trace) - 1
        self.show_answers(ended=trace.stopped != "running")

    def show_outcome(self, outcome: Outcome) -> None:
        """Show what was sent, and the answer."""
        self.outcome, self.player = outcome, None
        replace_children(self._player_box, ipw.HTML(str(outcome._repr_html_())))
        self._save.disabled = False
        self.show_answers(ended=True)

    def show_answers(self, ended: bool) -> None:
        """Show the answers there are."""
        before, after = self.answers
        rows = [("before", before)]
        if self.trace is None or self.trace.stopped != UNSTEERED:
            rows.append(("after", after if ended else None))
        self._answers_box.value = str(card("", [(when, answer or "...") for when, answer in rows]))
