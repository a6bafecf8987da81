import json
import os
import random
import signal
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import SETS, roc, scenes

import cmllm_tools as cm
from cmllm_tools import evaluation
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.evaluation.runner import as_methods

PLUS = cm.ControlMLLMPlus(steps=2)
METHODS = {"unsteered": evaluation.Unsteered(), "plus": PLUS}


@pytest.fixture
def dataset():
    return cm.data.read(HELDOUT)[:3]


def answers(records):
    return {each.key: (each.answer, each.ids, each.scores, each.share) for each in records}


def test_every_answer_is_refers(mllm, dataset):
    found = cm.evaluate(mllm, dataset, METHODS, progress=False)
    assert [each.key for each in found.records] == [(str(at), name) for at in range(3) for name in METHODS]
    for each in found.records:
        example = dataset[each.id]
        outcome = cm.refer(mllm, example.image, example.question, example.region, METHODS[each.method])
        assert (each.answer, each.ids) == (str(outcome.answer), outcome.answer.ids)
        assert each.scores == {"right": float(evaluation.published_match(each.answer, example.names[0], example.names[1:]))}
        assert each.region == [example.region]
        assert each.settings["name"] == type(METHODS[each.method]).__name__
    unsteered, steered = found.records[:2]
    assert unsteered.answer == str(mllm.generate(mllm.prepare(dataset[0].image, dataset[0].question)))
    assert unsteered.share == ()
    assert steered.share[1] > steered.share[0]
    assert steered.settings["steps"] == 2
    assert steered.versions["transformers"]


class Counted:
    """How often a model's vision encoder runs, and with how many images at once; how many tokens its decoder is given."""

    def __init__(self, mllm):
        self.images, self.tokens = [], []
        patches = next(each for each in mllm.model.model.vision_tower.modules() if isinstance(each, torch.nn.Conv2d))
        self.handles = [
            patches.register_forward_hook(lambda module, given, output: self.images.append(len(output))),
            mllm.decoder.register_forward_pre_hook(self._read, with_kwargs=True),
        ]

    def _read(self, module, given, named):
        self.tokens.append(named["inputs_embeds"].shape[1])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


QUESTIONS = ("Describe the object.", "What colour is the object?", "Is the object a red six or a blue one?")


@pytest.mark.slow
@pytest.mark.parametrize("as_file", [True, False])
def test_questions_and_methods_share_what_was_seen_of_their_image(mllm, dataset, tmp_path, as_file):
    """Encoder and prefix run once, and the answers are those of `refer` with the image itself."""
    image = dataset[0].image if as_file else Image.open(dataset[0].image).convert("RGB")
    examples = [cm.data.Example(image, question, dataset[0].region, "a cat") for question in QUESTIONS]
    examples.append(cm.data.Example(dataset[1].image, QUESTIONS[0], dataset[1].region, "a cat"))
    methods = {"unsteered": evaluation.Unsteered(), "keys": cm.methods.KeySteering(steps=1), "drawn": cm.methods.Drawn()}
    methods["plus"] = cm.ControlMLLMPlus(steps=1, contrast=0.0)
    with Counted(mllm) as counted:
        found = cm.evaluate(mllm, examples, methods, progress=False, strict=True)
    # Once to each image, and twice to what each question sends with something drawn on it: to prepare, and to answer.
    assert len(counted.images) == 2 + 2 * len(examples)
    end = mllm.prepare(image, QUESTIONS[0]).image_end
    assert counted.tokens.count(end) == 2
    for each in found.records:
        example = examples[each.id]
        outcome = cm.refer(mllm, example.image, example.question, example.region, methods[each.method], max_new_tokens=30)
        assert (each.answer, each.ids) == (str(outcome.answer), outcome.answer.ids), each.key
        assert each.share == pytest.approx(
            (outcome.trace.steps[0].share, outcome.trace.steps[-1].share) if outcome.trace else ()
        )


def test_one_question_of_an_image_runs_its_encoder_once_and_no_prefix(mllm, dataset):
    with Counted(mllm) as counted:
        cm.evaluate(mllm, dataset, [evaluation.Unsteered()], progress=False, strict=True)
    assert counted.images == [1] * len(dataset)
    prompt = mllm.prepare(dataset[0].image, dataset[0].question)
    assert prompt.image_end not in counted.tokens


