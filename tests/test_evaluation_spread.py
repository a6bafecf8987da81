"""Runs spread over workers of Ray: the same records, also when one is killed.

Those with Ray itself are skipped where it is not installed: `make test` runs them with a Ray of its own (`make ray`).
"""

import threading
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest

import cmllm_tools as cm
from cmllm_tools import evaluation
from cmllm_tools.analysis.ranking_run import Heads
from cmllm_tools.analysis.window_sweep import Windows
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.cli import main
from cmllm_tools.evaluation.answers import Answers
from cmllm_tools.running import cluster as module

METHODS = {"unsteered": evaluation.Unsteered(), "plus": cm.ControlMLLMPlus(steps=1)}


def answers(records):
    return {each.key: (each.answer, each.ids, each.scores, each.share) for each in records}


def test_without_ray_it_is_said_how_to_have_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(cm.ClusterError, match=r"Ray is needed: pip install 'cmllm_tools\[cluster\]'"):
        evaluation.spread(cm.data.read(HELDOUT)[:2])


class Faults:
    """Ray's, for a team without it."""

    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        pass


class Alone:
    """Stands in for Ray in this process: a worker is an object, which some examples kill."""

    exceptions = Faults

    def __init__(self, deadly=()):
        self.deadly, self.calls = set(deadly), []

    def wait(self, refs, num_returns):
        return [refs[-1]], refs[:-1]

    def get(self, ref):
        return ref()


class Handle:
    """A worker of `Alone`."""

    def __init__(self, ray, worker):
        self.records, self.dead = self, False
        self.ray, self.worker = ray, worker

    def remote(self, at, keys):
        def call():
            if self.dead or at in self.ray.deadly:
                self.dead = True
                raise Faults.RayError(f"worker died of {at}")
            self.ray.calls.append(at)
            return self.worker.records(at, keys)

        return call


@pytest.fixture
def team(mllm):
    def make(deadly, dataset, task):
        job = module.Job({}, dataset, task, False)
        worker = object.__new__(module.Worker)
        worker.job, worker.mllm, worker.work = job, mllm, None
        ray = Alone(deadly)
        found = object.__new__(module.Team)
        found.ray, found.job, found.sent = ray, job, job
        found.make = lambda sent: Handle(ray, worker)
        found.workers = [found.make(job) for _ in range(2)]
        found.common = worker.shared()
        return found, ray

    return make


def test_a_death_gives_what_a_worker_had_to_others_and_an_example_that_kills_is_recorded(team, mllm):
    dataset = cm.data.read(HELDOUT)[:7]
    task = Answers(METHODS, evaluation.Strict(), {"max_new_tokens": 9})
    workers, ray = team({3}, dataset, task)
    left = dict(enumerate(task.keys(dataset)))
    found = list(workers.records(left))
    assert len(found) == len({each.key for each in found}) == 14
    assert sorted(ray.calls) == [0, 1, 2, 4, 5, 6]
    failed = [each for each in found if each.error is not None]
    assert {each.id for each in failed} == {3}
    assert failed[0].error == {"kind": "RayError", "message": "its worker died 3 times: worker died of 3"}
    alone = cm.evaluate(mllm, dataset, METHODS, scorer="strict", max_new_tokens=9, progress=False)
    expected = answers(each for each in alone.records if each.id != 3)
    assert answers(each for each in found if each.error is None) == expected


def test_sweeps_and_rankings_are_spread_likewise(team, mllm):
    dataset = cm.data.read(HELDOUT)[:4]
    sweeping = Windows([(0, 3)], ("last",), cm.ControlMLLMPlus(steps=1), 4)
    for task, alone in (
        (sweeping, cm.analysis.sweep_windows(mllm, dataset, [(0, 3)], ["last"], sweeping.method, max_copies=4)),
        (Heads("last", (0, 2), 0.1, 0), cm.analysis.rank_heads(mllm, dataset, "last", layers=[0, 2])),
    ):
        workers, ray = team({2}, dataset, task)
        keys = [key for several in task.keys(dataset) for key in several]
        found = {each.key: each for each in workers.records({at: [key] for at, key in enumerate(keys)})}
        assert sorted(ray.calls) == [0, 1, 3]
        result = task.result(workers.common, keys, [found[key] for key in keys], None, True)
        assert result.failed == ("question_roc.json, line 3: RayError: its worker died 3 times: worker died of 2",)
        if task is sweeping:
            np.testing.assert_array_equal(result.figure("share"), alone.figure("share")[:, [0, 1, 3]])
        else:
            assert result.examples == 3
            assert (result.hits <= alone.hits).all()


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="spreading is tested where Ray is on the path: make ray")
    with module.connected(ray, None):
        yield ray


