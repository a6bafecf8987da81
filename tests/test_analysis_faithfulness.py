"""Faithfulness: maps that are right by construction must beat shuffled ones, in every metric."""

import re
import sys
import warnings

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from scipy.stats import spearmanr
from test_analysis_attribution import Linear, asked

import cmllm_tools as cm
from cmllm_tools.analysis import agreement, infidelity, insertion_deletion, rank_correlations, sensitivity
from cmllm_tools.analysis.attribution import faithfulness as module
from cmllm_tools.analysis.attribution.faithfulness import curves, infidelity_of, random_curves
from cmllm_tools.models.scoring import AnswerScore

__all__ = ["asked"]


@pytest.fixture(scope="module")
def linear():
    return Linear(torch.rand(24, generator=torch.Generator().manual_seed(0)) ** 2)


def shuffled(values, seed=0):
    return values[torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize("seed", range(3))
def test_a_right_map_beats_shuffled_ones_in_every_metric(linear, seed):
    right, wrong = linear.weights, shuffled(linear.weights, seed)
    randoms = random_curves(linear, 12, 20, seed)
    good, bad = curves(linear, right, randoms), curves(linear, wrong, randoms)
    assert good.insertion_auc > bad.insertion_auc
    assert good.deletion_auc < bad.deletion_auc
    assert good.area > bad.area
    assert good.z > 3 > bad.z
    assert good.percentile == 1 > bad.percentile
    assert infidelity_of(linear, right, 64, seed) == pytest.approx(0, abs=1e-4)
    assert infidelity_of(linear, wrong, 64, seed) > 0.01
    attention = cm.Attention(torch.stack([right, wrong])[None, :, None], (0,), (0, 1), (0,), None)
    found = rank_correlations(attention, linear.weights)
    assert found[0, 0] == pytest.approx(1)
    assert found[0, 1] < 0.9


def test_curves_of_a_linear_score_are_sums_of_its_weights(linear):
    found = curves(linear, linear.weights, random_curves(linear, 6, 2, 0))
    ordered = linear.weights.sort(descending=True).values.double().numpy()
    sums = np.concatenate([[0], np.cumsum(ordered)])[[0, 4, 8, 12, 16, 20, 24]] + 3
    assert found.fractions.tolist() == [number / 6 for number in range(7)]
    assert found.insertion == pytest.approx(sums, abs=1e-5)
    assert found.deletion == pytest.approx(sums[-1] + 3 - sums, abs=1e-5)
    assert found.insertion_auc == pytest.approx(np.mean((sums[1:] + sums[:-1]) / 2), abs=1e-5)


def test_random_orders_have_no_area_of_their_own(linear):
    areas = curves(linear, linear.weights, random_curves(linear, 24, 200, 0)).random_areas
    assert abs(areas.mean()) < 3 * areas.std() / np.sqrt(len(areas))


def test_curves_take_the_maps_first_tokens(mllm, asked):
    prompt, name, _ = asked
    values = torch.rand(64, generator=torch.Generator().manual_seed(0))
    found = insertion_deletion(mllm, prompt, name, values, points=4, orders=2, progress=False)
    score, states = AnswerScore(mllm, prompt, name), prompt.call.visual_states
    first = values >= values.sort(descending=True).values[15]
    away = states.mean(0) - states
    for kept, value in ((first, found.insertion[1]), (~first, found.deletion[1]), (first | True, found.insertion[-1])):
        assert value == pytest.approx(score((~kept[:, None] * away)[None]).item(), abs=1e-4)
    assert found.insertion[0] == found.deletion[-1]
    assert found.insertion[-1] == found.deletion[0]


@pytest.mark.slow
def test_the_objects_own_tokens_beat_shuffled_ones(mllm, asked):
    prompt, name, box = asked
    before = snapshot(mllm)
    right = torch.from_numpy(prompt.layout.inside(box))
    good, bad = (
        insertion_deletion(mllm, prompt, name, values, points=8, orders=5, progress=False)
        for values in (right, shuffled(right))
    )
    assert good.percentile == 1
    assert good.area > bad.area + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert infidelity(mllm, prompt, name, right, samples=4, progress=False) > 0
    lost = [infidelity(mllm, prompt, name, values, samples=64, progress=False) for values in (right, shuffled(right))]
    assert lost[0] < lost[1]
    assert infidelity(mllm, prompt, name, 7 * right, samples=64, progress=False) == pytest.approx(lost[0], rel=1e-3)
    assert_same(before, snapshot(mllm))


@pytest.mark.slow
def test_sensitivity_grows_with_the_noise(mllm, asked):
    def of(radius, method="input_x_gradient", samples=2):
        return sensitivity(mllm, *asked[:2], method, radius=radius, samples=samples, progress=False)

    assert of(0) == pytest.approx(0, abs=1e-4)
    assert 0 < of(0.01) < of(0.1) < of(1.0)
    assert of(0.1, samples=4) >= of(0.1, samples=2)


@pytest.mark.parametrize("values", [torch.zeros(63), torch.full((64,), torch.nan), torch.zeros(8, 8)])
def test_maps_of_another_shape_are_refused(mllm, asked, values):
    with pytest.raises(cm.SettingsError, match="one finite value for each of the 64 visual tokens"):
        insertion_deletion(mllm, *asked[:2], values)
    with pytest.raises(cm.SettingsError, match="one finite value for each of the 64 visual tokens"):
        agreement(mllm, *asked[:2], also={"mine": values})


@pytest.mark.parametrize("options", [{"points": 0}, {"orders": 1}])
def test_curves_need_points_and_orders(mllm, asked, options):
    with pytest.raises(cm.SettingsError, match="at least 1 point and 2 random orders"):
        insertion_deletion(mllm, *asked[:2], torch.zeros(64), **options)


FEW = {"points": 4, "orders": 3, "method": "input_x_gradient", "progress": False}


@pytest.mark.slow
def test_agreement_measures_every_map_and_orders_them(mllm, asked):
    prompt, name, box = asked
    right = torch.from_numpy(prompt.layout.inside(box))
    also = {"<b>box": right, "rollout": cm.analysis.rollout(mllm, prompt)}
    found = agreement(mllm, prompt, name, also=also, **FEW)
    assert found.complete
    assert len(found.maps) == 2 * (6 + 1) + 2
    areas = [each.curves.area for each in found.maps]
    assert areas == sorted(areas, reverse=True)
    assert found.best is found.maps[0]
    by_name = {each.name: each for each in found.maps}
    one = by_name["layer 3, last"]
    attention = cm.capture_attention(mllm, prompt, queries="last")
    values = cm.context_map(attention, layers=[3]).values
    assert np.allclose(one.values, values, atol=1e-6)
    assert one.correlation == pytest.approx(spearmanr(values, found.attribution.values).statistic)
    assert (one.layers, one.queries) == ((3,), "last")
    alone = insertion_deletion(
        mllm, prompt, name, cm.context_map(attention, layers=[3]), points=4, orders=3, progress=False
    )
    assert alone.area == pytest.approx(one.curves.area, abs=1e-4)
    assert by_name["all layers, text"].layers == tuple(range(6))
    assert by_name["<b>box"].layers == ()
    page = found._repr_html_()
    assert "the attribution itself" in page
    assert "&lt;b&gt;box" in page
    assert "<b>box" not in page


@pytest.mark.slow
def test_choices_that_are_the_same_tokens_are_measured_once(mllm, asked):
    prompt = asked[0]
    found = agreement(mllm, *asked[:2], queries=["last", (len(prompt.tokens) - 1,)], **FEW)
    assert {each.queries for each in found.maps} == {"last"}
    words = agreement(mllm, *asked[:2], queries=["last", ["what", "is"]], **FEW)
    assert {each.queries for each in words.maps} == {"last", ("what", "is")}
    page = words._repr_html_()
    # Layers down, context tokens across, each with its name and its number.
    head = re.findall(r"<th[^>]*>([^<]*)</th>", page[page.index("<thead>") :].split("</thead>")[0])
    assert head[0] == "area between"
    assert set(filter(None, head[1:])) == {"last", "what is"}
    for each in (each for each in words.maps if len(each.layers) == 1):
        row = page[page.index(f">layer {each.layers[0]}</td>") :].split("</tr>")[0]
        assert f">{each.curves.area:.2f}</td>" in row
    with pytest.raises(cm.PromptError, match="must be a sequence of choices"):
        agreement(mllm, *asked[:2], queries="last")


@pytest.mark.slow
def test_an_interrupt_keeps_the_maps_measured_so_far(mllm, asked, monkeypatch):
    own, calls = module.curves, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) > stop:
            raise KeyboardInterrupt
        return own(*arguments)

    monkeypatch.setattr(sys.modules["cmllm_tools.analysis.attribution.agreement"], "curves", interrupted)
    stop = 3
    found = agreement(mllm, *asked[:2], **FEW)
    assert len(found.maps) == 2
    assert not found.complete
    assert "interrupted" in repr(found)
    calls.clear()
    stop = 1
    with pytest.raises(KeyboardInterrupt):
        agreement(mllm, *asked[:2], **FEW)
