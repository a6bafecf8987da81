import numpy as np
import pytest

import cmllm_tools as cm
from cmllm_tools.analysis import Choice, HeadRanking, Recommendation, Sweep
from cmllm_tools.analysis.intervals import bootstrap, interval_text, says_something, wilson
from cmllm_tools.bench.window_test import HeldOut, as_json


@pytest.mark.slow
def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = [low <= 0 <= high for low, high in (bootstrap(rng.normal(size=60)) for _ in range(300))]
    assert 0.9 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 1.0], "n = 2: too few for an interval"),
        ([0.0, 1.0] * 4, "n = 8: too few for an interval"),
        ([1.0] * 12, "all 12 alike: no interval"),
    ],
)
def test_few_examples_have_no_interval(values, text):
    assert interval_text(len(values), bootstrap(np.array(values)).tolist(), "+.1%") == text
    assert not says_something(len(values), bootstrap(np.array(values)).tolist())


def test_enough_examples_have_one():
    values = np.array([0.0, 1.0] * 10)
    low, high = bootstrap(values)
    assert interval_text(20, (low, high), "+.1%") == f"95 %: {low:+.1%} to {high:+.1%}"


def test_a_sweep_of_few_examples_says_so():
    """It said "margin +100 % (95 %: +100 to +100)" of two."""
    tested = HeldOut(2, 1.0, 0.0, 1.0, (1.0, 1.0))
    assert str(tested).endswith("margin +100.0% (n = 2: too few for an interval)")
    choice = Choice((0, 3), "last")
    chosen = Recommendation(choice, "moved", 1.0, choice, 0.5, (0.5, 0.5), "why", 2)
    assert str(chosen).endswith("+0.500 (n = 2: too few for an interval)")
    sweep = Sweep.empty("m", cm.ControlMLLMPlus(), [choice], ["0"])
    data = as_json(sweep, chosen, tested)
    assert (data["recommended"]["gain_ci"], data["held_out"]["margin_ci"], data["held_out"]["margin"]) == (None, None, 1.0)


def test_a_ranking_of_few_examples_says_so():
    def ranking(count):
        shape = (1, 2)
        return HeadRanking(
            "m", (0,), (0, 1), count, np.ones(shape, int), 0.1, np.ones(shape), np.ones((2, *shape)) * [[[1]], [[3]]]
        )

    assert "n = 2: too few for an interval" in ranking(2).table()
    assert "n = 2: too few for an interval" in ranking(2)._repr_html_()
    assert ranking(2).rows([(0, 1)])[0]["over_chance_ci"] is None
    assert "too few" not in ranking(12).table()
    assert ranking(12).rows([(0, 1)])[0]["over_chance_ci"] == [1, 3]
    assert "1.00 ..  3.00" in ranking(12).table()


@pytest.mark.parametrize("count", [1, 7, 15, 60, 500])
def test_shares_are_shares_at_both_ends(count):
    low, high = wilson(np.array([0.0, 1.0]), count)
    assert [low[0], high[1]] == pytest.approx([0, 1], abs=1e-12)
    assert f"{low[0]:.0f}" == "0"
    assert 0 < high[0] < 1
    assert 0 < low[1] < 1