def workers():
    """The processes that hold a model."""
    return [each for each in psutil.Process().children(recursive=True) if "ray::Worker" in " ".join(_words(each))]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def killed_once(path, after):
    """Kill a worker as soon as the file has so many lines."""

    def look():
        while not path.exists() or path.read_bytes().count(b"\n") < after:
            time.sleep(0.01)
        victim = workers()[0]
        done.append(victim.pid)
        victim.kill()

    done = []
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return thread, done


@pytest.mark.slow
def test_two_hundred_examples_survive_a_killed_worker(ray, mllm, tmp_path):
    # One method is enough for what is lost and doubled; each worker takes seconds to begin.
    dataset, path, methods = cm.data.read(HELDOUT)[:200], tmp_path / "records.jsonl", {"unsteered": METHODS["unsteered"]}
    thread, done = killed_once(path, 60)
    found = evaluation.spread(dataset, methods, workers=2, path=path, progress=False)
    thread.join()
    assert len(done) == 1
    written = evaluation.read_records(path)
    assert len(written) == len({each.key for each in written}) == 200
    assert not found.failed
    alone = cm.evaluate(mllm, dataset, methods, progress=False)
    assert answers(written) == answers(found.records) == answers(alone.records)


@pytest.mark.slow
def test_a_spread_run_goes_on_and_its_faults_are_recorded(ray, mllm, tmp_path, capsys):
    dataset, path = cm.data.read(HELDOUT)[:4], tmp_path / "records.jsonl"
    rows = list(dataset.rows)
    rows[1] = replace(rows[1], data=rows[1].data | {"bbox": [500, 500, 9, 9]})
    cm.evaluate(mllm, dataset[:1], METHODS, path=path, progress=False)
    found = evaluation.spread(replace(dataset, rows=tuple(rows)), METHODS, workers=2, path=path, progress=False)
    assert len(found.records) == 8
    assert [each.where for each in found.failed] == ["question_roc.json, line 2"] * 2
    with pytest.raises(cm.RegionError, match="must lie within the image"):
        evaluation.spread(replace(dataset, rows=tuple(rows)), METHODS, workers=1, strict=True, progress=False)
    with pytest.raises(cm.ClusterError, match="must be able to load the model; the first one cannot"):
        evaluation.spread(dataset, METHODS, loading={"model": "nowhere/none"}, workers=1, progress=False)
    with pytest.raises(cm.SettingsError, match="layers"):
        evaluation.spread(dataset, [cm.ControlMLLMPlus(layers=(0, 99))], workers=1, progress=False)
    run = ["eval", "embedded", "--n", "2", "--methods", "unsteered", "--ray", "--workers", "1"]
    assert main([*run, "--out", str(tmp_path / "cli.jsonl")]) == 0
    assert "unsteered  2       0" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_and_a_ranking_are_spread(ray, mllm, tmp_path, capsys):
    dataset, two = cm.data.read(HELDOUT)[:4], evaluation.Workers(workers=2)
    one = {"windows": [(0, 3)], "contexts": ["last"], "method": cm.ControlMLLMPlus(steps=1), "max_copies": 4}
    spread = cm.analysis.sweep_windows(two, dataset, path=tmp_path / "sweep.jsonl", progress=False, **one)
    alone = cm.analysis.sweep_windows(mllm, dataset, progress=False, **one)
    assert spread.choices == alone.choices and spread.examples == alone.examples
    np.testing.assert_array_equal(spread.figure("share"), alone.figure("share"))
    ranking = cm.analysis.rank_heads(two, dataset, cm.analysis.answer_words, progress=False)
    np.testing.assert_array_equal(ranking.hits, cm.analysis.rank_heads(mllm, dataset, cm.analysis.answer_words).hits)
    path = tmp_path / "heads.jsonl"
    assert main(["heads", "embedded", "--n", "3", "--ray", "--workers", "1", "--resume", str(path)]) == 0
    assert "3 examples" in capsys.readouterr().out
    assert len(path.read_bytes().splitlines()) == 4
