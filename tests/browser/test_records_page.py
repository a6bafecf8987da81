"""The page of a run's records in a real browser: ten thousand answers, from disk, without a network."""

import json
import time
from dataclasses import replace

import pytest

import cmllm_tools as cm
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.evaluation import Evaluation, Record
from cmllm_tools.show.records import MOST_BYTES, records_html, write_records

pytestmark = pytest.mark.slow

EXAMPLES = 5000
EVIL = "<img src=x onerror=alert(1)></script><b>"


def maps(at):
    """As large as records have them: little everywhere before, and much in the middle after."""
    digits = [f"{(cell * 7 + at) % 4:x}" for cell in range(24 * 24)]
    after = [("f" if 8 <= cell // 24 < 16 and 8 <= cell % 24 < 16 else digit) for cell, digit in enumerate(digits)]
    return {"grid": (24, 24), "on": (0.0, 0.0, 192.0, 192.0), "before": "".join(digits), "after": "".join(after)}


@pytest.fixture(scope="module")
def run():
    """Two methods on many examples; the second is right where the first is wrong, every third time."""
    dataset = cm.data.read(HELDOUT)
    shown = list(dataset)
    records = []
    for at in range(EXAMPLES):
        example = shown[at % len(shown)]
        wrong, right = example.alternatives[0], example.answer
        box = example.region
        if at % 5 == 1:
            box = cm.Box(0, 0, 150, 150)
        common = {
            "id": at,
            "settings": {},
            "model": "embedded",
            "scorer": "strict",
            "question": example.question if at else EVIL,
            "names": (right,),
            "image": str(example.image),
            "regions": (box.to_json(),),
            "size": (192, 192),
            "task": "roc",
            "where": f"question_roc.json, line {at + 1}",
        }
        first = right if at % 2 else wrong
        second = right if at % 2 or at % 3 == 0 else wrong
        for method, answer in (("unsteered", first), ("plus", second)):
            found = Record(method=method, answer=answer, scores={"right": float(answer == right)}, **common)
            records.append(found if method == "unsteered" else replace(found, share=(0.1, 0.6), attention=maps(at)))
    error = {"kind": "RegionError", "message": "off the image"}
    records[-1] = replace(records[-1], answer=None, scores={}, error=error)
    return Evaluation(tuple(records))


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    return write_records(run, tmp_path_factory.mktemp("records") / "records.html")


@pytest.fixture
def page(browser, file, pictures):
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: requests.append(sent.url))
    begun = time.perf_counter()
    page.goto(file.as_uri())
    page.wait_for_function("document.querySelectorAll('article').length === 24")
    page.opened = time.perf_counter() - begun
    yield page
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def counted(page):
    return int(page.locator("#count").inner_text().split()[0])


def chosen(page, **values):
    """Milliseconds that a filter takes, in the page."""
    return page.evaluate(
        """(values) => {
            const begun = performance.now();
            for (const [id, value] of Object.entries(values)) {
                const field = document.getElementById(id);
                field.value = value;
                field.dispatchEvent(new Event(id === "words" ? "input" : "change"));
            }
            document.getElementById("gallery").getBoundingClientRect();
            return performance.now() - begun;
        }""",
        values,
    )


def test_ten_thousand_answers_are_filtered(page, run, file, pictures):
    assert file.stat().st_size < 60e6
    assert counted(page) == EXAMPLES
    right = {each.id for each in run.of("plus") if each.scores["right"]}
    before = {each.id for each in run.of("unsteered") if each.scores["right"]}
    took = [chosen(page, method="plus", state="right")]
    assert counted(page) == len(right)
    took.append(chosen(page, state="better"))
    assert counted(page) == len(right - before)
    assert page.locator("article").first.locator("dd").nth(1).inner_text().startswith("right ")
    took.append(chosen(page, state="wrong"))
    assert counted(page) == EXAMPLES - 1 - len(right)
    took.append(chosen(page, state="all", area="large"))
    assert counted(page) == sum(each.id % 5 == 1 for each in run.of("unsteered"))
    took.append(chosen(page, state="failed", area=""))
    assert counted(page) == 1
    assert "RegionError: off the image" in page.locator("article").inner_text()
    name = run.records[40].names[0]
    took.append(chosen(page, state="all", words=name))
    assert 0 < counted(page) < EXAMPLES
    chosen(page, words="", state="better")
    page.screenshot(path=pictures / "records-page.png", full_page=True)
    # Measured, as a busy machine is no fault.
    measured = {"opens_s": page.opened, "filter_ms": max(took), "megabytes": file.stat().st_size / 1e6}
    (pictures / "records-page.json").write_text(json.dumps(measured))


def test_pages_are_turned_and_texts_stay_texts(page):
    assert page.locator("article h3").first.inner_text() == EVIL
    page.locator("#on").click()
    assert page.locator("#place").inner_text() == "page 2 of 209"
    assert "24, question_roc.json" in page.locator("article").first.inner_text()
    page.locator("#back").click()
    assert page.locator("#back").is_disabled()
    first = page.locator("article").first
    assert first.locator("svg image").first.get_attribute("href").startswith("data:image/jpeg;base64,")
    assert first.locator("> svg polyline.line").count() == 1


def test_attention_before_and_after_is_beside_the_answer(page):
    """The middle is brighter after the steps, and the corner is not."""
    looks = page.locator("article").first.locator(".looks")
    assert looks.count() == 1
    assert looks.locator("figcaption").all_inner_texts() == ["before", "after"]
    opacity = looks.evaluate(
        """(looks) => [...looks.querySelectorAll("canvas")].map((map) => {
            const context = map.getContext("2d");
            return [[12, 12], [0, 0]].map(([x, y]) => context.getImageData(x, y, 1, 1).data[3]);
        })"""
    )
    (middle, corner), (middle_after, corner_after) = opacity
    assert middle_after > middle
    assert corner == corner_after
    boxes = [looks.locator(part).first.bounding_box() for part in ("svg", "canvas")]
    assert boxes[0] == boxes[1]


def test_pictures_have_a_bound(run, monkeypatch):
    from cmllm_tools.show import records as module

    assert MOST_BYTES < 60e6
    monkeypatch.setattr(module, "MOST_BYTES", 5000)
    html = records_html(replace(run, records=run.records[:40]), progress=False)
    assert 1 <= html.count('<img src="data:') < 20
