"""The workbench's tab that compares ways of referring to what is drawn: what each makes the model answer, and its price."""

from collections.abc import Callable, Generator
from dataclasses import replace

import ipywidgets as ipw
from markupsafe import Markup

from ..errors import RegionError, SettingsError
from ..inputs.images import ImageSource
from ..inputs.regions import Regions
from ..referring.compare import Comparing, usual_methods
from ..referring.comparison import Comparison
from ..referring.method import Method
from ..show.cards.referring import comparison_sent, comparison_table
from .closing import replace_children
from .messages import hint
from .subject import Host
from .work_tab import LABEL, Candidates, WorkTab

AS_SET = "as set above"
_NOTHING_YET = (
    "Here several ways of referring to the regions are set side by side: answers, attention, damage, time. Choose some, "
    "and press Compare."
)


class CompareTab(WorkTab):
    """Chosen ways of referring to the drawn regions, one per turn of the kernel's event loop, as a table.

    Args:
        host: the workbench.
        asked: gives image, question and regions, when it is asked for.
        method: gives the method that the panel has now.

    Attributes:
        comparison: the last one, growing while it goes on; None before the first.
    """

    def __init__(
        self,
        host: Host,
        asked: Callable[[], tuple[ImageSource, str, Regions]],
        method: Callable[[], Method],
    ):
        button = ipw.Button(description="Compare", button_style="primary", tooltip="Refer in each of the ways")
        super().__init__(host, "A comparison", button, "End after this way, and keep those that were done")
        self._asked, self._method = asked, method
        self.comparison: Comparison | None = None
        names = [AS_SET, *usual_methods()]
        # One row more than there are, or fronts scroll them.
        self._ways = ipw.SelectMultiple(
            options=names, value=names, rows=len(names) + 1, description="ways", style=LABEL, tooltip="Ctrl adds one"
        )
        self._candidates = Candidates("their log-odds")
        self._found = ipw.VBox([hint(_NOTHING_YET)])
        row = ipw.HBox([button, self._stop, self._progress, self._message], layout=ipw.Layout(flex_flow="row wrap"))
        self.children = [self._ways, self._candidates, row, self._found]

    @property
    def methods(self) -> dict[str, Method]:
        """The chosen ways by name; they may be set by name alone, as the list does.

        Raises:
            SettingsError: for none, or a setting of the panel that is out of range.
        """
        known = usual_methods()
        found = {name: self._method() if name == AS_SET else known[name] for name in self._ways.value}
        if not found:
            raise SettingsError("Choose one way or more to compare; none is chosen.")
        return found

    def _turns(self) -> Generator[None, None, None]:
        """A comparison, cut where others have their turn."""
        image, question, regions = self._asked()
        if not regions:
            raise RegionError("Draw at least one region on the image first; there is none yet.")
        candidates = self._candidates.given
        run = Comparing(self._host.mllm, image, question, regions, methods=self.methods, candidates=candidates)
        self._progress.max = len(run)
        number = 0
        try:
            for number, _ in enumerate(run, 1):
                self._progress.value = number
                self._show(run.so_far(complete=not self._stopped or number == len(run)))
                if self._stopped:
                    return
                yield
        except BaseException:
            # An interrupt, or the end of its task: ways may be missing.
            if self.comparison is not None and number < len(run):
                self._show(replace(self.comparison, complete=False))
            raise

    def _result(self) -> Comparison | None:
        return self.comparison

    def _forget(self) -> None:
        self.comparison = None

    def _show(self, found: Comparison) -> None:
        self.comparison = found
        if self.comm is not None:
            replace_children(self._found, ipw.HTML(str(_shown(found))).add_class("cmllm-found"))


def _shown(found: Comparison) -> Markup:
    """The ways first, as one looks at them; what was sent is folded away."""
    sent = Markup("<details><summary>what each was sent, and what the figures mean</summary>{}</details>")
    return comparison_table(found) + sent.format(comparison_sent(found))
