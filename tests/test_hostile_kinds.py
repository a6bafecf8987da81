"""What hostile values have shown, by kind: what is refused, in which words, and what is right beside it."""

import gc
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hostile_results import made_ranking, made_sweep

import cmllm_tools as cm
from cmllm_tools import analysis, figures, widgets
from cmllm_tools.analysis.examples import as_examples
from cmllm_tools.bench.stopping import rule_beside_fixed, stops
from cmllm_tools.evaluation.matching import names_it, reference_match, strict_match
from cmllm_tools.loading import EMBEDDED_MODEL
from cmllm_tools.referring.methods.key_steering import KeySteering
from cmllm_tools.show.cards.analysis import sweep_pictures


@pytest.mark.parametrize("region", [cm.Box(0, 0, 1, 2), cm.Point(0, 1), cm.Scribble([(0, 0), (0, 1)])], ids=repr)
def test_sizes_that_nothing_holds_are_refused(region):
    with pytest.raises(cm.RegionError, match=r"at most 268435456 pixels to be gone through; got 1000000 x 1000000 px"):
        region.cover(10**6, 10**6)
    assert region.cover(2, 3)[1].tolist() == [1, 0]
    assert region.cover(2, 3)[2].tolist() == [0, 0]


def test_grids_steps_and_windows_that_nothing_holds_are_refused():
    boxes = np.array([[0, 0, 4, 4]])
    with pytest.raises(cm.UnsupportedModelError, match="many times more cells than visual tokens; got 1000000 x 1000000"):
        cm.VisualTokenLayout((4, 4), boxes, (10**6, 10**6), "merged", True)
    assert cm.VisualTokenLayout((4, 4), boxes, (2, 2), "merged", True).raster(np.ones(1)).tolist() == [[0.25] * 2] * 2
    with pytest.raises(cm.SettingsError, match="b at most 1000"):
        analysis.Choice((0, 10**6), "text")
    with pytest.raises(cm.SettingsError, match=r"steps must be a whole number of at most 1e\+06"):
        cm.ControlMLLM(steps=10**400)


def test_flags_and_texts_are_not_read_by_their_truth(mllm, prompt):
    held = (mllm.model, mllm.processor)
    for options, words in (
        ({"check": "no"}, "check must be True or False"),
        ({"trust_remote_code": 1}, "trust_remote_code must be True or False"),
        ({"revision": 7}, "A revision must be a text"),
        ({"layout": np.zeros(2)}, "layout must be 'table' or 'probe'"),
    ):
        with pytest.raises(cm.UnsupportedModelError, match=words):
            cm.load(held, **options)
    with pytest.raises(cm.UnsupportedModelError, match="A model's name must be a text"):
        cm.Mllm(*held, name=["m"])
    with pytest.raises(cm.PromptError, match="replayed must be True or False"):
        prompt.check(mllm, replayed="no")
    with pytest.raises(cm.UnsupportedModelError, match="must be an Mllm"):
        prompt.check(mllm.model)
    prompt.check(mllm, replayed=np.True_)
    with pytest.raises(cm.SettingsError, match="The reason to stop must be a text"):
        cm.Steering(mllm, prompt, cm.Point(50, 50)).stop(7)


def test_ids_that_the_model_cannot_say_are_refused(mllm, prompt):
    beyond = mllm.model.config.get_text_config().vocab_size
    for options in ({"suppress_tokens": [beyond]}, {"bad_words_ids": [[1, beyond]]}, {"eos_token_id": beyond}):
        with pytest.raises(cm.SettingsError, match=rf"must be a whole number in 0\.\.{beyond - 1}; got {beyond}"):
            mllm.generate(prompt, **options)
    first = mllm.generate(prompt, max_new_tokens=1).ids[0]
    assert mllm.generate(prompt, max_new_tokens=1, suppress_tokens=[first]).ids[0] != first
    with pytest.raises(cm.PromptError, match="Each of Token ids"):
        mllm.words([10**400])


@pytest.mark.parametrize(
    "values", [torch.tensor(1.0), torch.ones(4, device="meta"), torch.ones(4).to_sparse(), torch.ones(4) * 1j]
)
def test_tensors_that_hold_no_numbers_are_refused(values):
    with pytest.raises(cm.CaptureError, match="must be a tensor with some attention"):
        cm.hard_energy(values, torch.ones(4))
    with pytest.raises(cm.RegionError, match="one finite share or distance for each"):
        cm.hard_energy(torch.ones(4), values)
    assert cm.hard_energy(torch.ones(4), torch.tensor([1.0, 1, 0, 0])) == 0.25


