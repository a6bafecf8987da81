"""Pages: every cell is escaped, whatever a trace holds; files are written whole, and half characters do not break them."""

import json
import re
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools import figures
from cmllm_tools.referring.provenance import Provenance
from cmllm_tools.show.report import report_html, write_page, write_report

HOSTILE = "</title></pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028\"'"


class Text(str):
    """A number's place taken by a text: whatever format is asked for, it stays itself."""

    def __format__(self, spec):
        return str(self)


class Tags(HTMLParser):
    """Scripts and pictures of a page that are not its own."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get("src") == "x" or any(name.startswith("on") for name in given):
            self.found.append((tag, attributes))

    def handle_data(self, data):
        if self.cdata_elem == "script" and data.lstrip().startswith("alert("):
            self.found.append(data)


@pytest.fixture(scope="module")
def trace():
    mllm = cm.load(tiny_llava())
    prompt = mllm.prepare(noise((50, 40)), "what is the red object ?")
    return cm.optimize(
        mllm, prompt, cm.Box(12, 5, 30, 30), cm.ControlMLLM(steps=1, early_stop=0.0), callbacks=[cm.Answers("ends")]
    )


def a_figure():
    return figures.curves({"one": ([1, 2], [3, 4])}, "x", "y")


def hostile(trace, numbers=False):
    """The trace with every text replaced, and its numbers too, which only pages take that show them as they are."""
    other = deepcopy(trace)
    for name in ("question", "text", "stopped", "image_hash"):
        setattr(other, name, HOSTILE)
    other.tokens = (HOSTILE,) * len(trace.tokens)
    other.provenance = Provenance(dict.fromkeys(trace.model, HOSTILE), dict.fromkeys(trace.versions, HOSTILE), trace.seed)
    other.layout = replace(trace.layout, rule=HOSTILE)
    for step in other.steps:
        step.answer = HOSTILE
        for name in ("number", "energy", "share", "latent_norm", "gradient_norm", "seconds") if numbers else ():
            setattr(step, name, Text(HOSTILE))
    return replace(other, provenance=replace(other.provenance, seed=HOSTILE)) if numbers else other


def assert_harmless(page):
    assert Tags(page).found == []
    assert "<script>alert" not in page
    assert "<img src=x" not in page


@pytest.mark.parametrize("numbers", [False, True])
def test_no_text_of_a_trace_becomes_a_tag_in_a_report(trace, monkeypatch, numbers):
    # The player's own page is tested below.
    monkeypatch.setattr(figures, "step_player", lambda _: a_figure())
    page = report_html(hostile(trace, numbers))
    assert_harmless(page)
    # Title twice, answers twice, the reason, and of each step the answer, and the numbers.
    assert page.count("&lt;img src=x") >= 5 + 2 * (7 if numbers else 1)


@pytest.mark.slow
def test_no_text_of_a_trace_becomes_a_tag_in_other_pages(trace):
    widgets = pytest.importorskip("cmllm_tools.widgets")
    other = hostile(trace)
    player = widgets.StepPlayer(other).to_html()
    for page in (other._repr_html_(), player, figures.step_player(other).to_html(include_plotlyjs=False)):
        assert_harmless(page)
    # In a script it would end a line; this is what the page's script reads.
    (state,) = re.findall(r'id="state">(.*?)</script>', player, re.DOTALL)
    assert "\u2028" not in state
    assert "<" not in state
    assert json.loads(state)["data"]["question"] == HOSTILE


def test_parts_of_a_page_are_results_figures_or_plain_text(trace, tmp_path):
    page = write_page(HOSTILE, [trace._repr_html_(), HOSTILE], tmp_path / "page.html").read_text(encoding="utf-8")
    assert Tags(page).found == []
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3
    assert "<b>Trace</b>" in page


def test_half_characters_are_written_as_escapes(trace, tmp_path):
    path = write_report(replace(trace, question="half \ud800"), tmp_path / "page.html")
    assert "half \\ud800" in path.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_leaves_the_old_one(trace, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr(
        "cmllm_tools.files.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    acts = [write_report, lambda _, path: write_page("x", [], path)]
    acts += [lambda trace, path: a_figure().write_html(path, include_plotlyjs=False)]
    for act in acts:
        with pytest.raises(cm.OutputError, match="No space left on device"):
            act(trace, path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert np.isfinite(trace.maps).all()


def test_a_figure_writes_its_page_to_a_path_as_to_a_file(trace, tmp_path):
    figure = a_figure()
    figure.write_html(tmp_path / "figure.html", include_plotlyjs=False, div_id="one")
    with (tmp_path / "file.html").open("w", encoding="utf-8") as file:
        figure.write_html(file, include_plotlyjs=False, div_id="one")
    assert (tmp_path / "figure.html").read_text(encoding="utf-8") == (tmp_path / "file.html").read_text(encoding="utf-8")
