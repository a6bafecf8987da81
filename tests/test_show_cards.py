"""Cards of values: what they say, and that no text of a user or a model breaks out of its cell."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from tests_support import noise

import cmllm_tools as cm
from cmllm_tools.referring.trace import Step
from cmllm_tools.show.cards.referring import ROWS, steps_table

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'too'"


@pytest.fixture(scope="module")
def trace(mllm, prompt, box):
    return cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=5), callbacks=[cm.Answers()])


@pytest.fixture(scope="module")
def attention(mllm, prompt):
    return cm.capture_attention(mllm, prompt, layers=[1, 2, 5])


def regions():
    pixels = np.zeros((40, 60))
    pixels[5:20, 10:30] = 1
    return [cm.Box(3, 4.5, 20, 30), cm.Mask(pixels), cm.Scribble([(1, 2), (30, 8), (31, 20)]), cm.Point(7, 9)]


class Page(HTMLParser):
    """Text of a page, and its tags; fails where they do not nest."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def facts_of(text):
    """The words and figures of a repr, without the punctuation that joins them."""
    return re.findall(r"[\w.%]*\w%?", text)


@pytest.mark.parametrize("kind", ["prompt", "layout", "attention", "map", "trace", "step", "last step", "empty trace"])
def test_html_says_what_repr_says(kind, prompt, attention, trace, mllm, box):
    shown = {
        "prompt": prompt,
        "layout": prompt.layout,
        "attention": attention,
        "map": cm.context_map(attention, layers=[5]),
        "trace": trace,
        "step": trace.steps[1],
        "last step": trace.steps[-1],
        "empty trace": cm.Steering(mllm, prompt, box).trace,
    }[kind]
    page = Page(shown._repr_html_())
    missing = set(facts_of(repr(shown))) - set(facts_of(page.text))
    # What the table's heading says in other words.
    assert missing - {"s"} == set()
    assert type(shown).__name__ in page.text


@pytest.mark.parametrize("region", regions(), ids=lambda region: type(region).__name__)
def test_regions(region):
    page = Page(region._repr_html_())
    assert set(facts_of(re.sub(r"(\w+)=", r"\1 ", repr(region)))) <= set(facts_of(page.text))
    assert [tag for tag, _ in page.tags].count("img") == 1


def test_every_step_is_in_the_table(trace):
    text = Page(trace._repr_html_()).text
    for line in trace.table().splitlines()[1:]:
        assert " ".join(line.split()) in text


def test_a_long_run_is_shortened():
    steps = [Step(number, 1.0, 0.5, None, 0.0, None, 0.1, f"answer {number}") for number in range(ROWS + 25)]
    text = Page(steps_table(steps)).text
    assert "25 more steps" in text
    assert f"answer {ROWS // 2 - 1} " in text
    assert f"answer {ROWS // 2} " not in text
    assert text.endswith(f"answer {ROWS + 24}")
    assert "more steps" not in steps_table(steps[:ROWS])


def test_only_what_github_keeps(prompt, attention, trace):
    allowed = {"div", "b", "table", "thead", "tbody", "tr", "td", "th", "img", "br", "details", "summary"}
    for shown in (prompt, prompt.layout, attention, cm.context_map(attention), trace, trace.steps[0], *regions()):
        page = Page(shown._repr_html_())
        assert {tag for tag, _ in page.tags} <= allowed
        assert all(attributes["src"].startswith("data:image/") for tag, attributes in page.tags if tag == "img")
        assert not any(name.startswith("on") or name in ("class", "id") for _, given in page.tags for name in given)


def test_size(trace, prompt, example, mllm):
    assert len(trace._repr_html_()) < 200_000
    assert len(mllm.prepare(noise((1600, 1200)), "what is this ?")._repr_html_()) < 200_000


def test_text_of_users_and_models_is_escaped(mllm, example):
    prompt = mllm.prepare(example.image, HOSTILE)
    # The embedded model's tokens cannot be hostile, another's can.
    prompt = replace(prompt, tokens=(HOSTILE,) * len(prompt.tokens))
    trace = cm.optimize(mllm, prompt, cm.Box(0, 0, 90, 90), cm.ControlMLLM(steps=1, queries="text"))
    trace.steps[0].answer = trace.steps[-1].answer = HOSTILE
    trace.model["name"] = HOSTILE
    trace.stopped = HOSTILE
    attention = cm.capture_attention(mllm, prompt)
    layout = cm.VisualTokenLayout((8, 8), np.array([[0, 0, 8, 8.0]]), (1, 1), HOSTILE)
    for shown in (prompt, attention, cm.context_map(attention), layout, trace, trace.steps[0]):
        page = shown._repr_html_()
        assert "<script" not in page
        assert "<img src=x" not in page
        # It parses into the same tags, so that no text broke out of its cell.
        assert "alert(1)" in Page(page).text
