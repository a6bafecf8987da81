"""Attribution held against linear functions, hand-made ablations, Captum over the states themselves, and known scenes."""

import sys

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from conftest import assert_same, snapshot

import cmllm_tools as cm
from cmllm_tools.analysis import attribute
from cmllm_tools.analysis.attribution import attribute as module
from cmllm_tools.analysis.attribution.attribute import AttributionSettings, attributed
from cmllm_tools.analysis.attribution.features import feature_numbers
from cmllm_tools.analysis.attribution.token_mask import PresenceScore
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.layout.visual_tokens import grid_boxes
from cmllm_tools.models.scoring import AnswerScore

LAYOUT = cm.VisualTokenLayout((60, 40), grid_boxes((0, 0, 60, 40), (4, 6)), (4, 6), "toy")
METHODS = ["integrated_gradients", "input_x_gradient", "feature_ablation", "occlusion", "kernel_shap"]
SCENES = range(450, 466)


class Linear(PresenceScore):
    """A score that is a weighted sum of presences, so that every attribution is known."""

    def __init__(self, weights):
        self.weights, self.states, self.batch = weights, torch.zeros(len(weights), 1), 5
        self.target, self.answer, self._bar, self.half = "linear", "linear", None, False

    def _batch(self, presence):
        assert len(presence) <= self.batch
        if self._bar is not None:
            self._bar.update(len(presence))
        return presence @ self.weights + 3


@pytest.fixture(scope="module")
def linear():
    return Linear(torch.randn(24, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def asked(mllm):
    """A prompt that names an object by its colour, with the object's name and box."""
    return next(named_by_color(mllm, range(3, 4)))


def named_by_color(mllm, scenes):
    examples = read_roc(HELDOUT, "question_describe.json")
    for example in (examples[number] for number in scenes):
        things = example.data["objects"]
        colors = [thing["name"].split()[0] for thing in things]
        alone = [thing for thing, color in zip(things, colors, strict=True) if colors.count(color) == 1]
        if alone:
            x, y, width, height = alone[0]["bbox"]
            name = alone[0]["name"]
            prompt = mllm.prepare(example.image, f"what is the {name.split()[0]} object?")
            yield prompt, name, cm.Box(x, y, x + width, y + height)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_a_linear_functions_weights(linear, method):
    values, _, error = attributed(linear, LAYOUT, AttributionSettings(method, window=1, samples=400, progress=False))
    torch.testing.assert_close(values, linear.weights, atol=2e-2 if method == "kernel_shap" else 1e-5, rtol=1e-4)
    assert (error is not None) == (method == "integrated_gradients")


@pytest.mark.parametrize("method", ["feature_ablation", "kernel_shap"])
def test_a_features_value_is_spread_over_its_tokens(linear, method):
    values, numbers, _ = attributed(linear, LAYOUT, AttributionSettings(method, (2, 3), samples=400, progress=False))
    assert np.bincount(numbers).tolist() == [4] * 6
    for number in range(6):
        inside = torch.from_numpy(numbers == number)
        expected = linear.weights[inside].mean().expand(4)
        torch.testing.assert_close(values[inside], expected, atol=1e-2 if method == "kernel_shap" else 1e-5, rtol=1e-3)


def test_a_features_value_is_what_taking_it_away_costs(mllm, asked):
    prompt, name, box = asked
    found = attribute(mllm, prompt, name, "feature_ablation", [box, cm.Box(0, 0, 30, 30)], progress=False)
    states, score = prompt.call.visual_states, AnswerScore(mllm, prompt, name)
    assert len(found.of_features) == 3
    for number, value in enumerate(found.of_features):
        latent = torch.from_numpy(found.features == number)[:, None] * (states.mean(0) - states)
        fall = score(torch.zeros_like(latent)[None]) - score(latent[None])
        assert value == pytest.approx(fall.item(), abs=1e-4)
    assert found.of_features.argmax() == 0


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["mean", "blank"])
def test_integrated_gradients_are_complete_and_those_of_the_states(mllm, asked, baseline):
    prompt, name, _ = asked
    found = attribute(mllm, prompt, name, baseline=baseline, progress=False)
    assert found.completeness_error <= 0.01
    change = found.score - found.baseline_score
    assert abs(found.values.sum().item() - change) <= 0.01 * abs(change)
    states, score = prompt.call.visual_states, AnswerScore(mllm, prompt, name)
    blank = mllm.prepare(np.full((192, 192, 3), 128, np.uint8), prompt.question).call.visual_states
    start = blank if baseline == "blank" else states.mean(0).expand_as(states)
    own = IntegratedGradients(lambda moved: score(moved - states)).attribute(
        states[None].clone().requires_grad_(), start[None], n_steps=32, internal_batch_size=16
    )
    torch.testing.assert_close(found.values, own[0].sum(-1).detach(), atol=1e-3, rtol=1e-3)
    assert found.score == pytest.approx(score(torch.zeros_like(states)[None]).item(), abs=1e-5)
    assert found.baseline_score == pytest.approx(score((start - states)[None]).item(), abs=1e-5)


@pytest.mark.slow
def test_steps_are_doubled_until_complete(mllm, asked):
    found = attribute(mllm, *asked[:2], steps=1, progress=False)
    assert found.completeness_error <= 0.01


def test_an_incomplete_attribution_says_so(mllm, asked, monkeypatch):
    monkeypatch.setattr(module, "MOST_STEPS", 4)
    found = attribute(mllm, *asked[:2], baseline="zero", steps=2, progress=False)
    assert found.completeness_error > 0.01
    assert "above 1%: not to be trusted" in repr(found)


def test_answers_and_tokens_add_up(mllm, asked):
    prompt, name, _ = asked

    def values(**target):
        return attribute(mllm, prompt, method="input_x_gradient", progress=False, **target).values

    whole = values(answer=name)
    parts = [values(answer=name, token=number) for number in range(2)]
    torch.testing.assert_close(sum(parts), whole, atol=1e-5, rtol=1e-4)
    other = values(answer="blue square")
    torch.testing.assert_close(values(answer=name, against="blue square"), whole - other, atol=1e-5, rtol=1e-4)
    own = mllm.generate(prompt)
    torch.testing.assert_close(values(), values(answer=own))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["integrated_gradients", "feature_ablation"])