@pytest.mark.slow
@pytest.mark.parametrize("batch", [2, 3, 9])
def test_questions_of_an_image_in_one_batch_are_answered_as_one_by_one(mllm, dataset, batch):
    questions = [*QUESTIONS, "Is the object a white star or a magenta diamond, or is it something else?", "Describe it."]
    examples = [cm.data.Example(dataset[0].image, question, dataset[0].region, "a cat") for question in questions]
    examples.insert(2, cm.data.Example(dataset[1].image, QUESTIONS[0], dataset[1].region, "a cat"))
    methods = {"unsteered": evaluation.Unsteered(), "plus": PLUS, "words": cm.methods.Words()}
    alone = cm.evaluate(mllm, examples, methods, progress=False, strict=True)
    calls = []
    generate = mllm.model.generate
    mllm.model.generate = lambda **given: calls.append(len(given.get("inputs_embeds", ()))) or generate(**given)
    try:
        found = cm.evaluate(mllm, examples, methods, batch=batch, progress=False, strict=True)
    finally:
        del mllm.model.generate
    assert answers(found.records).keys() == answers(alone.records).keys()
    for one, other in zip(found.records, alone.records, strict=True):
        assert (one.key, one.answer, one.ids, one.sent) == (other.key, other.answer, other.ids, other.sent)
        assert one.seconds > 0
    # Also of the third question, which is about another image.
    assert max(calls) == min(batch, len(examples))


def test_a_batch_that_fails_is_answered_one_by_one(mllm, dataset, monkeypatch):
    def fails(*given):
        raise torch.OutOfMemoryError("of the batch alone")

    examples = [cm.data.Example(dataset[0].image, question, dataset[0].region, "a cat") for question in QUESTIONS]
    alone = cm.evaluate(mllm, examples, [evaluation.Unsteered()], progress=False)
    monkeypatch.setattr("cmllm_tools.evaluation.answers.answer_together", fails)
    found = cm.evaluate(mllm, examples, [evaluation.Unsteered()], batch=3, progress=False)
    assert not found.failed
    assert answers(found.records) == answers(alone.records)


@pytest.mark.parametrize("batch", [2, 5])
def test_images_in_one_batch_are_answered_as_one_by_one(mllm, batch):
    """Every image runs through the encoder once, also where what is answered ahead is of more images than are kept."""
    dataset = cm.data.read(HELDOUT)[:7]
    alone = cm.evaluate(mllm, dataset, METHODS, progress=False, strict=True)
    calls, generate = [], mllm.model.generate
    mllm.model.generate = lambda **given: calls.append(len(given.get("inputs_embeds", ()))) or generate(**given)
    try:
        with Counted(mllm) as counted:
            found = cm.evaluate(mllm, dataset, METHODS, batch=batch, progress=False, strict=True)
    finally:
        del mllm.model.generate
    for one, other in zip(found.records, alone.records, strict=True):
        assert (one.key, one.answer, one.ids, one.scores) == (other.key, other.answer, other.ids, other.scores)
        assert one.share == pytest.approx(other.share)
    assert max(calls) == batch
    with Counted(mllm) as before:
        cm.evaluate(mllm, dataset, METHODS, progress=False, strict=True)
    assert len(counted.images) == len(before.images)


def test_a_question_that_fails_leaves_the_others_of_its_batch(mllm, dataset):
    examples = [cm.data.Example(dataset[0].image, question, dataset[0].region, "a cat") for question in QUESTIONS]
    rows = list(cm.data.Dataset.of(examples).rows)
    examples[1] = cm.data.Example(dataset[0].image, " ", dataset[0].region, "a cat")
    found = cm.evaluate(mllm, examples, [evaluation.Unsteered()], batch=3, progress=False)
    assert [each.id for each in found.failed] == [1]
    assert len(found.of("unsteered")) == len(rows) - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_each_public_format_is_read_answered_and_scored(mllm, tmp_path, name):
    dataset = cm.data.read(SETS[name](tmp_path))
    scorer = evaluation.Judged(lambda text: "0.5") if name == "vip-bench" else None
    found = cm.evaluate(mllm, dataset, [evaluation.Unsteered()], scorer=scorer, progress=False, strict=True)
    assert len(found.records) == len(dataset)
    figures = found.figures("unsteered")
    wanted = {"published": "right", "strict": "right", "captions": "CIDEr", "judged": "score ocr"}[dataset.scorer]
    assert wanted in figures
    assert all(each.low <= each.mean <= each.high for each in figures.values())


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_run_that_was_ended_goes_on_where_it_was(mllm, dataset, tmp_path, monkeypatch, after):
    path = tmp_path / "records.jsonl"
    whole = cm.evaluate(mllm, dataset, METHODS, progress=False)
    calls = []
    original = cm.evaluation.answers.refer

    def counted(*arguments, **options):
        calls.append(1)
        return original(*arguments, **options)

    def ended(*arguments, **options):
        if len(calls) == after:
            raise KeyboardInterrupt
        return counted(*arguments, **options)

    monkeypatch.setattr(cm.evaluation.answers, "refer", ended)
    first = cm.evaluate(mllm, dataset, METHODS, path=path, progress=False)
    assert not first.complete
    assert len(first.records) == len(evaluation.read_records(path)) == after
    assert "interrupted" in repr(first)
    calls.clear()
    monkeypatch.setattr(cm.evaluation.answers, "refer", counted)
    second = cm.evaluate(mllm, dataset, METHODS, path=path, progress=False)
    assert len(calls) == 6 - after
    assert second.complete
    assert answers(second.records) == answers(whole.records) == answers(evaluation.Evaluation.load(path).records)
    calls.clear()
    cm.evaluate(mllm, dataset, METHODS, path=path, progress=False)
    assert not calls


