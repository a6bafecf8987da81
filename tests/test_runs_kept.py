"""No run is lost: by a failed save, an error of a callback, or an interrupt while callbacks are told of the end."""

import errno
import os
from contextlib import suppress

import numpy as np
import pytest
from conftest import assert_same, snapshot
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.referring import tensor_file

REGION = cm.Box(12, 5, 30, 30)
METHOD = cm.ControlMLLM(steps=3, early_stop=0.0)


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


@pytest.fixture
def full_disk(monkeypatch):
    """The disk is full at these saves, counted from 0."""

    def after(*refused):
        count = iter(range(100))
        real = tensor_file.save

        def save(*arguments):
            if next(count) in refused:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        monkeypatch.setattr(tensor_file, "save", save)

    return after


class Raises(cm.Callback):
    def __init__(self, error, when="on_end", at=1):
        self.error, self.at, self.calls = error, at, []
        setattr(self, when, self._raise)

    def _raise(self, run, step=None):
        self.calls.append(None if step is None else step.number)
        if step is None or step.number == self.at:
            raise self.error


class Told(cm.Callback):
    def __init__(self):
        self.ends = []

    def on_end(self, run):
        self.ends.append(run.trace.stopped)


def test_a_full_disk_warns_and_the_run_goes_on(tiny, tmp_path, full_disk):
    path = tmp_path / "run"
    full_disk(1)
    with pytest.warns(cm.OutputWarning, match=r"run cannot be written: No space left on device\. It is still in memory"):
        trace = cm.optimize(*tiny, REGION, METHOD, callbacks=[cm.Checkpoint(path)])
    assert (len(trace), trace.stopped) == (4, "finished")
    assert len(cm.Trace.load(path)) == 4


def test_a_disk_that_stays_full_leaves_the_trace_in_memory_and_the_last_good_file(tiny, tmp_path, full_disk):
    path, checkpoint = tmp_path / "run", cm.Checkpoint(tmp_path / "run")
    full_disk(*range(2, 100))
    with pytest.warns(cm.OutputWarning):
        trace = cm.optimize(*tiny, REGION, METHOD, callbacks=[checkpoint])
    assert (len(trace), trace.stopped, checkpoint.saved) == (4, "finished", None)
    assert len(cm.Trace.load(path)) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_vanishes_does_not_end_the_run(tiny, tmp_path):
    (tmp_path / "sub").mkdir()
    checkpoint = cm.Checkpoint(tmp_path / "sub/run")
    (tmp_path / "sub").rmdir()
    with pytest.warns(cm.OutputWarning, match="folder of an output path must exist"):
        assert len(cm.optimize(*tiny, REGION, METHOD, callbacks=[checkpoint])) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("mine")])
def test_an_unfinished_run_does_not_replace_an_earlier_one(tiny, tmp_path, error):
    path = tmp_path / "run.safetensors"
    whole = cm.optimize(*tiny, REGION, METHOD).save(path).read_bytes()
    checkpoint = cm.Checkpoint(path)
    with suppress(RuntimeError):
        cm.optimize(*tiny, REGION, METHOD, callbacks=[checkpoint, Raises(error, "on_step")])
    assert path.read_bytes() == whole
    assert checkpoint.saved == tmp_path / "run.unfinished.safetensors"
    assert len(cm.Trace.load(checkpoint.saved)) == 2


def test_a_whole_run_replaces_an_earlier_one_at_its_end(tiny, tmp_path):
    path, seen = tmp_path / "run.safetensors", []
    cm.optimize(*tiny, REGION, cm.ControlMLLM(steps=1, early_stop=0.0)).save(path)

    class Watch(cm.Callback):
        def on_step(self, run, step):
            seen.append((len(cm.Trace.load(path)), len(cm.Trace.load(tmp_path / "run.unfinished.safetensors"))))

    cm.optimize(*tiny, REGION, METHOD, callbacks=[cm.Checkpoint(path), Watch()])
    assert seen == [(2, 1), (2, 2), (2, 3), (2, 4)]
    assert len(cm.Trace.load(path)) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