def test_the_batch_changes_nothing(mllm, asked, method):
    features = "tokens" if method == "integrated_gradients" else (3, 3)
    found = [attribute(mllm, *asked[:2], method, features, batch=batch, progress=False).values for batch in (1, 7)]
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_maxima_lie_on_the_object_that_the_question_names(mllm):
    hits = {"integrated_gradients": [], "input_x_gradient": [], "occlusion": []}
    for prompt, name, box in named_by_color(mllm, SCENES):
        inside = prompt.layout.inside(box)
        for method, found in hits.items():
            values = attribute(mllm, prompt, name, method, steps=16, progress=False).values
            found.append(inside[int(values.argmax())] > 0)
    assert min(len(found) for found in hits.values()) >= 14
    assert {method: np.mean(found) >= 0.8 for method, found in hits.items()} == dict.fromkeys(hits, True)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "input_x_gradient"])
def test_the_progress_bar_counts_every_copy(linear, method, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, *given, total, **options):
            self.total, self.count = total, 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, count):
            self.count += count

    monkeypatch.setattr("tqdm.tqdm", Bar)
    for known in ("present", "absent"):
        getattr(linear, known)
    attributed(linear, LAYOUT, AttributionSettings(method))
    assert [bar.count for bar in bars] == [bar.total for bar in bars] != []


def test_the_model_and_chance_are_left_as_found(mllm, asked, monkeypatch):
    before, state = snapshot(mllm), torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    first, again = (
        attribute(mllm, *asked[:2], "kernel_shap", (2, 2), samples=20, seed=1, progress=False).values for _ in range(2)
    )
    assert torch.equal(first, again)
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])

    def interrupt(self, count):
        raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm.update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        attribute(mllm, *asked[:2])
    assert_same(before, snapshot(mllm))


