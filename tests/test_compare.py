"""Effect and damage against the formula written out; ways side by side, whatever happens to one of them."""

import json
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.cli import main
from cmllm_tools.models.batch import followed_by
from cmllm_tools.models.scoring import continuation
from cmllm_tools.referring.baseline import UNRELATED, log_odds
from cmllm_tools.referring.compare import named_methods, usual_methods
from cmllm_tools.referring.defaults import UNSTEERED

TEXT = "there is no triangle."
FEW = {"edit": cm.methods.AttentionEdit(2.0), "mean": cm.methods.OutsideHidden(), "guided": cm.methods.RegionGuidance()}


@pytest.fixture(scope="module")
def choice():
    return cm.bench.held_out()[7]


@pytest.fixture(scope="module")
def candidates(choice):
    return choice.names[0], next(each for each in choice.objects if each not in choice.names and each in choice.question)


def plain_scores(mllm, prompt, text, intervention=None):
    """Log-probability of each token of a text, each from a forward over what is before it."""
    ids, found = mllm.processor.tokenizer(text, add_special_tokens=False)["input_ids"], []
    for at, token in enumerate(ids):
        before = followed_by(mllm, prompt, ids[:at]) if at else prompt
        opened = nullcontext() if intervention is None else intervention.opened(mllm, before)
        with torch.no_grad(), opened:
            logits = mllm.model(**before.inputs, use_cache=False).logits[0, -1]
        found.append(logits.log_softmax(-1)[token])
    return torch.stack(found)


@pytest.mark.parametrize(
    "way",
    [None, cm.methods.AttentionEdit(3.0), cm.methods.KeySteering(steps=1), cm.ControlMLLMPlus(steps=1)],
    ids=["nothing", "bias", "keys", "latent"],
)
def test_a_continuation_has_the_probabilities_of_forwards_one_by_one(mllm, choice, way):
    prompt, intervention = mllm.prepare(choice.image, choice.question), None
    if way is not None:
        intervention = cm.refer(
            mllm, choice.image, choice.question, choice.region("box"), way, max_new_tokens=1
        ).intervention
    found = continuation(mllm, prompt, TEXT, intervention)
    assert torch.allclose(found, plain_scores(mllm, prompt, TEXT, intervention), atol=1e-4)


def test_a_contrast_is_scored_by_what_tokens_are_picked_by(mllm, choice):
    """Region guidance: log-softmax of 2 l(image) - l(blacked out), of two plain forwards each."""
    box, way = choice.region("box"), cm.methods.RegionGuidance()
    prompt = mllm.prepare(choice.image, choice.question)
    black = way.intervention(mllm, prompt, (box,))
    other = mllm.prepare(black.pixels.numpy(), choice.question)
    ids = mllm.processor.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    expected = []
    for at, token in enumerate(ids):
        logits = []
        for each in (prompt, other):
            given = torch.cat([each.inputs["input_ids"], torch.tensor([ids[:at]], dtype=torch.long)], 1)
            inputs = each.inputs | {"input_ids": given, "attention_mask": torch.ones_like(given)}
            with torch.no_grad():
                logits.append(mllm.model(**inputs, use_cache=False).logits[0, -1])
        expected.append((2 * logits[0] - logits[1]).log_softmax(-1)[token])
    assert torch.allclose(continuation(mllm, prompt, TEXT, black), torch.stack(expected), atol=1e-4)


def test_log_odds_are_those_among_the_candidates():
    scores = [math.log(0.02), math.log(0.05), math.log(0.01)]
    shares = [0.25, 0.625, 0.125]
    assert log_odds(scores) == pytest.approx([math.log(share / (1 - share)) for share in shares])
    assert log_odds([-3.0, -1.0]) == pytest.approx([-2.0, 2.0])


