"""Facts and views: each type finds its view, a room's views load when they are needed, and one's own can be added."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

import cmllm_tools as cm
from cmllm_tools import shown
from cmllm_tools.show.html import card
from cmllm_tools.shown import Fact, Shown, view, view_of

MINE = """
from dataclasses import dataclass

from cmllm_tools.show.html import card
from cmllm_tools.shown import Fact, Shown, view


@dataclass(frozen=True, repr=False)
class Reading(Shown):
    question: str
    seconds: float

    def facts(self) -> list[Fact]:
        return [("", repr(self.question)), ("took", f"{self.seconds} s")]


@view(Reading)
def reading_card(reading):
    return card(f"Reading {reading.question}", reading.facts()[1:])
"""


@pytest.fixture
def registry(monkeypatch):
    """As it is now, after the test too; what a room's cards register is loaded first, as it is loaded once."""
    for kind in (cm.Box, Shown):
        view_of(kind)
    monkeypatch.setattr(shown, "_VIEWS", dict(shown._VIEWS))


@pytest.fixture
def mine(registry, tmp_path, monkeypatch):
    (tmp_path / "readings_of_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    import readings_of_mine

    yield readings_of_mine
    del sys.modules["readings_of_mine"]


def test_a_view_of_ones_own(mine):
    reading = mine.Reading("<what> is this?", 2.5)
    assert repr(reading) == "Reading('<what> is this?', took 2.5 s)"
    page = reading._repr_html_()
    assert page.startswith("<div><b>Reading &lt;what&gt; is this?</b>")
    assert ">took</th>" in page


def test_a_subclass_has_its_parents_view_until_it_has_one(registry):
    class Seat(cm.Box):
        """A user's own."""

    seat = Seat(1, 2, 3, 4)
    assert seat._repr_html_() == str(cm.Box(1, 2, 3, 4)._repr_html_()).replace("<b>Box</b>", "<b>Seat</b>")
    view(Seat)(lambda value: card("sat", value.facts()))
    assert seat._repr_html_().startswith("<div><b>sat</b>")
    assert "<b>Box</b>" in cm.Box(1, 2, 3, 4)._repr_html_()


LAYOUT = "layout = cm.VisualTokenLayout((8, 8), np.array([[0, 0, 8, 8.0]]), (1, 1), 'one')\n"


def output_of(code):
    """What a fresh Python prints, in which no room's cards are loaded yet."""
    code = f"import sys, numpy as np, cmllm_tools as cm\n{LAYOUT}{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_view_of_ones_own_stays_when_the_packages_are_loaded():
    code = (
        "from cmllm_tools.shown import view\n"
        "view(cm.VisualTokenLayout)(lambda value: 'mine')\n"
        "print(layout._repr_html_(), 'cmllm_tools.show.cards.layout' in sys.modules)"
    )
    assert output_of(code) == ["mine True"]


def test_a_type_without_a_view_has_its_facts(registry):
    @dataclass(repr=False)
    class Count(Shown):
        number: int

        def facts(self) -> list[Fact]:
            return [("of them", f"<{self.number}>")]

    page = Count(3)._repr_html_()
    assert page.startswith("<div><b>Count</b>")
    assert "&lt;3&gt;" in page
    assert repr(Count(3)) == "Count(of them <3>)"


def test_what_is_not_shown_has_no_view():
    with pytest.raises(TypeError, match="int must be based on Shown to have a view; it is not"):
        view_of(int)


def test_views_load_with_the_first_value_of_their_room():
    code = (
        "def loaded(): return sorted(name for name in sys.modules if name.startswith('cmllm_tools.show.'))\n"
        "assert repr(layout) and not loaded(), loaded()\n"
        "layout._repr_html_()\n"
        "print([name.split('.')[-1] for name in loaded() if '.cards.' in name])\n"
        "others = ('cmllm_tools.analysis', 'cmllm_tools.referring', 'plotly')\n"
        "print([name for name in sys.modules if name.startswith(others)])"
    )
    assert output_of(code) == ["['layout']", "[]"]
