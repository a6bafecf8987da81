"""The workbench's tab of ways: what it compares is `cm.compare` of what is drawn, and Stop ends it after a way."""

import asyncio
import sys

import pytest

import cmllm_tools as cm
from cmllm_tools.referring.compare import usual_methods
from cmllm_tools.widgets.compare_tab import AS_SET

# By its name: the package's attribute may be the function.
compare = sys.modules["cmllm_tools.referring.compare"]

TWO = ("attention edit", "crop")


@pytest.mark.slow
def test_it_compares_what_is_drawn(mllm, bench, scene):
    bench.ways._ways.value = TWO
    bench.ways._candidates.value = "red cross, blue zero"
    found = bench.ways.run()
    expected = cm.compare(
        mllm,
        scene.image,
        bench.question,
        scene.region("box"),
        methods={name: usual_methods()[name] for name in TWO},
        candidates=("red cross", "blue zero"),
        progress=False,
    )
    assert found is bench.ways.comparison
    assert found.complete
    assert [(row.name, row.answer) for row in found.rows] == [(row.name, row.answer) for row in expected.rows]
    for row, other in zip(found.rows, expected.rows, strict=True):
        assert row.log_odds == pytest.approx(other.log_odds, abs=1e-4)
    assert "attention edit" in bench.ways._found.children[0].value
    assert not bench.ways._button.disabled


def test_the_panel_s_own_method_is_one_of_the_ways(bench):
    bench.method = cm.methods.AttentionEdit(3.0)
    bench.ways._ways.value = (AS_SET,)
    assert bench.ways.methods == {AS_SET: cm.methods.AttentionEdit(3.0)}
    bench.ways._ways.value = ()
    with pytest.raises(cm.SettingsError, match="Choose one way or more"):
        bench.ways.run()
    bench.ways._candidates.value = "red cross, "
    with pytest.raises(cm.SettingsError, match="Give two answers or more, with commas between, or none; got one"):
        bench.ways.run()
    bench.picker.regions = ()
    with pytest.raises(cm.RegionError, match="Draw at least one region"):
        bench.ways.run()


@pytest.mark.slow
def test_stop_ends_it_after_a_way(bench):
    async def stopped():
        bench.ways._ways.value = TWO
        task = bench.ways.begin()
        with pytest.raises(cm.OptimizationError, match="A comparison goes on"):
            bench.ways.begin()
        while bench.ways.comparison is None and not task.done():
            await asyncio.sleep(0.01)
        assert not bench.ways._stop.disabled
        bench.ways._stop.click()
        return await task

    found = asyncio.run(stopped())
    assert found.complete is (len(found.rows) == 3)
    assert 2 <= len(found.rows) <= 3
    assert bench.ways._stop.disabled


def test_without_an_event_loop_the_button_says_so(bench):
    bench.ways._button.click()
    assert "needs a running event loop" in bench.ways._message.value


@pytest.mark.slow
def test_an_interrupt_says_that_ways_are_missing(bench, monkeypatch):
    real, calls = compare._tried, iter(range(9))

    def tried(*given):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(compare, "_tried", tried)
    bench.ways._ways.value = TWO
    with pytest.raises(KeyboardInterrupt):
        bench.ways.run()
    assert [row.name for row in bench.ways.comparison.rows][1:] == [TWO[0]]
    assert not bench.ways.comparison.complete
    assert not bench.ways._button.disabled
