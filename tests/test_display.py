import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from tests_support import noise

import cmllm_tools as cm
from cmllm_tools import display
from cmllm_tools.referring.trace import ROWS, Step, steps_table

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


def test_long_values_are_folded():
    page = display.card("x", [("text", "<" * (display.FOLD + 1)), ("short", "y")])
    assert page.count("<details>") == 1
    assert "&lt;" * (display.FOLD + 1) in page
    assert "<<" not in page


def test_map_lies_where_its_cells_are():
    """The only hot cell, of a grid that leaves out the image's left half, is coloured and nothing else."""
    cells = np.array([[[50, 0, 75, 100], [75, 0, 100, 100]]], float)
    layer = display._heat(np.array([[0.0, 1.0]]), cells * 4.4, (440, 440))
    pixels = np.asarray(layer)
    assert (pixels[:, :330, 3] == 0).all()
    assert (pixels[:, 330:] == display.palette()[-1]).all()


def test_signed_map_is_blue_for_less_vermilion_for_more_and_clear_at_zero():
    cells = np.array([[[x, 0, x + 1, 1] for x in range(4)]], float)
    heat = np.array([[-1.0, 0.0, 0.5, 7.0]])
    pixels = np.asarray(display._heat(heat, cells * 110, (440, 110), signed=True))[50, 55::110]
    assert pixels[0].tolist() == [*display.LESS_COLOR, round(255 * display.OPACITY)]
    assert pixels[1, 3] == 0
    assert pixels[2].tolist() == [*display.BAR_COLOR, round(255 * display.OPACITY / 2)]
    assert pixels[3].tolist() == [*display.BAR_COLOR, round(255 * display.OPACITY)]


def test_palette_runs_from_transparent_to_opaque():
    palette = display.palette()
    assert palette[0, 3] == 0
    assert (np.diff(palette[:, 3].astype(int)) >= 0).all()
    luminance = palette[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -1).all()


def test_photographs_are_jpeg_and_drawings_png():
    assert display.data_uri(Image.new("RGB", (400, 400), "red")).startswith("data:image/png;base64,")
    assert display.data_uri(noise((400, 400))).startswith("data:image/jpeg;base64,")


def test_bars():
    assert display.bar(0.0) == display.bar(0.001) == ""
    assert display.bar(0.5) != display.bar(1.0) == display.bar(7.0)