def test_matchers_read_texts():
    for call in (
        lambda: reference_match("a cat", 7),
        lambda: reference_match(b"a cat", ["cat"]),
        lambda: strict_match("a cat", "cat", []),
        lambda: strict_match("a cat", ["cat"], [None]),
        lambda: names_it(None, "cat"),
    ):
        with pytest.raises(cm.DataError, match=r"must be (several )?texts"):
            call()
    assert reference_match("a cat", "cat")
    assert strict_match("a cat", iter(["cat"]), iter(["dog"]))


def test_lines_have_as_many_positions_as_values_and_may_have_gaps():
    figure = figures.curves({"a": (torch.arange(3), [1, None, float("nan")])}, "step", "y")
    assert list(figure.data[0].y) == [1, None, None]
    for lines, words in (
        ({"a": ([0, 1], [1])}, "as many positions as values; 'a' has 2 and 1"),
        ({"a": ([0], ["x"])}, "Each of the values of 'a' must be a finite number; got 'x'"),
        ({"a": (range(10**18), [1])}, "the positions of 'a' must be several numbers, at most"),
        ({7: ([0], [1])}, "The name of a line must be a text; got 7"),
    ):
        with pytest.raises(cm.SettingsError, match=words):
            figures.curves(lines, "step", "y")
    with pytest.raises(cm.SettingsError, match="The x axis of curves must be a text"):
        figures.curves({}, 7, "y")


def test_alternatives_are_several_texts(example, box):
    given = analysis.Example(example.image, example.question, box, "red circle", ("blue square",))
    assert as_examples([given]) == [given]
    for wrong, words in (("blue square", "Alternatives must be several texts"), ((7,), "An answer must be a text; got 7")):
        with pytest.raises(cm.DataError, match=words):
            as_examples([replace(given, alternatives=wrong)])


def test_a_sweep_is_asked_for_what_it_has():
    sweep = made_sweep()
    for call, words in (
        (lambda: sweep.figure("zebra"), "A sweep's figure must be"),
        (lambda: sweep.rows(7), "A sweep's figure must be"),
        (lambda: sweep.grid("moved", "zebra"), "must be one that was swept"),
        (lambda: sweep_pictures(sweep, "moved", (0, 1)), "What is framed must be a Choice"),
        (lambda: sweep.table(0), "The number of rows must be a whole number of at least 1"),
        (lambda: sweep.subset([3]), r"in 0\.\.2; got 3"),
        (lambda: analysis.recommend(None), "made from a Sweep"),
    ):
        with pytest.raises(cm.DataError, match=words):
            call()
    assert sweep.subset(np.array([2])).examples == ("c",)
    assert sweep.grid("moved", "last")[0].tolist() == sweep.means("moved")[[1, 3]].tolist()
    assert len(sweep.table(np.int64(1)).splitlines()) == 2


def test_rows_of_a_ranking_are_of_heads_that_were_ranked():
    ranking = made_ranking()
    for pairs in ([(1, 0)], [(0, 2)], [0], "ab", 7, [(0.5, 1)]):
        with pytest.raises(cm.CaptureError):
            ranking.rows(pairs)
    (row,) = ranking.rows(iter([(2, 1)]))
    assert (row["layer"], row["head"], row["pointing"], row["over_chance"]) == (2, 1, 1.0, 1.0)


def test_measures_of_maps_read_their_settings(mllm, prompt):
    values = np.arange(len(prompt.visual))
    common = {"progress": False}
    for call, words in (
        (lambda: analysis.infidelity(mllm, prompt, None, values, samples=0, **common), "samples must be a whole number"),
        (lambda: analysis.infidelity(mllm, prompt, None, values[:-1], **common), "one finite value for each"),
        (lambda: analysis.sensitivity(mllm, prompt, radius=-1, **common), "radius must be a finite number of at least 0"),
        (lambda: analysis.sensitivity(mllm, prompt, seed=1.5, **common), "The seed must be a whole number"),
        (lambda: analysis.insertion_deletion(mllm, prompt, None, values, seed="1", **common), "The seed must be"),
        (lambda: analysis.sensitivity(mllm, prompt, progress=values), "progress must be True or False"),
        (lambda: analysis.agreement(mllm, prompt, also=[values], **common), "Further maps must be given by name"),
        (lambda: analysis.agreement(mllm, prompt, points=0, **common), "Curves need at least 1 point"),
    ):
        with pytest.raises(cm.SettingsError, match=words):
            call()
    still = analysis.sensitivity(mllm, prompt, "red circle", "input_x_gradient", radius=0, samples=np.int64(1), **common)
    assert still == 0


