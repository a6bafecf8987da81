"""One question about several regions, in batches: each outcome is the one that `refer` gives alone."""

from functools import cache

import pytest
import torch
from tests_support import noise
from tiny_families import TINY, at_hand
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.models import together
from cmllm_tools.models.scoring import continuation, continuations
from cmllm_tools.models.together import answers_each
from cmllm_tools.referring import recorded, run

QUESTION = "describe the object ."
REGIONS = [cm.Box(5, 5, 30, 30), cm.Point(40, 20), [cm.Box(30, 30, 55, 55), cm.Scribble([(2, 50), (20, 60)])]]
KEYS = cm.methods.KeySteering(steps=2, step_size=0.01, layers=(), queries="text")
PLUS = cm.ControlMLLMPlus(steps=2, step_size=0.01, layers=(), queries="text", contrast=0.0)
FIRST = cm.ControlMLLM(steps=2, step_size=0.05, relative=True, layers=(), queries="text")


@cache
def loaded(name):
    torch.manual_seed(0)
    return cm.load(TINY[name]()), noise((64, 64))


@pytest.fixture
def tiny():
    return cm.load(tiny_llava()), noise((64, 64))


def alone(mllm, image, regions, method, **options):
    return [cm.refer(mllm, image, QUESTION, each, method, progress=False, **options) for each in regions]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for each, other in zip(found, expected, strict=True):
        assert (each.answer.ids, each.regions, each.method) == (other.answer.ids, other.regions, other.method)
        assert (each.sent.text, each.sent.image_hash, each.question) == (
            other.sent.text,
            other.sent.image_hash,
            other.question,
        )
        if other.trace is None:
            assert each.trace is None
            continue
        assert (len(each.trace), each.trace.stopped) == (len(other.trace), other.trace.stopped)
        assert each.trace.regions == other.trace.regions
        assert each.answer.log_probabilities == pytest.approx(other.answer.log_probabilities, abs=1e-2)
        size = other.trace.latent.abs().max().clamp_min(1e-6)
        torch.testing.assert_close(each.trace.latent / size, other.trace.latent / size, atol=5e-3, rtol=1e-3)
        for step, its in zip(each.trace.steps, other.trace.steps, strict=True):
            assert step.energy == pytest.approx(its.energy, rel=1e-3)
            assert step.share == pytest.approx(its.share, rel=1e-3)
            assert (step.gradient_norm is None) == (its.gradient_norm is None)
            torch.testing.assert_close(step.maps, its.maps, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cmllm_tools.EnergyWarning", "ignore::cmllm_tools.RegionWarning")
@pytest.mark.parametrize("name", at_hand())
def test_every_family_refers_to_each_as_alone(name):
    mllm, image = loaded(name)
    for method in (FIRST, *[KEYS] * (mllm.family.beside or not mllm.family.no_prefix)):
        found = cm.refer_each(mllm, image, QUESTION, REGIONS, method, max_new_tokens=4, progress=False)
        assert_same(found, alone(mllm, image, REGIONS, method, max_new_tokens=4))


@pytest.mark.parametrize("method", [KEYS, PLUS, FIRST, cm.ControlMLLM(steps=2, accumulate=True, early_stop=1e-6)], ids=repr)
def test_it_is_one_batch_of_the_outcomes_alone(tiny, method, monkeypatch):
    mllm, image = tiny
    expected = alone(mllm, image, REGIONS, method, max_new_tokens=4)
    monkeypatch.setattr(run, "refer", None)
    monkeypatch.setattr(mllm, "generate", None)
    look = mllm.look(image)
    for given in (image, look):
        found = cm.refer_each(mllm, given, QUESTION, REGIONS, method, max_new_tokens=4)
        assert_same(found, expected)
    assert all(outcome.seconds > 0 for outcome in found)


def test_the_answer_can_be_given_again_from_an_outcome(tiny):
    mllm, image = tiny
    for outcome in cm.refer_each(mllm, image, QUESTION, REGIONS, KEYS, max_new_tokens=4):
        again = mllm.generate(outcome.prompt(mllm), outcome.intervention, max_new_tokens=4)
        assert again.ids == outcome.answer.ids
        assert len(outcome.answer.log_probabilities) == len(again.log_probabilities)


def test_more_regions_than_a_batch_has_are_several_batches(tiny, monkeypatch):
    mllm, image = tiny
    sizes, expected = [], alone(mllm, image, REGIONS, PLUS, max_new_tokens=4)

    def counted(mllm, prompt, regions, method):
        sizes.append(len(regions))
        return recorded.optimize_each(mllm, prompt, regions, method)

    monkeypatch.setattr(run, "optimize_each", counted)
    assert_same(cm.refer_each(mllm, image, QUESTION, REGIONS, PLUS, max_new_tokens=4, max_copies=2), expected)
    assert sizes == [2, 1]


@pytest.mark.parametrize(
    "method",
    [
        cm.methods.Drawn(),
        cm.methods.AttentionEdit(2),
        cm.ControlMLLMPlus(steps=1, step_size=0.01, layers=(), contrast=0.5),
        cm.ControlMLLMPlus(steps=1, step_size=0.01, layers=(), contrast=0.0, says="box"),
    ],
    ids=repr,
)
def test_what_cannot_be_one_batch_is_taken_one_by_one(tiny, method, monkeypatch):
    mllm, image = tiny
    asked = "describe the object {place} ."
    expected = [cm.refer(mllm, image, asked, each, method, max_new_tokens=4) for each in REGIONS]
    monkeypatch.setattr(run, "optimize_each", None)
    assert_same(cm.refer_each(mllm, image, asked, REGIONS, method, max_new_tokens=4), expected)


def test_runs_end_when_each_would_alone(mllm, scene):
    """The rule to stop is each run's own: one ends at its second step, another goes on."""
    regions = [scene.region(kind) for kind in ("box", "mask", "scribble", "point")]
    method = cm.methods.KeySteering(steps=4, step_size=0.05, until=3.0)
    found = cm.refer_each(mllm, scene.image, scene.question, regions, method)
    expected = [cm.refer(mllm, scene.image, scene.question, each, method) for each in regions]
    assert_same(found, expected)
    assert len({len(outcome.trace) for outcome in found}) > 1


def test_an_interrupt_ends_all_and_leaves_what_there_is(tiny, monkeypatch):
    mllm, image = tiny
    take = recorded.RecordedRun.take

    def interrupted(self, measured, at=0):
        if measured.number == 1 and at == 1:
            raise KeyboardInterrupt
        return take(self, measured, at)

    monkeypatch.setattr(recorded.RecordedRun, "take", interrupted)
    found = cm.refer_each(mllm, image, QUESTION, [*REGIONS, REGIONS[0]], KEYS, max_new_tokens=4, max_copies=2)
    assert [len(outcome.trace) for outcome in found] == [2, 1]
    assert all(outcome.interrupted and outcome.answer for outcome in found)


def test_an_interrupt_ends_those_taken_one_by_one_too(tiny, monkeypatch):
    mllm, image = tiny
    method = cm.ControlMLLMPlus(steps=2, step_size=0.01, layers=(), contrast=0.5)
    take, taken = recorded.RecordedRun.take, []

    def interrupted(self, measured, at=0):
        taken.append(measured.number)
        if len(taken) == 5:
            raise KeyboardInterrupt
        return take(self, measured, at)

    monkeypatch.setattr(recorded.RecordedRun, "take", interrupted)
    found = cm.refer_each(mllm, image, QUESTION, REGIONS, method, max_new_tokens=4)
    assert [outcome.interrupted for outcome in found] == [False, True]


def test_a_run_that_fails_has_its_trace_in_the_error(tiny):
    mllm, image = tiny
    wild = cm.ControlMLLM(steps=5, step_size=1e300, ema=1.0, early_stop=0.0, relative=False, layers=(), queries="text")
    with pytest.raises(cm.OptimizationError, match="must stay finite") as alone_failed:
        cm.refer(mllm, image, QUESTION, REGIONS[0], wild)
    with pytest.raises(cm.OptimizationError, match="must stay finite") as failed:
        cm.refer_each(mllm, image, QUESTION, REGIONS, wild)
    assert len(failed.value.trace) == len(alone_failed.value.trace)
    assert failed.value.trace.regions == (REGIONS[0],)


def test_another_error_has_a_trace_too(tiny, monkeypatch):
    mllm, image = tiny

    def stops(self, first, now, gain):
        raise MemoryError("no more")

    monkeypatch.setattr(cm.methods.KeySteering, "stops", stops)
    with pytest.raises(MemoryError) as failed:
        cm.refer_each(mllm, image, QUESTION, REGIONS, KEYS)
    assert len(failed.value.trace) == 1


def test_a_run_that_has_ended_is_no_longer_moved(tiny, monkeypatch):
    """What it would have come to cannot end the others: its latent is zero from then on."""
    mllm, image = tiny
    seen = []

    def stops(self, first, now, gain):
        return torch.tensor([True, False, False])

    monkeypatch.setattr(cm.methods.KeySteering, "stops", stops)
    capture = cm.methods.KeySteering.moves

    def moves(self, mllm, prompt, runs=1):
        moved = capture(self, mllm, prompt, runs)
        opened = moved.opened
        moved.opened = lambda latent: seen.append(latent.detach().abs().amax((1, 2))) or opened(latent)
        return moved

    monkeypatch.setattr(cm.methods.KeySteering, "moves", moves)
    found = cm.refer_each(mllm, image, QUESTION, REGIONS, cm.methods.KeySteering(steps=3, step_size=0.01, layers=()))
    assert [len(outcome.trace) for outcome in found] == [2, 4, 4]
    assert [(each > 0).tolist() for each in seen] == [[False] * 3, [True] * 3, [False, True, True], [False, True, True]]
    # None holds the others' rows.
    assert all(outcome.trace.latent.untyped_storage().nbytes() == outcome.trace.latent.nbytes for outcome in found)


def test_a_prompt_that_was_filled_up_is_taken_one_by_one(tiny):
    mllm, image = tiny
    cm.refer_each(mllm, image, QUESTION, REGIONS, KEYS, max_new_tokens=4)
    look = mllm.look(image, padding="max_length", max_length=120, padding_side="left")
    prompt = mllm.prepare(look, QUESTION)
    assert not prompt.inputs["attention_mask"].all()
    expected = alone(mllm, look, REGIONS, PLUS, max_new_tokens=4)
    assert_same(cm.refer_each(mllm, look, QUESTION, REGIONS, PLUS, max_new_tokens=4), expected)
    given = [outcome.intervention for outcome in expected]
    own = torch.stack([continuation(mllm, prompt, "a red cross", each) for each in given])
    torch.testing.assert_close(continuations(mllm, prompt, "a red cross", given), own)


def test_an_intervention_that_opens_otherwise_is_taken_one_by_one(tiny):
    mllm, image = tiny
    prompt = mllm.prepare(image, QUESTION)

    class Halved(cm.LatentAdded):
        def opened(self, mllm, prompt, copies=1):
            return cm.LatentAdded(self.latent / 2).opened(mllm, prompt, copies)

    latents = [outcome.trace.latent for outcome in alone(mllm, image, REGIONS, PLUS, max_new_tokens=4)]
    halved, plain = [Halved(each) for each in latents], [cm.LatentAdded(each / 2) for each in latents]
    found, expected = (continuations(mllm, prompt, "a red cross", each) for each in (halved, plain))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("regions", [[], cm.Box(5, 5, 30, 30), None, "box"], ids=repr)
def test_regions_must_be_several(tiny, regions):
    mllm, image = tiny
    with pytest.raises(cm.SettingsError, match="regions must be several"):
        cm.refer_each(mllm, image, QUESTION, regions, KEYS)


def test_a_region_off_the_image_is_refused_before_any_step(tiny):
    mllm, image = tiny
    with pytest.raises(cm.RegionError):
        cm.refer_each(mllm, image, QUESTION, [REGIONS[0], cm.Box(500, 500, 600, 600)], KEYS)


@pytest.mark.parametrize("method", [KEYS, PLUS, cm.methods.AttentionEdit(2)], ids=repr)
def test_a_text_is_as_likely_after_each_as_after_one(tiny, method):
    mllm, image = tiny
    outcomes = alone(mllm, image, REGIONS, method, max_new_tokens=4)
    given = [outcome.intervention for outcome in outcomes]
    for prompt in (mllm.prepare(image, QUESTION), mllm.prepare(mllm.look(image), QUESTION)):
        found = continuations(mllm, prompt, "a red cross", given)
        expected = torch.stack([continuation(mllm, prompt, "a red cross", each) for each in given])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_model_whose_rows_are_not_apart_answers_one_by_one(tiny, monkeypatch):
    mllm, image = tiny
    prompt = mllm.prepare(image, QUESTION)
    given = [outcome.intervention for outcome in alone(mllm, image, REGIONS, PLUS, max_new_tokens=4)]
    expected = [mllm.generate(prompt, each, max_new_tokens=4).log_probabilities for each in given]
    assert len(set(expected)) == len(given)

    def answered(several):
        return [answer.log_probabilities for answer in answers_each(mllm, prompt, several, 4)]

    together._CHECKED.clear()
    monkeypatch.setattr(together, "_alike", lambda *given: False)
    assert answered(given) == expected
    monkeypatch.undo()
    # What was found out of a model is kept: it is not tried again.
    monkeypatch.setattr(together, "_batch", None)
    assert answered(given) == expected
    assert answered([None, *given]) == [mllm.generate(prompt, max_new_tokens=4).log_probabilities, *expected]
