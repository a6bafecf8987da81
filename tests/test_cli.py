import argparse
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.bench import embedded as evaluation
from cmllm_tools.cli import _parser, main, options
from cmllm_tools.cli.evaluate import methods_of
from cmllm_tools.models.families import FAMILIES

ROOT = Path(__file__).parents[1]


@pytest.fixture
def picture(tmp_path, example):
    path = tmp_path / "scene.png"
    example.image.save(path)
    return str(path)


@pytest.fixture(autouse=True)
def _own_warnings(monkeypatch):
    import warnings

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


def test_demo_steers_to_the_object(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    before, after = (re.search(rf"^{word}\s+(.*)$", printed, re.M).group(1) for word in ("before", "after"))
    from cmllm_tools.bench.heldout import DEMO_SCENE, HELDOUT
    from cmllm_tools.data.formats.roc import read_roc

    target = read_roc(HELDOUT)[DEMO_SCENE].names[0]
    assert target in after
    assert target not in before
    assert "energy" in printed
    trace = cm.Trace.load(tmp_path / "new/demo.safetensors")
    assert trace.steps[-1].answer == after
    assert "plotly" in (tmp_path / "new/demo.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("method", "region"),
    [
        ("controlmllm", ["--box", "10", "10", "60", "60"]),
        ("published", ["--scribble", "20,20", "40,50"]),
        ("controlmllm++", ["--point", "30", "40"]),
    ],
    ids=lambda given: given if isinstance(given, str) else given[0],
)
def test_steer(picture, region, method, capsys, tmp_path):
    out = tmp_path / "run.safetensors"
    arguments = ["--method", method, "--steps", "2", "--layers", "1:4", "--dtype", "float32", "--out", str(out)]
    assert main(["steer", picture, "describe the object.", *region, *arguments]) == 0
    trace = cm.Trace.load(out)
    assert trace.layers == (1, 2, 3)
    assert len(trace) == 3
    assert "before" in capsys.readouterr().out


def test_steer_with_mask_settings_and_page(picture, tmp_path, capsys):
    mask = np.zeros((192, 192), np.uint8)
    mask[20:80, 30:90] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    page = tmp_path / "page.html"
    code = main(
        [
            "steer",
            picture,
            "what is this ?",
            "--mask",
            str(tmp_path / "mask.png"),
            "--step-size",
            "0.02",
            "--queries",
            "this",
            "--sigma",
            "0.3",
            "--steps",
            "1",
            "--html",
            str(page),
            "--device-map",
            "cpu",
        ]
    )
    assert code == 0
    assert page.stat().st_size > 1e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.png", "what ?", "--point", "1", "1"], "There is no image at no.png"),
        (["{}", "", "--point", "1", "1"], "at least one word"),
        (["{}", "what ?", "--point", "1", "999"], "within the image of 192 x 192 px; got (1, 999)"),
        (["{}", "what ?", "--box", "9", "9", "3", "3"], "x0 < x1"),
        (["{}", "what ?", "--point", "1", "1", "--layers", "3:99"], "0 <= a < b <= 6"),
        (["{}", "what ?", "--point", "1", "1", "--queries", "zebra"], "'zebra'"),
        (["{}", "what ?", "--point", "1", "1", "--steps", "0"], "steps must be"),
        (["{}", "what ?", "--point", "1", "1", "--out", "no/such/dir/x"], "there is no no/such/dir"),
        (["{}", "what ?", "--point", "1", "1", "--html", "/proc/x.html"], "cannot be written"),
    ],
)
def test_input_that_cannot_be_used_ends_with_one_line(picture, arguments, message, capsys):
    assert main(["steer", *(argument.format(picture) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    line = [text for text in captured.err.splitlines() if text.startswith("cmllm: ")]
    assert len(line) == 1
    assert message in line[0]
    assert "Traceback" not in captured.err


def test_output_path_is_checked_before_the_model_is_loaded(picture, monkeypatch, capsys):
    def never(**_):
        raise AssertionError("loaded before the path was checked")

    monkeypatch.setattr("cmllm_tools.cli.steer.load", never)
    assert main(["steer", picture, "what ?", "--point", "1", "1", "--out", "no/such/dir/x"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["steer", "a.png", "q"],
        ["steer", "a.png", "q", "--scribble", "1;2"],
        ["steer", "a", "q", "--point", "1", "1", "--layers", "3"],
        [],
    ],
)
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_interrupted_steer_keeps_its_trace(picture, tmp_path, monkeypatch, capsys):
    def interrupt(self, run, step):
        if step.number == 1:
            raise KeyboardInterrupt

    # There is no progress bar without a terminal.
    monkeypatch.setattr(cm.Answers, "on_step", interrupt)
    out = tmp_path / "run.safetensors"
    assert main(["steer", picture, "describe the object.", "--point", "30", "40", "--out", str(out)]) == 130
    assert cm.Trace.load(out).stopped == "interrupted"
    assert "interrupted" in capsys.readouterr().out


@pytest.mark.slow
def test_eval_prints_one_json_object(capsys):
    assert main(["eval", "embedded", "--n", "1", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["n"] == 1
    assert set(result) == {"n", "unsteered", "controlmllm", "controlmllm_plus", "key_steering", "seconds"}
    assert set(result["unsteered"]) == {"describe_valid", "a_or_b", "marked", "marked_by_overlay"}
    for method in ("controlmllm", "controlmllm_plus", "key_steering"):
        assert set(result[method]) == {"box", "mask", "scribble", "point", "random_background"}
        for figures in result[method].values():
            assert set(figures) == {"a_or_b", "describe", "hallucinated"}
            assert all(0 <= value <= 1 for value in figures.values())
    assert "scenes" in captured.err
    assert main(["eval", "embedded", "--n", "0"]) == 2
    assert main(["eval", "embedded", "--skip", "-1"]) == 2
    assert main(["eval", "embedded", "--skip", "501"]) == 2


@pytest.mark.slow
def test_what_eval_measures_shows_that_steering_works(mllm):
    methods = {"controlmllm_plus": cm.ControlMLLMPlus(), "key_steering": cm.methods.KeySteering()}
    found = evaluation.evaluate(8, mllm, methods, regions=["box"])
    assert len(found["unsteered"]["marked_by_overlay"]) == 8
    assert min(found[method]["box"]["a_or_b"] for method in methods) >= 0.75


def test_answers_are_scored_strictly(example):
    names = set(example.objects)
    (other, *_) = names - set(example.names)
    assert evaluation.chooses(example.names[0], example)
    assert not evaluation.chooses(other, example)
    assert not evaluation.chooses(f"{example.names[0]} or {other}", example)
    assert evaluation.absent_names("red circle at the top", ["blue star"]) == ["red circle"]
    assert evaluation.absent_names("blue star at the top", ["blue star"]) == []


def test_control_box_touches_no_object():
    from cmllm_tools.bench.heldout import HELDOUT
    from cmllm_tools.data.formats.roc import read_roc

    for example in read_roc(HELDOUT)[:40]:
        control = evaluation.background_box(example, np.random.default_rng(0))
        control.check(192, 192)
        for thing in example.data["objects"]:
            x, y, width, height = thing["bbox"]
            apart = control.x0 >= x + width or x >= control.x1 or control.y0 >= y + height or y >= control.y1
            assert apart


@pytest.mark.slow
def test_heads_ranks_and_writes(tmp_path, capsys):
    saved, page = tmp_path / "heads.json", tmp_path / "heads.html"
    arguments = ["heads", "embedded", "--n", "12", "--out", str(saved), "--html", str(page)]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    ranking = cm.analysis.HeadRanking.load(saved)
    assert (result["model"], result["examples"], result["queries"]) == ("embedded", 12, "name")
    assert [(row["layer"], row["head"]) for row in result["heads"]] == list(ranking.order)
    assert result["top"] == result["heads"][:4]
    assert result["top"][0]["pointing"] > 0.9 > result["pointing_mean"] > result["pointing_chance"]
    text = page.read_text(encoding="utf-8")
    assert text.count("plotly.js v") == 1
    assert "<title>Heads that find the object, 12 examples</title>" in text
    assert main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 6
    assert printed[-1].startswith("mean of all 36 heads: pointing")


def test_heads_of_a_folder_by_other_queries(capsys):
    from cmllm_tools.bench.heldout import HELDOUT

    arguments = ["heads", str(HELDOUT), "--n", "3", "--skip", "2", "--queries", "last", "--region", "point", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/folder"], "there is no"),
        (["embedded", "--n", "0"], "--n must be at least 1"),
        (["embedded", "--skip", "500"], "At least one example is needed"),
        (["embedded", "--n", "2", "--queries", "zebra"], "'zebra'"),
        (["embedded", "--out", "no/such/dir/x"], "there is no"),
    ],
)
def test_heads_refuses_what_it_cannot_use(arguments, message, capsys):
    assert main(["heads", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_families_lists_the_table(capsys):
    assert main(["families", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"family", "way_in", "layout", "key_steering", "several_images", "video", "causes", "tested", "notes"} == set(
        rows[0]
    )
    assert [row["family"] for row in rows] == sorted(FAMILIES)
    assert main(["families"]) == 0
    plain = capsys.readouterr().out.splitlines()
    assert len(plain) == len(rows) + 1
    assert "llava_next" in next(line for line in plain if "anyres" in line and "llava_next " in line)


def test_documents_are_made_from_the_table():
    """`make families` makes them anew."""
    spec = importlib.util.spec_from_file_location("families_page", ROOT / "docs/families.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert (ROOT / "docs/families.md").read_text(encoding="utf-8") == page.page()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page.readme(text) == text


def test_mask_option_marks_what_was_drawn(tmp_path):
    """An RGBA drawing on nothing: 961 of 9216 px, where all were marked."""
    image = Image.new("RGBA", (96, 96), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (20, 30, 51, 61))
    image.save(tmp_path / "mask.png")
    parser = argparse.ArgumentParser()
    options.add_region(parser)
    region = options.region_of(parser.parse_args(["--mask", str(tmp_path / "mask.png")]))
    assert repr(region) == "Mask(961 of 96 x 96 px)"
    assert region.bounds == (20, 30, 51, 61)


def test_what_is_misspelt_is_met_with_what_was_meant(capsys):
    region = ["--box", "1", "2", "3", "4"]
    for arguments, meant in (
        (["steer", "a.png", "what?", *region, "--stpes", "3"], "--steps"),
        (["steer", "a.png", "what?", *region, "--method", "KeyStering"], "key-steering"),
        (["stear"], "steer"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert " ".join(capsys.readouterr().err.split()).endswith(f"Did you mean {meant}?")


def test_methods_have_their_classes_names_too():
    assert _parser(["sweep"]).parse_args(["sweep", "embedded", "--method", "ControlMLLMPlus"]).method == "controlmllm++"
    assert methods_of(["KeySteering:steps=2"])["KeySteering:steps=2"] == cm.methods.KeySteering(steps=2)
