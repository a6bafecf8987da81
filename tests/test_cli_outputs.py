"""Outputs of the commands: none replaces what is read or another, none is lost, and what was written is said."""

import os

import numpy as np
import pytest
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.cli import main
from cmllm_tools.cli.options import check_outputs
from cmllm_tools.referring import tensor_file


@pytest.fixture
def picture(tmp_path, example):
    example.image.save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def steer(picture, *arguments):
    return main(["steer", str(picture), "describe the object.", "--steps", "1", *map(str, arguments)])


@pytest.mark.parametrize("output", ["--out", "--html"])
def test_an_output_does_not_replace_an_input(picture, tmp_path, output, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((192, 192), 255, np.uint8)).save("mask.png")
    (tmp_path / "link.png").symlink_to(picture)
    (tmp_path / "hard.png").hardlink_to(picture)
    before = picture.read_bytes(), (tmp_path / "mask.png").read_bytes()
    for path in ("scene.png", "./scene.png", picture, "link.png", "hard.png", "mask.png"):
        assert steer(picture, "--mask", "mask.png", output, path) == 2
        assert f"{output} must not replace what is read" in capsys.readouterr().err
    assert (picture.read_bytes(), (tmp_path / "mask.png").read_bytes()) == before


def test_an_output_does_not_replace_a_file_of_an_input_folder(tmp_path):
    (tmp_path / "set/image").mkdir(parents=True)
    (tmp_path / "set/question_roc.json").write_text("{}")
    for name in ("set/question_roc.json", "set"):
        with pytest.raises(cm.OutputError, match=r"must not replace what is read|is a folder"):
            check_outputs({"--out": tmp_path / name}, str(tmp_path / "set"))
    # A new file beside them replaces nothing.
    check_outputs({"--out": tmp_path / "set/heads.json"}, str(tmp_path / "set"), None, "hub/id")


def test_two_outputs_are_two_files(picture, tmp_path, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for one, other in (("x", "x"), ("x", "sub/../x"), ("x", "link")):
        (tmp_path / "sub").mkdir(exist_ok=True)
        code = steer(picture, "--point", 30, 40, "--out", tmp_path / one, "--html", tmp_path / other)
        assert code == 2
        assert "--out and --html must be two files" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.filterwarnings("default")
def test_a_trace_that_cannot_be_saved_is_shown_and_said(picture, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(tensor_file, "save", full)
    assert steer(picture, "--point", 30, 40, "--out", tmp_path / "run") == 2
    captured = capsys.readouterr()
    assert "after     " in captured.out and "energy" in captured.out
    assert "run cannot be written: No space left on device" in captured.err


def test_a_second_run_into_one_file_replaces_it_when_it_is_whole(picture, tmp_path, capsys):
    out = tmp_path / "run.safetensors"
    for steps in (1, 2):
        assert steer(picture, "--point", 30, 40, "--out", out, "--steps", steps) == 0
        assert len(cm.Trace.load(out)) == steps + 1
        assert f"trace     {out}\n" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.safetensors", "scene.png"]


def test_demo_runs_again_into_its_folder_and_says_when_it_cannot(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    assert "output folder must be one that can be made" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_written_is_said(tmp_path, capsys):
    ranking, page, sweep = tmp_path / "heads.json", tmp_path / "page.html", tmp_path / "sweep.json"
    assert main(["heads", "embedded", "--n", "2", "--out", str(ranking), "--html", str(page)]) == 0
    assert capsys.readouterr().err.endswith(f"ranking   {ranking}\npage      {page}\n")
    example = tmp_path / "scene.png"
    Image.new("RGB", (64, 64), "red").save(example)
    arguments = ["sweep", str(example), "describe the object.", "--point", "9", "9", "--steps", "1", "--contexts", "last"]
    assert main([*arguments, "--resume", str(sweep), "--html", str(page), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err.endswith(f"sweep     {sweep}\npage      {page}\n")
    assert captured.out.startswith("{")
