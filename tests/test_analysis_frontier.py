"""Effect against damage: curves against runs one by one, equal damage against the line written out, files and figures."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import cmllm_tools as cm
from benchmarks import frontier as benchmark
from cmllm_tools.analysis.frontier import Curve, Frontier, most_within
from cmllm_tools.models.scoring import continuation
from cmllm_tools.referring.method import Method
from cmllm_tools.referring.registry import all_methods

WAYS = {"edit": cm.methods.AttentionEdit(2.0), "mean": cm.methods.OutsideHidden()}


@pytest.fixture(scope="module")
def examples():
    return [scene.example("box") for scene in cm.bench.held_out()[6:8]]


@pytest.fixture(scope="module")
def found(mllm, examples):
    return cm.analysis.frontier(mllm, examples, methods=WAYS, factors=(1, 0.5), progress=False)


def made():
    """Two ways, made up; the first one's effect is 1 at no damage, 3 at .2, 2 at .4."""
    effect, damage = np.tile([[1.0], [3.0], [2.0]], 12), np.tile([[0.0], [0.2], [0.4]], 12)
    steps = Curve("steps", "step_size", (0.1, 0.2, 0.4), np.stack([effect / 4, effect, damage, effect]))
    crop = Curve("crop", "", (None,), np.full((4, 1, 12), 0.5))
    return Frontier("m", 12, "text", (steps, crop))


@pytest.mark.slow
def test_points_are_those_of_runs_one_by_one(mllm, examples, found):
    assert found["edit"].strengths == (1.0, 2.0)
    assert found["mean"].strengths == (None,)
    assert found.damage_to == "candidates"
    for number, example in enumerate(examples):
        candidates = (example.answer, *example.alternatives)
        baseline = cm.Baseline(mllm, example.image, example.question, candidates=candidates)
        outcome = cm.refer(mllm, example.image, example.question, example.region, cm.methods.AttentionEdit(1.0))
        effect = baseline.effect(outcome)
        assert found["edit"].figure("share")[0, number] == pytest.approx(effect.share, abs=1e-4)
        gain = effect.log_odds[0] - baseline.log_odds[0]
        assert found["edit"].figure("effect")[0, number] == pytest.approx(gain, abs=1e-3)


@pytest.mark.slow
def test_damage_is_to_what_the_model_speaks(mllm, examples):
    """To all candidates together, per token of the first, written out; to the text where that is likelier than by lot."""
    example = examples[1]
    candidates = (example.answer, *example.alternatives)
    outcome = cm.refer(mllm, example.image, example.question, example.region, cm.methods.AttentionEdit(4.0))
    before, after = _sums(mllm, outcome, candidates)
    baseline = cm.Baseline(mllm, example.image, example.question, candidates=candidates)
    assert not baseline.speaks
    tokens = len(mllm.processor.tokenizer(candidates[0], add_special_tokens=False)["input_ids"])
    assert baseline.moved(outcome)[1] == pytest.approx((np.log(before) - np.log(after)) / tokens, abs=1e-4)
    spoken = cm.Baseline(mllm, example.image, example.question, candidates=candidates, text=str(baseline.answer))
    assert spoken.speaks
    assert spoken.moved(outcome)[1] == pytest.approx(spoken.effect(outcome).damage, abs=1e-5)
    with pytest.raises(cm.SettingsError, match="need candidates"):
        cm.Baseline(mllm, example.image, example.question).moved(outcome)


def _sums(mllm, outcome, candidates):
    prompt = outcome.prompt(mllm)
    return [
        sum(np.exp(continuation(mllm, prompt, text, done).sum().item()) for text in candidates)
        for done in (None, outcome.intervention)
    ]


@pytest.mark.parametrize(("bound", "most"), [(-0.1, None), (0.0, 1.0), (0.1, 2.0), (0.2, 3.0), (0.3, 3.0), (9.0, 3.0)])
def test_equal_damage_is_read_off_the_lines_between_points(bound, most):
    found = made()["steps"].effect_at(bound)
    assert (found and found[1]) == (None if most is None else pytest.approx(most))
    # All examples are alike.
    assert found is None or found[0] == pytest.approx(found[2])


def test_curves_that_come_back_count_where_they_are_within():
    effect, damage = np.array([[0.0, 5.0, 6.0]]), np.array([[0.0, 1.0, 0.0]])
    assert most_within(effect, damage, 0.5) == pytest.approx([6.0])
    assert np.isnan(most_within(effect, damage + 2, 0.5)).all()
    assert most_within(np.array([[np.nan, 2.0]]), np.array([[np.nan, 0.1]]), 0.5) == pytest.approx([2.0])


def test_a_frontier_is_shown_saved_and_reopened(tmp_path):
    found = made()
    assert list(found.effect_at(0.1)) == ["steps", "crop"]
    assert found.effect_at(0.1)["crop"] is None
    assert "step_size 0.2" in found.table()
    assert "more damage at any strength" in found.table()
    assert "most effect at 0.1 nats a token steps +2.00" in repr(found)
    assert "steps" in found._repr_html_()
    again = Frontier.load(found.save(tmp_path / "frontier.json"))
    for one, other in zip(found.curves, again.curves, strict=True):
        assert (one.name, one.setting, one.strengths) == (other.name, other.setting, other.strengths)
        assert np.array_equal(one.values, other.values)
    gap = replace(found, curves=(replace(found["steps"], values=np.full((4, 3, 12), np.nan)),))
    assert np.isnan(Frontier.load(gap.save(tmp_path / "gap.json"))["steps"].values).all()
    figure = cm.figures.frontier(again)
    assert [trace.name for trace in figure.data] == ["steps", "crop"]
    assert list(figure.data[0].x) == pytest.approx([0.0, 0.2, 0.4])
    with pytest.raises(cm.SettingsError, match="must be one of steps, crop"):
        found["none"]
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"cmllm_frontier": 1}), encoding="utf-8")
    with pytest.raises(cm.DataError, match="is not: a frontier must have the entries"):
        Frontier.load(other)