def killed_runs(mllm, dataset, methods, path, kills, seed):
    """Run, kill at a random moment, and run again, until nothing is left to do; how often it was killed."""
    draw = random.Random(seed)
    wanted, killed = len(dataset) * len(methods), 0
    longest = 0.4
    while True:
        child = os.fork()
        if not child:
            try:
                cm.evaluate(mllm, dataset, methods, path=path, progress=False)
            finally:
                os._exit(0)
        if killed < kills:
            time.sleep(draw.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        if path.exists() and len(evaluation.read_records(path)) == wanted:
            return killed


def survives(mllm, tmp_path, kills, count):
    dataset = cm.data.read(HELDOUT)[:count]
    methods = [evaluation.Unsteered()]
    undisturbed = answers(cm.evaluate(mllm, dataset, methods, progress=False).records)
    killed = run = 0
    while killed < kills:
        path = tmp_path / f"{run}.jsonl"
        killed += killed_runs(mllm, dataset, methods, path, kills - killed, run)
        found = evaluation.read_records(path)
        assert len(found) == len({each.key for each in found}) == count
        assert answers(found) == undisturbed
        run += 1
    return killed, run


def test_nothing_is_lost_or_doubled_by_kills(mllm, tmp_path):
    assert survives(mllm, tmp_path, 3, 8)[0] >= 3


# CMLLM_KILLS=200 kills as often, in some minutes.
KILLS = int(os.environ.get("CMLLM_KILLS", "40"))


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_by_many_kills(mllm, tmp_path):
    killed, runs = survives(mllm, tmp_path, KILLS, 50)
    print(f"{killed} kills in {runs} runs of 50 examples")
    assert killed >= KILLS


def test_a_ranking_loses_and_doubles_nothing_by_kills(mllm, tmp_path):
    """The same runner, with a first line that says what all are of."""
    dataset, settings = cm.data.read(HELDOUT)[:25], {"layers": [0], "progress": False}
    undisturbed = cm.analysis.rank_heads(mllm, dataset, "last", **settings)
    draw, killed, path = random.Random(0), 0, tmp_path / "heads.jsonl"
    while True:
        child = os.fork()
        if not child:
            try:
                cm.analysis.rank_heads(mllm, dataset, "last", path=path, **settings)
            finally:
                os._exit(0)
        if killed < 5:
            time.sleep(draw.uniform(0, 0.4))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
    lines = path.read_bytes().splitlines()
    assert killed <= 5
    assert len(lines) == len(set(lines)) == 26
    found = cm.analysis.rank_heads(mllm, dataset, "last", path=path, **settings)
    assert path.read_bytes().splitlines() == lines
    for name in ("hits", "lift", "pointing_chance"):
        np.testing.assert_array_equal(getattr(found, name), getattr(undisturbed, name))


def test_an_interrupt_while_a_line_is_written_doubles_nothing(mllm, dataset, tmp_path, monkeypatch):
    """It falls after the write, and before the line is known to be on the disk."""
    path, own, calls = tmp_path / "records.jsonl", os.fsync, []

    def fsync(descriptor):
        own(descriptor)
        calls.append(1)
        # The first is the folder's.
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    first = cm.evaluate(mllm, dataset, METHODS, path=path, progress=False)
    assert not first.complete
    assert len(first.records) == len(evaluation.read_records(path)) == 2
    found = cm.evaluate(mllm, dataset, METHODS, path=path, progress=False)
    assert len(found.records) == len(evaluation.read_records(path)) == 6


def spoiled(root, kind):
    """The second line of a ROC set made wrong in one way."""
    file = root / "question_roc.json"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    image = root / "LVIS/image/val2017" / rows[1]["image_path"].rpartition("/")[2]
    if kind == "missing file":
        image.unlink()
    elif kind == "broken image":
        image.write_bytes(image.read_bytes()[:300])
    elif kind == "region outside the crop":
        Image.new("RGB", (600, 150)).save(image)
        rows[1]["bbox"] = [5, 5, 40, 40]
    elif kind == "empty question":
        rows[1]["text"] = " "
    else:
        rows[1]["bbox"] = [180, 180, 90, 90]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


FAULTS = {
    "missing file": ("ImageError", "There is no image at"),
    "broken image": ("ImageError", "cannot be read as an image"),
    "region outside the crop": ("RegionError", "lies outside what the model sees"),
    "region off the image": ("RegionError", "must lie within the image of 192 x 192 px"),
    "empty question": ("DataError", "has a bad text: it must have words"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_an_example_that_fails_is_recorded_and_the_run_goes_on(mllm, tmp_path, kind):
    root, path = roc(tmp_path, 6), tmp_path / "records.jsonl"
    spoiled(root, kind)
    dataset = cm.data.read(root)
    found = cm.evaluate(mllm, dataset, METHODS, path=path, progress=False)
    assert len(found.records) == 12
    # Who does not point at a region misses nothing of one that the model does not see.
    failing = ["plus"] if kind == "region outside the crop" else ["unsteered", "plus"]
    assert [each.key for each in found.failed] == [("7001", name) for name in failing]
    for each in found.failed:
        name, message = FAULTS[kind]
        assert each.error["kind"] == name
        assert message in each.error["message"]
        assert each.where == "question_roc.json, line 2"
        assert each.answer is None
    assert len(found.of("plus")) == 5
    assert "failed: question_roc.json, line 2, plus" in found.table()
    assert found.summary()["methods"]["plus"]["failed"] == 1
    with pytest.raises(cm.CmllmError, match=FAULTS[kind][1]):
        cm.evaluate(mllm, dataset, METHODS, progress=False, strict=True)


def test_what_failed_is_tried_again_when_asked(mllm, tmp_path):
    root, path = roc(tmp_path, 2), tmp_path / "records.jsonl"
    good = (root / "question_roc.json").read_text()
    spoiled(root, "region off the image")
    cm.evaluate(mllm, cm.data.read(root), METHODS, path=path, progress=False)
    (root / "question_roc.json").write_text(good)
    assert len(cm.evaluate(mllm, cm.data.read(root), METHODS, path=path, progress=False).failed) == 2
    mended = cm.evaluate(mllm, cm.data.read(root), METHODS, path=path, progress=False, retry=True)
    assert not mended.failed
    assert len(evaluation.read_records(path)) == 6
    assert len(evaluation.Evaluation.load(path).records) == 4


@dataclass(frozen=True)
class Faulty(cm.Method):
    def intervention(self, mllm, prompt, regions):
        raise ZeroDivisionError("of my own")


def test_errors_of_other_code_are_recorded_as_what_they_are(mllm, dataset):
    found = cm.evaluate(mllm, dataset[:1], [Faulty()], progress=False)
    assert found.failed[0].error == {"kind": "ZeroDivisionError", "message": "ZeroDivisionError('of my own')"}
    assert found.figures("faulty") == {}
    assert "faulty  0       1" in found.table()


def test_a_file_of_another_run_is_refused(mllm, dataset, tmp_path):
    path = tmp_path / "records.jsonl"
    cm.evaluate(mllm, dataset[:1], METHODS, path=path, progress=False)
    with pytest.raises(cm.DataError, match=r"must be of this model and these settings; .* has plus of embedded"):
        cm.evaluate(mllm, dataset[:1], {"plus": cm.ControlMLLMPlus(steps=3)}, path=path, progress=False)
    # A record of before a setting was there had it off.
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        line["settings"].pop("until", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert len(cm.evaluate(mllm, dataset[:1], METHODS, path=path, progress=False).records) == 2
    with pytest.raises(cm.DataError, match="these settings"):
        cm.evaluate(mllm, dataset[:1], {"plus": replace(PLUS, until=2.0)}, path=path, progress=False)
    # Other methods are added, and other examples stay in the file.
    more = cm.evaluate(mllm, dataset[1:], {"three": cm.ControlMLLMPlus(steps=3)}, path=path, progress=False)
    assert len(more.records) == 2
    assert len(evaluation.read_records(path)) == 4
    with pytest.raises(cm.SettingsError, match="layers"):
        cm.evaluate(mllm, dataset, {"plus": cm.ControlMLLMPlus(layers=(0, 99))}, progress=False)
    with pytest.raises(cm.DataError, match="A run needs one example or more for its evaluation"):
        cm.evaluate(mllm, [], METHODS)


def test_methods_have_names_of_their_own():
    named = as_methods([evaluation.Unsteered(), PLUS, cm.ControlMLLMPlus(steps=3), cm.ControlMLLM()])
    assert list(named) == ["unsteered", "controlmllm++", "controlmllm++#2", "controlmllm"]
    assert list(as_methods(None)) == ["unsteered", "controlmllm++"]
    for wrong in ([], {}, 3, ["plus"], {"": PLUS}, [cm.ControlMLLM]):
        with pytest.raises(cm.SettingsError, match=r"[Mm]ethod"):
            as_methods(wrong)


@pytest.mark.slow
def test_shards_together_are_the_whole(mllm, tmp_path):
    dataset = cm.data.read(HELDOUT)[:5]
    whole = cm.evaluate(mllm, dataset, METHODS, progress=False)
    paths = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    for number, path in enumerate(paths, 1):
        cm.evaluate(mllm, dataset.shard(number, 2), METHODS, path=path, progress=False)
    out, count = evaluation.merge(paths, tmp_path / "all.jsonl")
    assert count == 10
    assert answers(evaluation.read_records(out)) == answers(whole.records)


@pytest.mark.slow
def test_two_ways_are_compared_on_the_same_examples(mllm):
    dataset = cm.data.read(HELDOUT)[:12]
    found = cm.evaluate(mllm, dataset, METHODS, scorer="strict", progress=False)
    (difference,) = found.difference("plus", "unsteered")
    ours, theirs = (np.array([each.scores["right"] for each in found.of(name)]) for name in ("plus", "unsteered"))
    better, worse = int((ours > theirs).sum()), int((ours < theirs).sum())
    assert (difference.better, difference.worse) == (better, worse)
    assert difference.mean == (ours - theirs).mean()
    # McNemar's exact test: twice the smaller tail of fair coins.
    from math import comb

    thrown = better + worse
    tail = sum(comb(thrown, heads) for heads in range(min(better, worse) + 1)) / 2**thrown
    assert difference.p == pytest.approx(min(1.0, 2 * tail))
    assert f"{better} better, {worse} worse" in str(difference)
    half = replace(found, records=found.records[:10])
    assert found.difference("plus", "plus", half)[0].count == 5
    with pytest.raises(cm.DataError, match="The method must be 'unsteered' or 'plus'; got 'other'"):
        found.difference("other", "plus")


def test_examples_of_ones_own_are_a_set(mllm):
    examples = [cm.data.Example(each.image, each.question, each.region("box"), each.names[0]) for each in scenes(2)]
    found = cm.evaluate(mllm, examples, [evaluation.Unsteered()], progress=False)
    assert [each.where for each in found.records] == ["example 0", "example 1"]
    assert found.records[0].image is None
    assert found._repr_html_()


@pytest.mark.slow
def test_effects_are_the_baselines(mllm, dataset):
    found = cm.evaluate(mllm, dataset[:1], METHODS, effects=True, progress=False)
    example = dataset[0]
    baseline = cm.Baseline(mllm, example.image, example.question, candidates=(example.answer, *example.alternatives))
    outcome = cm.refer(mllm, example.image, example.question, example.region, PLUS, max_new_tokens=30)
    effect, plain = baseline.effect(outcome), baseline.unsteered(example.region)
    nothing, steered = (each.scores for each in found.records)
    assert nothing["gain"] == nothing["damage"] == nothing["own damage"] == 0
    assert steered["gain"] == pytest.approx(effect.log_odds[0] - plain.log_odds[0], abs=1e-5)
    assert steered["damage"] == pytest.approx(effect.damage, abs=1e-6)
    assert set(found.figures("plus")) == {"right", "gain", "damage", "own damage", "share before", "share"}


def test_words_fill_in_the_place(mllm, tmp_path):
    dataset = cm.data.read(roc(tmp_path, 2), place=True)
    words = cm.methods.Words()
    found = cm.evaluate(mllm, dataset, {"unsteered": evaluation.Unsteered(), "words": words}, progress=False)
    plain, placed = found.records[:2]
    assert plain.sent == cm.data.read(tmp_path / "ROC")[0].question
    assert placed.sent == placed.question.replace("{place}", placed.sent.partition("object ")[2].partition(" a ")[0])
    assert "{place}" not in placed.sent