def test_an_example_reads_its_answers_once(prompt, box):
    example = analysis.Example(prompt.image, "what ?", box, "red", np.array(["blue", "green"]))
    assert example.alternatives == ("blue", "green")
    assert analysis.Example(prompt.image, "what ?", box, "red", iter(["blue"])).alternatives == ("blue",)
    for answer, alternatives in ((None, np.array(["a", "b"])), ("red", "blue"), ("red", [1]), (1, ())):
        with pytest.raises(cm.DataError, match=r"must be|has no answer"):
            analysis.Example(prompt.image, "what ?", box, answer, alternatives)


def test_widgets_refuse_in_the_packages_words(mllm, prompt, box, example):
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1))
    for call, error, words in (
        (lambda: widgets.AttentionExplorer(mllm, prompt, layer=1.5), cm.CaptureError, "layer must be a whole number"),
        (lambda: widgets.AttentionExplorer(mllm, prompt, answer="no"), cm.CaptureError, "answer must be True or False"),
        (lambda: widgets.StepPlayer(trace, step=1.5), cm.TraceError, "step must be a whole number"),
        (lambda: widgets.StepPlayer(None), cm.TraceError, "A player's trace must be one from optimize"),
        (lambda: widgets.RegionPicker(example.image, sigma="a"), cm.RegionError, "sigma must be a finite number"),
        (lambda: widgets.RegionPicker(example.image, layout=7), cm.RegionError, "A layout must be a VisualTokenLayout"),
        (lambda: widgets.RegionPicker(example.image, np.zeros(2)), cm.RegionError, "A region must be a Box"),
    ):
        with pytest.raises(error, match=words):
            call()
    picker = widgets.RegionPicker(example.image, box)
    with pytest.raises(cm.RegionError, match="A region must be a Box"):
        picker.regions = None
    assert picker.regions == (box,)
    assert widgets.StepPlayer(trace, step=np.int64(0)).step == 0


def test_a_panel_that_was_refused_goes_without_a_word(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with pytest.raises(cm.UnsupportedModelError, match="must be an Mllm"):
        widgets.Workbench(None, None)
    gc.collect()
    assert told == []


def test_new_calls_refuse_in_the_packages_words(mllm, prompt, example):
    for call, error, words in (
        (lambda: rule_beside_fixed(1), cm.SettingsError, "shown on the other, must be a whole number of at least 2; got 1"),
        (
            lambda: rule_beside_fixed(2, way="Crop"),
            cm.SettingsError,
            "way must be 'KeySteering' or 'ControlMLLMPlus'; got 'Crop'",
        ),
        (lambda: stops(mllm, [example], KeySteering(steps=1), [2]), cm.SettingsError, "at least as many as the longest"),
        (lambda: stops(mllm, [7], KeySteering(steps=1), [1]), cm.SettingsError, "must be a ReferringExample"),
        (
            lambda: cm.ControlMLLM(step_size=1.0).times("2"),
            cm.SettingsError,
            "factor of a strength must be a finite number",
        ),
        (lambda: analysis.Sweep.load(None), cm.DataError, "None is none"),
        (lambda: cm.causes.knockout(mllm, prompt, layers=7), cm.CaptureError, "the layers must be several whole numbers"),
        (lambda: cm.causes.HeadsPut(torch.ones(1, 2), None, (0,)), cm.CaptureError, r"\(layer, head\) pairs, as"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_folders_that_hold_no_checkpoint_are_refused_in_a_few_words(tmp_path):
    config = json.loads((EMBEDDED_MODEL / "config.json").read_text(encoding="utf-8"))
    files = {file.name: file.read_bytes() for file in EMBEDDED_MODEL.iterdir() if file.is_file()}
    cut = {name: data[:1000] if name.endswith(".safetensors") else data for name, data in files.items()}
    for number, content in enumerate(
        (
            {},
            {"config.json": b"["},
            files | {"config.json": json.dumps(config | {"text_config": 7}).encode()},
            files | {"config.json": json.dumps(config | {"model_type": ["llava"]}).encode()},
            cut,
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)
        with pytest.raises(cm.UnsupportedModelError) as caught:
            cm.load(folder)
        assert len(str(caught.value)) < 1200, caught.value
    for name in (5000 * "x", "\ud800", "a\0b", "~nobody/x"):
        with pytest.raises(cm.UnsupportedModelError) as caught:
            cm.load(name)
        assert len(str(caught.value).encode()) < 1200