def test_a_method_says_itself_what_its_strength_is(mllm):
    declared = {name: method.strength_setting() for name, method in all_methods().items()}
    assert {name: each.name for name, each in declared.items() if each is not None} == {
        "ControlMLLM": "step_size",
        "ControlMLLMPlus": "step_size",
        "KeySteering": "step_size",
        "AttentionEdit": "strength",
        "Drawn": "alpha",
        "RedCircle": "width",
        "RegionGuidance": "strength",
        "PromptHighlighter": "strength",
    }
    for method in all_methods().values():
        assert sum(each.strength for each in method.settings()) <= 1
    assert cm.methods.Drawn().times(0.5).alpha == 128
    assert cm.methods.KeySteering().resolve(mllm).times(2).step_size == pytest.approx(0.2)
    with pytest.raises(cm.SettingsError, match="alpha must be a whole number"):
        cm.methods.Drawn().times(2)
    for method in (cm.methods.Crop(), cm.methods.KeySteering()):
        with pytest.raises(cm.SettingsError, match="has no strength that could be multiplied"):
            method.times(2)


def test_what_cannot_be_measured_is_refused(mllm, examples):
    with pytest.raises(cm.DataError, match="must have its answer and alternatives"):
        cm.analysis.frontier(mllm, [replace(examples[0], answer=None, alternatives=())])
    with pytest.raises(cm.SettingsError, match="factors must be one or more"):
        cm.analysis.frontier(mllm, examples, factors=())
    with pytest.raises(cm.SettingsError, match="Each of the factors must be a finite number above 0"):
        cm.analysis.frontier(mllm, examples, factors=(0,))


# A crop's box may touch what the model cuts off.
@pytest.mark.filterwarnings("ignore::cmllm_tools.RegionWarning")
def test_an_interrupt_leaves_the_examples_that_were_done(mllm, examples, monkeypatch):
    # By its name: the room's attribute is the function.
    module = sys.modules["cmllm_tools.analysis.frontier"]
    real, calls = module.refer, iter(range(9))

    def refer(*given, **options):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(module, "refer", refer)
    way = {"crop": cm.methods.Crop()}
    found = cm.analysis.frontier(mllm, examples, methods=way, progress=False)
    assert (found.examples, found.complete) == (1, False)
    assert "Interrupted" in found.table()


def test_runs_that_went_too_far_are_gaps(mllm, examples):
    class Broken(Method):
        def sent(self, request, mllm):
            raise cm.OptimizationError("too far", None)

    found = cm.analysis.frontier(mllm, examples[:1], methods={"broken": Broken()}, progress=False)
    assert np.isnan(found["broken"].values).all()
    assert found.effect_at() == {"broken": None}


@pytest.mark.slow
def test_the_benchmark_says_what_the_issue_asks(capsys):
    benchmark.main(["--n", "1", "--factors", "1", "--methods", "AttentionEdit", "Crop", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert {"model", "n", "effect_at_damage_0.1", "curves"} <= set(result)
    (point,) = result["curves"]["AttentionEdit"]
    assert point[0] == 2.0
    assert len(point) == 4
    assert result["curves"]["Crop"][0][0] is None


def test_a_way_that_cannot_be_gone_is_a_gap(mllm, examples):
    class Absent(Method):
        def sent(self, request, mllm):
            raise cm.UnsupportedModelError("not for this model")

    ways = {"absent": Absent(), "edit": cm.methods.AttentionEdit(1.0)}
    found = cm.analysis.frontier(mllm, examples[:1], methods=ways, factors=(1,), progress=False)
    assert np.isnan(found["absent"].values).all()
    assert np.isfinite(found["edit"].values).all()


def test_an_error_has_the_examples_that_were_done(mllm, examples):
    calls = iter(range(9))

    class Broken(Method):
        def sent(self, request, mllm):
            if next(calls) == 1:
                raise ZeroDivisionError
            return request

    with pytest.raises(ZeroDivisionError) as caught:
        cm.analysis.frontier(mllm, examples, methods={"broken": Broken()}, progress=False)
    assert (caught.value.frontier.examples, caught.value.frontier.complete) == (1, False)


@pytest.mark.slow
def test_the_first_example_says_what_damage_is_to(mllm, examples, monkeypatch):
    """So a mean over examples is of one quantity."""
    said, asked = iter([True, False]), []
    real = cm.Baseline.moved
    monkeypatch.setattr(cm.Baseline, "speaks", property(lambda self: next(said)))
    monkeypatch.setattr(
        cm.Baseline, "moved", lambda self, outcome, speaks: asked.append(speaks) or real(self, outcome, speaks)
    )
    way = {"edit": cm.methods.AttentionEdit(1.0)}
    found = cm.analysis.frontier(mllm, examples, methods=way, factors=(1,), progress=False)
    assert (asked, found.damage_to) == ([True, True], "text")