@pytest.mark.slow
def test_effect_and_damage_are_differences_from_the_unsteered_model(mllm, choice, candidates):
    box = choice.region("box")
    baseline = cm.Baseline(mllm, choice.image, choice.question, candidates=candidates, text=TEXT)
    assert baseline.answer == mllm.generate(baseline.prompt)
    nothing = baseline.unsteered(box)
    assert (nothing.damage, nothing.own_damage) == (0.0, 0.0)
    outcome = cm.refer(mllm, choice.image, choice.question, box, cm.methods.AttentionEdit(3.0))
    effect = baseline.effect(outcome)
    for text, found in ((TEXT, effect.damage), (str(baseline.answer), effect.own_damage)):
        before, after = (plain_scores(mllm, baseline.prompt, text, each) for each in (None, outcome.intervention))
        assert found == pytest.approx((before - after).mean().item(), abs=1e-4)
    first, second = (plain_scores(mllm, baseline.prompt, each, outcome.intervention).sum().item() for each in candidates)
    assert effect.log_odds == pytest.approx((first - second, second - first), abs=1e-3)
    cmap = cm.context_map(cm.capture_attention(mllm, baseline.prompt, latent=outcome.intervention))
    assert effect.share == pytest.approx(cm.region_share(cmap, box))
    assert effect.share > nothing.share


def test_what_is_measured_must_make_sense(mllm, choice):
    for candidates in (("a cat",), ("a", "a"), ("a", 3), ("a", " ")):
        with pytest.raises(cm.SettingsError, match="Candidates must be two or more different answers, or none"):
            cm.Baseline(mllm, choice.image, choice.question, candidates=candidates)
    with pytest.raises(cm.SettingsError, match="measures an Outcome"):
        cm.Baseline(mllm, choice.image, choice.question, text=TEXT).effect("red")
    # The text of a tokenizer of few words.
    assert cm.Baseline(mllm, choice.image, choice.question).text == UNRELATED[1]


@pytest.fixture(scope="module")
def compared(mllm, choice, candidates):
    return cm.compare(
        mllm, choice.image, choice.question, choice.region("box"), methods=FEW, candidates=candidates, progress=False
    )


def test_ways_are_compared(mllm, choice, compared, tmp_path):
    assert [row.name for row in compared.rows] == [UNSTEERED, *FEW]
    assert compared.complete
    for name, row in zip(FEW, compared.rows[1:], strict=True):
        outcome = cm.refer(mllm, choice.image, choice.question, choice.region("box"), FEW[name])
        assert row.answer == outcome.answer == compared.outcomes[name].answer
        assert row.seconds > 0 and row.peak_memory >= 0 and not row.error
        assert len(row.log_odds) == 2 and 0 < row.share < 1
    table = compared.table()
    assert all(name in table for name in FEW)
    assert "less than one drawn by lot" in table
    html = compared._repr_html_()
    # What two ways sent is shown once.
    assert "sent by edit, guided" in html and "sent by mean" in html
    figure = cm.figures.comparison(compared)
    assert [line.name for line in figure.data] == [UNSTEERED, *FEW]
    assert "unsteered answer" in figure.layout.xaxis.title.text.replace("<br>", " ")
    found = cm.Comparison.load(compared.save(tmp_path / "ways.json"))
    assert (found.rows, found.regions, found.candidates) == (compared.rows, compared.regions, compared.candidates)
    assert found.table() == table
    assert cm.figures.comparison(found).data[1].y == figure.data[1].y


def test_what_is_no_comparison_is_refused(compared, tmp_path):
    path = compared.save(tmp_path / "ways.json")
    data = json.loads(path.read_text())
    data.pop("sha256")
    for change in ({"rows": [{"name": 3}]}, {"candidates": ["one"]}, {"size": [0, 3]}, {"cmllm_comparison": 2}):
        path.write_text(json.dumps(data | change))
        with pytest.raises(cm.DataError, match="A comparison must be a file written by"):
            cm.Comparison.load(path)


@dataclass(frozen=True)
class Broken(cm.Method):
    def intervention(self, mllm, prompt, regions):
        raise ZeroDivisionError("nothing to divide by")


@dataclass(frozen=True)
class Interrupted(cm.Method):
    def intervention(self, mllm, prompt, regions):
        raise KeyboardInterrupt


