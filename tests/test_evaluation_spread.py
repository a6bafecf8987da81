"""Runs spread over workers of Ray: the same records, also when one is killed.

Those with Ray itself are skipped where it is not installed: `make test` runs them with a Ray of its own (`make ray`).
"""

import threading
import time
from dataclasses import replace

import psutil
import pytest

import cmllm_tools as cm
from cmllm_tools import evaluation
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.cli import main
from cmllm_tools.evaluation import cluster as module

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
        self.answered, self.dead = self, False
        self.ray, self.worker = ray, worker

    def remote(self, at, names):
        def call():
            if self.dead or at in self.ray.deadly:
                self.dead = True
                raise Faults.RayError(f"worker died of {at}")
            self.ray.calls.append(at)
            return self.worker.answered(at, names)

        return call


@pytest.fixture
def team(mllm):
    def make(deadly, dataset):
        job = module._Job({}, dataset, METHODS, evaluation.Strict(), {"max_new_tokens": 9}, False)
        worker = object.__new__(module.Worker)
        worker.job, worker.runner = job, module.Runner(mllm, METHODS, job.scorer, job.options)
        ray = Alone(deadly)
        found = object.__new__(module._Team)
        found.ray, found.job, found.shared = ray, job, job
        found.make = lambda shared: Handle(ray, worker)
        found.workers = [found.make(job) for _ in range(2)]
        found.model, found.settings = worker.plan()
        return found, ray

    return make


def test_a_death_gives_what_a_worker_had_to_others_and_an_example_that_kills_is_recorded(team, mllm):
    dataset = cm.data.read(HELDOUT)[:7]
    left = {at: list(METHODS) for at in range(7)}
    workers, ray = team({3}, dataset)
    found = list(workers.records(left))
    assert len(found) == len({each.key for each in found}) == 14
    assert sorted(ray.calls) == [0, 1, 2, 4, 5, 6]
    failed = [each for each in found if each.error is not None]
    assert {each.id for each in failed} == {3}
    assert failed[0].error == {"kind": "RayError", "message": "its worker died 3 times: worker died of 3"}
    alone = cm.evaluate(mllm, dataset, METHODS, scorer="strict", max_new_tokens=9, progress=False)
    expected = answers(each for each in alone.records if each.id != 3)
    assert answers(each for each in found if each.error is None) == expected


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
    run = ["eval", "embedded", "--n", "2", "--methods", "unsteered", "--ray", "--workers", "1"]
    assert main([*run, "--out", str(tmp_path / "cli.jsonl")]) == 0
    assert "unsteered  2       0" in capsys.readouterr().out
