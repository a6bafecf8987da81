"""Published tables: the runs that they rest on, their figures, and a small set in the same format run to its end."""

import json
from types import SimpleNamespace

import pytest
from small_sets import refcocog, roc, rtc
from tiny_families import TINY

import cmllm_tools as cm
from cmllm_tools import evaluation
from cmllm_tools.cli import main
from cmllm_tools.evaluation import published as module
from cmllm_tools.evaluation.published import FIGURES, Table


def table(method, name, preset=None, mllm=None):
    return Table.of(mllm or cm.load(), method, name, preset)


# Paper and code (METHOD.md): method, table, preset, and of the run T as updates, contrast, and how the answer is made.
RUNS = [
    ("controlmllm", "roc", "llava-1.5", 5, None, 30),
    ("controlmllm", "rtc", "llava-1.5", 4, None, 30),
    ("controlmllm++", "roc", "llava-1.5", 3, 0.7, 30),
    ("controlmllm++", "rtc", "llava-1.5", 1, 0.7, 30),
    ("controlmllm++", "refcocog", "llava-1.5", 3, 0.1, 50),
    ("controlmllm++", "screenspot", "llava-1.5", 2, 0.1, 30),
    ("controlmllm++", "roc", "qwen2.5-vl", 1, 0.0, 30),
    ("controlmllm++", "rtc", "qwen2.5-vl", 2, 0.0, 30),
]


@pytest.mark.parametrize(("method", "name", "preset", "steps", "contrast", "tokens"), RUNS)
def test_a_table_is_run_as_it_was_published(mllm, method, name, preset, steps, contrast, tokens):
    found = table(method, name, preset, mllm)
    run = found.steered()
    assert (run.steps, getattr(run, "contrast", None)) == (steps, contrast)
    assert run.rule == "reference"
    assert found.options() == {"max_new_tokens": tokens}
    assert found.published == FIGURES[method][preset][name]
    assert found.figure == ("CIDEr" if name in ("refcocog", "screenspot") else "right")


def test_all_tables_are_tried():
    known = {(method, name, preset) for method, models in FIGURES.items() for preset in models for name in models[preset]}
    assert known == {run[:3] for run in RUNS}


def test_the_model_tells_its_preset():
    for (kind, layers), preset in module.MODELS.items():
        like = cm.load()
        like.__dict__ |= {
            "model": SimpleNamespace(config=SimpleNamespace(model_type=kind)),
            "attention_modules": {0: layers - 1},
        }
        assert table("controlmllm++", "roc", None, like).preset == preset
        # ControlMLLM's paper has no Qwen2.5-VL: its run is that of a model in hand.
        assert table("controlmllm", "roc", None, like).preset == (preset if preset in FIGURES["controlmllm"] else "")
    # One that the papers do not have takes the published code's settings for a model in hand.
    own = table("controlmllm", "roc")
    assert own.preset == ""
    assert own.steered() == cm.ControlMLLM.published()
    assert table("controlmllm", "rtc").steered().steps == 4


@pytest.mark.slow
def test_qwen_is_asked_with_coordinates_and_sees_no_more_pixels(tmp_path):
    mllm = cm.load(TINY["qwen2_5_vl"]())
    before = dict(mllm.processor.image_processor.size)
    found = module._bounded(mllm, module.MAX_PIXELS["qwen2.5-vl"])
    assert found.processor.image_processor.size["longest_edge"] == 512 * 28 * 28
    assert dict(mllm.processor.image_processor.size) == before
    dataset = table("controlmllm++", "roc", "qwen2.5-vl", mllm).dataset(roc(tmp_path).parent, "box")
    assert "box @ [" in dataset[0].question
    assert "box @ [" not in table("controlmllm++", "roc", "llava-1.5", mllm).dataset(tmp_path, "box")[0].question


@pytest.mark.slow
def test_a_small_set_is_run_and_gone_on_with(mllm, tmp_path, monkeypatch, capsys):
    """Unsteered once, each kind of region as `refer` answers, by the published matcher; resumed without a run."""
    folder, path = roc(tmp_path / "data", 3).parent, tmp_path / "records.jsonl"
    found = evaluation.reproduce(mllm, "controlmllm", "roc", folder, path=path, progress=False)
    assert found.run.methods == ("unsteered", "box", "mask", "scribble", "point")
    assert len(found.run.records) == len(evaluation.read_records(path)) == 15
    assert found.of == 3
    dataset = cm.data.read(folder, "roc", region="point")
    for record in found.run.of("point"):
        example = next(each for each in dataset if each.id == record.id)
        method = cm.ControlMLLM.published()
        outcome = cm.refer(mllm, example.image, example.question, example.region, method, max_new_tokens=30)
        assert record.answer == str(outcome.answer)
        assert record.scores["right"] == evaluation.published_match(record.answer, example.names[0], example.names[1:])
    rows = found.summary()["rows"]
    assert rows["scribble"]["published"] == 58.33
    assert rows["box"]["n"] == 3
    assert "is no model of the paper's" in found.text()
    monkeypatch.setattr(evaluation.answers, "refer", None)
    assert main(["reproduce", "controlmllm", "--table", "roc", "--data", str(folder), "--out", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "ControlMLLM, arXiv 2407.21534, roc" in shown
    assert "60.59 %" in shown
    assert main(["reproduce", "controlmllm", "--table", "roc", "--data", str(folder), "--out", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == rows


@pytest.mark.slow
def test_part_of_a_table(mllm, tmp_path, capsys):
    folder = rtc(tmp_path, 3).parent
    options = ["--regions", "mask", "--n", "2"]
    assert main(["reproduce", "controlmllm", "--table", "rtc", "--data", str(folder), *options]) == 0
    shown = capsys.readouterr().out
    assert "Not all of the 3 examples of the published split are answered: unsteered, mask." in shown
    refcocog(tmp_path, 2)
    described = evaluation.reproduce(mllm, "controlmllm++", "refcocog", tmp_path, count=2, progress=False)
    assert described.found("box").mean >= 0
    assert described.summary()["rows"]["unsteered"]["published"] == 55.61


def test_what_was_not_published_is_refused(mllm, tmp_path):
    for given, message in (
        (("other", "roc"), "The method must be"),
        (("controlmllm", "other"), "The table must be"),
        (("controlmllm", "refcocog"), "has for llava-1.5 the tables roc, rtc; got refcocog"),
        (("controlmllm", "roc", "qwen2.5-vl"), "has figures for llava-1.5; got the preset 'qwen2.5-vl'"),
    ):
        with pytest.raises(cm.SettingsError, match=message):
            Table.of(mllm, *given)
    with pytest.raises(cm.SettingsError, match="A kind of region of this table"):
        evaluation.reproduce(mllm, "controlmllm", "rtc", rtc(tmp_path), regions=["point"], progress=False)
    for given in ({"regions": []}, {"count": 1.5}, {"count": 0}):
        with pytest.raises(cm.SettingsError, match=r"one kind of region or more|count must be a whole number"):
            evaluation.reproduce(mllm, "controlmllm", "rtc", tmp_path, progress=False, **given)
    with pytest.raises(cm.DataError, match="list of examples"):
        evaluation.reproduce(mllm, "controlmllm", "roc", tmp_path / "RTC", progress=False)