def test_one_ways_fault_does_not_lose_the_rest(mllm, choice):
    ways = {"broken": Broken(), "refused": cm.methods.AttentionEdit(heads=(99,)), "crop": cm.methods.Crop()}
    found = cm.compare(mllm, choice.image, choice.question, choice.region("box"), methods=ways, progress=False)
    broken, refused, crop = found.rows[1:]
    assert broken.error == "ZeroDivisionError: nothing to divide by"
    assert refused.error.startswith("SettingsError: heads must be numbers")
    assert crop.answer is not None
    assert "without figures broken, refused" in repr(found)
    assert [line.name for line in cm.figures.comparison(found).data] == [UNSTEERED, "crop"]


def test_an_interrupt_leaves_what_was_done(mllm, choice):
    ways = {"crop": cm.methods.Crop(), "stopped": Interrupted(), "edit": cm.methods.AttentionEdit()}
    found = cm.compare(mllm, choice.image, choice.question, choice.region("box"), methods=ways, progress=False)
    assert [row.name for row in found.rows] == [UNSTEERED, "crop"]
    assert not found.complete
    assert "Interrupted: ways are missing." in found.table()


def test_methods_are_called_by_what_they_are():
    assert list(named_methods([cm.methods.Crop(), cm.methods.Crop(margin=0), cm.methods.AttentionEdit()])) == [
        "crop 1",
        "crop 2",
        "attention edit",
    ]
    for wrong in ({}, [], {UNSTEERED: cm.methods.Crop()}):
        with pytest.raises(cm.SettingsError, match="methods must be one or more, none of them called 'unsteered'"):
            named_methods(wrong)
    with pytest.raises(cm.SettingsError, match="A method must be one with its settings"):
        named_methods([cm.methods.Crop])


@pytest.mark.slow
def test_six_methods_on_the_embedded_model_take_seconds(mllm, choice, candidates):
    """Below ten on two idle cores; processor time, as a busy machine takes longer."""
    before = time.process_time()
    found = cm.compare(mllm, choice.image, choice.question, choice.region("box"), candidates=candidates, progress=False)
    assert len(found.rows) == 1 + len(usual_methods()) == 7
    assert not [row.error for row in found.rows if row.error]
    assert time.process_time() - before < 20


@pytest.mark.slow
def test_the_command(mllm, picture_file, scene, tmp_path, capsys):
    box = [str(corner) for corner in scene.region("box").bounds]
    out, html = tmp_path / "ways.json", tmp_path / "ways.html"
    told = [
        "compare",
        str(picture_file),
        "describe the object {place}.",
        "--box",
        *box,
        "--methods",
        "crop",
        "attention-edit",
    ]
    assert main([*told, "--candidates", "red cross", "blue zero", "--out", str(out), "--html", str(html)]) == 0
    printed = capsys.readouterr().out
    assert "attention edit" in printed and "log-odds 'red cross'" in printed
    assert cm.Comparison.load(out).candidates == ("red cross", "blue zero")
    assert "plotly" in html.read_text(encoding="utf-8")
    assert main([*told, "--candidates", "red cross"]) == 2
    assert "Candidates must be two or more" in capsys.readouterr().err


def test_an_outcome_of_another_conversation_is_measured_on_its_own_prompt(mllm, choice):
    """Last question and image are the same; what was said before is not."""
    last = {"role": "user", "content": choice.question}
    first = {"role": "user", "content": [choice.image, "is it red?"]}
    one, other = ([first, {"role": "assistant", "content": said}, last] for said in ("it is red", "it is blue"))
    baseline = cm.Baseline(mllm, one, None, max_new_tokens=1)
    same, another = (
        cm.refer(mllm, talk, None, choice.region("box"), FEW["edit"], max_new_tokens=1) for talk in (one, other)
    )
    assert baseline.prompt_of(same) is baseline.prompt
    assert baseline.prompt_of(another).text == another.sent.text != baseline.prompt.text
