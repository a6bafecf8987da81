"""Every way on the held-out scenes: what is counted, its tables, and the README's from the saved result."""

import importlib.util
import json
from pathlib import Path

import pytest

import cmllm_tools as cm
from cmllm_tools.bench import stopping, ways
from cmllm_tools.bench.embedded import chooses
from cmllm_tools.bench.tables import control_rows, ways_table
from cmllm_tools.cli import main
from cmllm_tools.evaluation.runner import Unsteered

ROOT = Path(__file__).parents[1]
FEW = {"unsteered": Unsteered(), "AttentionEdit": cm.methods.AttentionEdit(3.0), "ViCrop": cm.methods.ViCrop()}


@pytest.fixture(scope="module")
def result(mllm):
    return ways.evaluate_ways(1, mllm, methods=FEW, kinds=("box", "point"), controlled=("AttentionEdit",), skip=7)


def test_answers_are_counted_by_method_and_kind(mllm, result):
    assert result["n"] == 1
    kinds = {name: list(found) for name, found in result["methods"].items()}
    assert kinds == {"unsteered": ["image"], "AttentionEdit": ["box", "point"], "ViCrop": ["image"]}
    scene = cm.bench.held_out()[7]
    answer = cm.refer(mllm, scene.image, scene.question, scene.region("box"), FEW["AttentionEdit"]).answer
    found = result["methods"]["AttentionEdit"]["box"]
    assert found["a_or_b"] == float(chooses(answer, scene))
    assert found.keys() >= {"a_or_b", "a_or_b_ci", "describe", "hallucinated", "damage", "seconds"}
    assert found["a_or_b_ci"][0] < found["a_or_b"] <= found["a_or_b_ci"][1]
    assert result["methods"]["unsteered"]["image"]["damage"] == 0


def test_controls_are_counted_by_what_the_answer_follows(result):
    found = result["controls"]["AttentionEdit"]
    assert set(found) == set(ways.CONTROLS.values())
    # Shown the other object, it names that one.
    assert found["wrong_object"]["follows"] == 1.0
    assert found["region"]["follows"] == 1.0


def test_all_ways_are_many_and_have_names_of_their_own():
    found = ways.all_ways()
    assert len(found) >= 14
    assert {"ControlMLLM", "ControlMLLMPlus", "KeySteering", "Drawn mask", "OutsideHidden blur", "ViCrop"} <= set(found)
    assert len({repr(way) for way in found.values()}) == len(found)


@pytest.mark.slow
def test_an_interrupt_leaves_the_scenes_that_were_done(mllm, monkeypatch):
    real, calls = ways._of_scene, iter(range(9))

    def scene(*given):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(ways, "_of_scene", scene)
    found = ways.evaluate_ways(3, mllm, methods={"unsteered": Unsteered()})
    # None of those that are controlled by default is among the methods.
    assert found["controls"] == {}
    assert (found["n"], found["interrupted"]) == (1, True)


def test_what_makes_no_sense_is_refused(mllm):
    for given, words in (
        ({"kinds": ("line",)}, "Each of the kinds"),
        ({"count": 0}, "at least one scene"),
        ({"controlled": ("none",)}, "controlled must be names of the methods"),
        ({"methods": [cm.ControlMLLM()]}, "given by name"),
    ):
        with pytest.raises(cm.SettingsError, match=words):
            ways.evaluate_ways(**{"mllm": mllm, "count": 1} | given)


def test_the_command_measures_all(monkeypatch, capsys, result):
    seen = {}

    def evaluate(count, **given):
        seen.update(given, count=count)
        return result

    monkeypatch.setattr(ways, "evaluate_ways", evaluate)
    monkeypatch.setattr(stopping, "rule_beside_fixed", lambda count, smol: {"embedded": {"n": count}})
    assert main(["eval", "embedded", "--methods", "all", "--n", "3", "--read", "kind=box", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 1
    assert (seen["count"], seen["kinds"]) == (3, ["box"])
    assert main(["eval", "embedded", "--methods", "all"]) == 0
    assert "AttentionEdit, point" in capsys.readouterr().out
    assert main(["eval", "embedded", "--methods", "all", "--read", "style=box"]) == 2
    assert "must be kind=NAME" in capsys.readouterr().err


def test_tables_have_every_way_the_best_first(result):
    table = ways_table(result)
    assert table.index("AttentionEdit, box") < table.index("unsteered")
    assert ["wrong object", "100 (21 to 100)"] in control_rows(result)


def test_the_readme_s_table_is_made_from_the_saved_result():
    spec = importlib.util.spec_from_file_location("ways_page", ROOT / "docs/ways.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page.readme(text) == text
    assert "| KeySteering |" in text


def test_an_interrupt_of_what_comes_last_keeps_the_result(monkeypatch, capsys, result):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(ways, "evaluate_ways", lambda *given, **more: result | {"n": 2})
    monkeypatch.setattr(stopping, "rule_beside_fixed", interrupted)
    assert main(["eval", "embedded", "--methods", "all", "--json"]) == 130
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["interrupted"]) == (2, True)
    # The table does not show it, so that it is not asked for.
    assert main(["eval", "embedded", "--methods", "all"]) == 0
    assert "AttentionEdit, box" in capsys.readouterr().out


def test_a_control_s_interval_is_of_its_own_trials():
    """Of some scenes there may be none."""
    result = {"n": 100, "controls": {"Keys": {"elsewhere": {"follows": 0.5, "ci": [0.1, 0.9]}}}}
    assert control_rows(result)[1] == ["elsewhere", "50 (10 to 90)"]
