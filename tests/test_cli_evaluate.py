import json

import pytest
from small_sets import roc, vip_bench

import cmllm_tools as cm
from cmllm_tools.bench import embedded, smol
from cmllm_tools.cli import main
from cmllm_tools.cli.evaluate import methods_of
from cmllm_tools.evaluation import read_records


@pytest.fixture(autouse=True)
def _own_warnings(monkeypatch):
    import warnings

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.mark.slow
def test_a_set_is_answered_in_shards_and_put_together(tmp_path, capsys):
    root = roc(tmp_path, 5)
    run = ["eval", str(root), "--methods", "unsteered", "controlmllm++:steps=2", "--scorer", "strict", "--split", "test"]
    assert main([*run, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["methods"]["controlmllm++:steps=2"]["n"] == 5
    parts = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert main([*run, "--shard", f"{number}/2", "--out", str(part)]) == 0
    capsys.readouterr()
    merged = tmp_path / "all.jsonl"
    assert main(["records", "merge", *map(str, parts), "--out", str(merged)]) == 0
    assert "10 of 2 files" in capsys.readouterr().out
    assert main(["records", "show", str(merged), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    for name, figures in whole["methods"].items():
        assert shown["methods"][name]["right"] == figures["right"]
    assert main(["records", "show", str(merged)]) == 0
    assert "controlmllm++:steps=2 against unsteered, right:" in capsys.readouterr().out
    assert main(["records", "merge", str(merged), "--out", str(merged)]) == 2
    assert "--out must not replace what is read" in capsys.readouterr().err


def test_the_held_out_set_is_measured_as_before_and_answered_like_any_set(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(embedded, "evaluate", lambda count, skip: {"n": count, "skip": skip})
    assert main(["eval", "embedded", "--n", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"n": 1, "skip": 0}
    # Anything else that is asked for is done, and not passed over.
    assert main(["eval", "embedded", "--n", "1", "--skip", "499", "--scorer", "strict", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["methods"]["unsteered"]["n"] == 1
    out = tmp_path / "records.jsonl"
    run = ["eval", "embedded", "--n", "3", "--shuffle", "4", "--methods", "unsteered", "--out", str(out)]
    assert main(run) == 0
    assert main(run) == 0
    assert [each.id for each in read_records(out)] == list(cm.data.read(embedded_folder()).shuffled(4)[:3].ids)


def test_smol_s_scenes_are_measured_by_the_kinds_asked_for(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(smol, "evaluate_smol", lambda count, **given: asked.append(given["kinds"]) or {"n": count})
    for read, kinds in ((["--read", "kind=background"], ["background"]), ([], smol.KINDS)):
        assert main(["eval", "smol", "--n", "2", *read, "--json"]) == 0
        assert (json.loads(capsys.readouterr().out), asked.pop()) == ({"n": 2}, kinds)


def embedded_folder():
    from cmllm_tools.bench.heldout import HELDOUT

    return HELDOUT


@pytest.mark.slow
def test_a_judge_is_found_by_its_name(tmp_path, capsys, monkeypatch):
    root = vip_bench(tmp_path)
    (tmp_path / "my_judge.py").write_text("def score(text):\n    return '0.5'\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = ["eval", str(root), "--methods", "unsteered", "--json"]
    assert main([*run, "--judge", "my_judge:score"]) == 0
    assert json.loads(capsys.readouterr().out)["methods"]["unsteered"]["score rec"]["mean"] == 0.5
    assert main(run) == 2
    assert "need --judge MODULE:FUNCTION" in capsys.readouterr().err
    assert main([*run, "--judge", "my_judge:none"]) == 2
    assert "must be MODULE:FUNCTION that can be imported" in capsys.readouterr().err


def test_methods_are_named_with_their_settings():
    found = methods_of(["unsteered", "controlmllm", "controlmllm++:steps=3,layers=1:4,heads=0,2", "published:steps=2"])
    assert found["controlmllm++:steps=3,layers=1:4,heads=0,2"] == cm.ControlMLLMPlus(steps=3, layers=(1, 4), heads=(0, 2))
    assert found["published:steps=2"] == cm.ControlMLLM.published(steps=2)
    with pytest.raises(cm.SettingsError, match=r"must be one of unsteered, controlmllm, .*; got 'plus'"):
        methods_of(["plus"])
    with pytest.raises(cm.SettingsError, match=r"Settings of controlmllm are NAME=VALUE of steps, .*; got 'tempo=3'"):
        methods_of(["controlmllm:tempo=3"])
    with pytest.raises(cm.SettingsError, match="must be another one; got unsteered twice"):
        methods_of(["unsteered", "unsteered"])


def test_a_set_is_checked_by_its_lines(tmp_path, capsys):
    root = roc(tmp_path)
    assert main(["data", "check", str(root), "--read", "region=mask"]) == 0
    assert "4 mask" in capsys.readouterr().out
    next((root / "LVIS/mask").iterdir()).unlink()
    assert main(["data", "check", str(root), "--read", "region=mask", "--json"]) == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert fault["kind"] == "image"
    assert main(["data", "check", str(root), "--read", "region"]) == 2
    assert "--read takes NAME=VALUE" in capsys.readouterr().err
    assert main(["data", "formats"]) == 0
    assert "refcocog.json" in capsys.readouterr().out