@pytest.mark.parametrize("when", ["on_start", "on_step", "on_end"])
def test_every_end_is_told_and_the_first_error_is_raised(tiny, when):
    first, second, told = Raises(RuntimeError("first"), when), Raises(ValueError("second")), [Told(), Told()]
    before = snapshot(tiny[0])
    with pytest.raises(RuntimeError, match="first") as caught:
        cm.optimize(*tiny, REGION, METHOD, callbacks=(callback for callback in (told[0], first, second, told[1])))
    reason = {"on_start": "failed: RuntimeError", "on_step": "failed: RuntimeError", "on_end": "finished"}[when]
    assert told[0].ends == [reason]
    # One that was not started is not told of the end.
    assert told[1].ends == ([] if when == "on_start" else [reason])
    assert any("second" in note for note in getattr(caught.value, "__notes__", [])) == (when != "on_start")
    steps = {"on_start": None, "on_step": 2, "on_end": 4}[when]
    assert (None if steps is None else len(caught.value.trace)) == steps
    assert steps is None or f"The trace so far, {steps} steps, is in this error's .trace." in caught.value.__notes__
    assert_same(before, snapshot(tiny[0]))


@pytest.mark.parametrize("error", [SystemExit(3), cm.PromptError("ours"), MemoryError()])
def test_whatever_ends_a_run_has_the_trace(tiny, error):
    with pytest.raises(type(error)) as caught:
        cm.optimize(*tiny, REGION, METHOD, callbacks=[Raises(error, "on_step")])
    assert len(caught.value.trace) == 2
    assert caught.value.trace.stopped == f"failed: {type(error).__name__}"
    assert np.isfinite(caught.value.trace.latent.numpy()).all()


def test_an_interrupt_at_the_end_keeps_the_trace(tiny, tmp_path):
    told, path = Told(), tmp_path / "run"
    trace = cm.optimize(*tiny, REGION, METHOD, callbacks=[Raises(KeyboardInterrupt()), cm.Checkpoint(path), told])
    assert (len(trace), trace.stopped) == (4, "interrupted")
    # The run itself was whole.
    assert told.ends == ["finished"]
    assert len(cm.Trace.load(path)) == 4


def test_an_interrupt_before_the_first_step_tells_the_started_ones(tiny):
    told = Told()
    with pytest.raises(KeyboardInterrupt):
        cm.optimize(*tiny, REGION, METHOD, callbacks=[told, Raises(KeyboardInterrupt(), "on_start")])
    assert told.ends == ["interrupted"]


def test_an_error_after_an_interrupt_is_raised_with_the_trace(tiny):
    with pytest.raises(RuntimeError, match="at the end") as caught:
        cm.optimize(
            *tiny, REGION, METHOD, callbacks=[Raises(KeyboardInterrupt(), "on_step"), Raises(RuntimeError("at the end"))]
        )
    assert len(caught.value.trace) == 2


def test_energy_that_is_not_finite_still_carries_its_trace(tiny):
    with pytest.raises(cm.OptimizationError) as caught:
        cm.optimize(*tiny, REGION, cm.ControlMLLM(steps=5, step_size=1e300, ema=1.0, early_stop=0.0))
    assert caught.value.trace.stopped.startswith("failed: ")
    assert not caught.value.trace.whole


@pytest.mark.slow
def test_an_evaluation_that_is_interrupted_keeps_the_scenes_that_were_done(mllm, monkeypatch):
    """`optimize` takes the interrupt and returns: the run that was cut short must not count as a result."""
    from cmllm_tools.bench import embedded

    runs = []

    def optimize(*given):
        runs.append(given)
        return cm.optimize(*given, callbacks=[Raises(KeyboardInterrupt(), "on_step")] if len(runs) == 6 else ())

    monkeypatch.setattr(embedded, "optimize", optimize)
    result = embedded.evaluate(3, mllm, {"controlmllm": cm.ControlMLLM(steps=1, early_stop=0.0)}, ["box", "point"])
    assert (result["n"], result["interrupted"], len(runs)) == (1, True, 6)
    runs.clear()
    with pytest.raises(KeyboardInterrupt):
        embedded.evaluate(3, mllm, {"controlmllm": cm.ControlMLLM(steps=1, early_stop=0.0)}, ["box"] * 3)