def test_the_vision_encoder_runs_once_for_each_number_of_copies(mllm, asked):
    runs = []
    inner = next(part for part in mllm.model.model.vision_tower.modules() if isinstance(part, torch.nn.Conv2d))
    score = PresenceScore(mllm, *asked[:2], batch=4)
    handle = inner.register_forward_hook(lambda *_: runs.append("encoder"))
    try:
        for _ in range(3):
            score(torch.ones(10, 64))
    finally:
        handle.remove()
    assert len(runs) == 2


def test_states_can_be_moved(mllm, asked):
    prompt, name, _ = asked
    score = PresenceScore(mllm, prompt, name)
    assert score.present != score.absent
    shift = 0.5 * torch.randn(score.states.shape, generator=torch.Generator().manual_seed(0))
    moved = score.moved(shift)
    assert moved.present == pytest.approx(AnswerScore(mllm, prompt, name)(shift[None]).item(), abs=1e-5)
    assert moved.absent == pytest.approx(score.absent, abs=1e-4)


def test_tokens_belong_to_cells_and_regions():
    assert np.array_equal(feature_numbers(LAYOUT, "tokens"), np.arange(24))
    cells = feature_numbers(LAYOUT, (2, 2)).reshape(4, 6)
    assert np.array_equal(cells, np.kron([[0, 1], [2, 3]], np.ones((2, 3))))
    # More columns than tokens: empty cells are left out.
    assert np.array_equal(feature_numbers(LAYOUT, (1, 12)).reshape(4, 6)[0], np.arange(6))
    regions = [cm.Box(0, 0, 14, 10), cm.Box(14, 0, 30, 10)]
    assert feature_numbers(LAYOUT, regions).reshape(4, 6)[0].tolist() == [0, 1, 1, 2, 2, 2]
    assert set(feature_numbers(LAYOUT, [cm.Box(0, 0, 60, 40)])) == {0}
    with pytest.raises(cm.RegionError, match=r"must keep a visual token .*Box\(x0=11.* has none"):
        feature_numbers(LAYOUT, [cm.Box(10, 0, 20, 10), cm.Box(11, 1, 12, 2)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lime"}, "A method must be one of integrated_gradients, .*; got 'lime'"),
        ({"method": "feature_ablation", "features": "cells"}, r"Features must be 'tokens', \(rows, columns\), or a seq"),
        ({"method": "feature_ablation", "features": (0, 2)}, "Features must be 'tokens'"),
        ({"features": (2, 2)}, "for feature_ablation and kernel_shap"),
        ({"method": "kernel_shap", "features": (1, 1)}, r"2 or more; got \(1, 1\)"),
        ({"method": "occlusion", "window": 9}, "must be at least as large"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"batch": 0}, "at least 1; got 0"),
        ({"token": 2}, r"one of the answer's, 0\.\.1"),
        ({"token": 0, "against": "blue square"}, "token or against, not both"),
        ({"baseline": "black"}, "'mean', 'blank', 'zero' or a tensor of states; got 'black'"),
        ({"baseline": torch.zeros(3)}, r"must have shape \(visual token, width\) = \(64, "),
    ],
)
def test_settings_that_do_not_go_are_refused(mllm, asked, options, message):
    with pytest.raises(cm.SettingsError, match=message):
        attribute(mllm, *asked[:2], **options, progress=False)


def test_without_captum_the_extra_is_named(mllm, asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"cmllm_tools\[attribution\]"):
        attribute(mllm, *asked[:2])


def test_an_attribution_shows_what_speaks_for_and_against(mllm, asked):
    found = attribute(mllm, asked[0], "red <b>", method="input_x_gradient", progress=False)
    page = found._repr_html_()
    assert page.count("<img") == 2
    assert "speaks against it" in page
    assert "red &lt;b&gt;" in page
    assert "<b>" not in page.replace("<b>Attribution", "")
    assert found.grid.shape == (8, 8)
    assert "log p('red <b>')" in repr(found)
