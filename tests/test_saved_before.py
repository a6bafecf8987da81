"""Files that an earlier version saved still open and show the same.

`tests/saved` was written at commit 95e4375, before `refer`; `seen.json` holds what that version said of each file.
"""

import json
from math import isnan
from pathlib import Path

import pytest

import cmllm_tools as cm
from cmllm_tools import analysis
from cmllm_tools.bench.heldout import held_out

SAVED = Path(__file__).parent / "saved"
SEEN = json.loads((SAVED / "seen.json").read_text(encoding="utf-8"))


def test_a_trace_opens_and_answers_the_same(mllm):
    trace, seen = cm.Trace.load(SAVED / "trace.safetensors"), SEEN["trace"]
    assert repr(trace) == seen["repr"]
    assert [step.energy for step in trace.steps] == pytest.approx(seen["energies"], abs=1e-6)
    assert trace.question in trace._repr_html_()
    scene = cm.demo_scene()
    assert mllm.generate(mllm.prepare(scene.image, scene.question), trace) == seen["answer"]


def test_a_ranking_opens_with_the_same_order():
    ranking, seen = analysis.HeadRanking.load(SAVED / "ranking.json"), SEEN["ranking"]
    assert repr(ranking) == seen["repr"]
    assert [list(pair) for pair in ranking.order] == seen["order"]


def test_a_sweep_opens_with_the_same_figures():
    sweep, seen = analysis.Sweep.load(SAVED / "sweep.json"), SEEN["sweep"]
    assert repr(sweep) == seen["repr"]
    for row, before in zip(sweep.rows(sweep.decisive), seen["rows"], strict=True):
        assert str(row["choice"]) == before["choice"]
        for name, value in before.items():
            if name != "choice":
                assert isnan(row[name]) if value is None else row[name] == pytest.approx(value, abs=1e-6)


def test_a_sweep_goes_on_from_its_file(mllm, tmp_path):
    """The examples that it holds are known again, and not run again."""
    path = tmp_path / "sweep.json"
    path.write_bytes((SAVED / "sweep.json").read_bytes())
    scenes = held_out()[:2]
    examples = [analysis.Example(each.image, each.question, each.region("box"), each.names[0]) for each in scenes]
    method, windows = cm.ControlMLLMPlus(steps=1), [(0, 2), (2, 4)]
    sweep = analysis.sweep_windows(mllm, examples, windows, ("last",), method, path=path, progress=False)
    assert not list(sweep.missing())
    assert path.read_bytes() == (SAVED / "sweep.json").read_bytes()
