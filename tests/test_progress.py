"""What is said while one waits: nothing of what is quick, what is done and how long it took of what is not."""

import io
import sys
import threading
import time

import pytest

import cmllm_tools as cm
from cmllm_tools import loading, progress
from cmllm_tools.progress import waiting
from cmllm_tools.referring import run


@pytest.fixture
def impatient(monkeypatch):
    """Everything takes long, whatever the machine: what waits is spoken of before it goes on."""
    said = threading.Event()
    say = progress._say

    def spoken(text):
        say(text)
        said.set()

    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_say", spoken)
    return said


def test_what_is_quick_is_silent(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 1e6)
    with waiting("thinking"):
        pass
    assert capsys.readouterr() == ("", "")
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and not thread.finished]


def test_what_takes_long_is_spoken_of_and_then_measured(capsys, impatient):
    with waiting("thinking"):
        assert impatient.wait(60)
    output = capsys.readouterr()
    assert output.out == ""
    begun, ended = output.err.splitlines()
    assert begun == "cmllm_tools: thinking ..."
    assert ended.startswith("cmllm_tools: thinking: done in ")
    assert ended.endswith(" s")


def test_what_fails_is_not_called_done(capsys, impatient):
    with pytest.raises(ZeroDivisionError), waiting("thinking"):
        assert impatient.wait(60)
        raise ZeroDivisionError
    assert capsys.readouterr().err == "cmllm_tools: thinking ...\n"


def test_who_wants_no_word_has_none(capsys, impatient):
    with waiting("thinking", False):
        time.sleep(0.01)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(cm.SettingsError, match="progress must be True or False; got 1"), waiting("thinking", 1):
        pass


def test_a_shell_without_streams_is_no_trouble(monkeypatch, impatient):
    monkeypatch.setattr(sys, "stderr", None)
    with waiting("thinking"):
        assert impatient.wait(60)


def test_in_a_notebook_it_stands_in_the_cells_own_output(monkeypatch, impatient):
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with waiting("thinking"):
        assert impatient.wait(60)
    assert sys.stdout.getvalue().startswith("cmllm_tools: thinking ...\n")


@pytest.mark.parametrize(("model", "called"), [(None, "the embedded model"), (loading.EMBEDDED_MODEL, "embedded.model")])
def test_loading_says_what_is_loaded(model, called, capsys, impatient, monkeypatch):
    found = loading._loaded

    def slow(*given):
        assert impatient.wait(60)
        return found(*given)

    monkeypatch.setattr(loading, "_loaded", slow)
    cm.load(model)
    begun, *_, ended = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cmllm_tools")]
    assert begun.startswith("cmllm_tools: loading ")
    assert called.replace(".", "/") in begun
    assert "done in" in ended


def test_a_call_that_refers_shows_the_time_that_is_left_where_it_takes_steps(mllm, prompt, box, capsys, monkeypatch):
    asked = mllm, prompt.image, prompt.question, box, cm.ControlMLLM(steps=2)
    monkeypatch.setattr(run, "PATIENCE", 0.0)
    cm.refer(*asked, progress=False)
    cm.refer(*asked, callbacks=[cm.Callback()])
    assert capsys.readouterr().err == ""
    cm.refer(*asked)
    assert "steering" in capsys.readouterr().err
    monkeypatch.setattr(run, "PATIENCE", 1e6)
    cm.refer(*asked)
    assert capsys.readouterr().err == ""


def test_a_call_that_refers_without_steps_says_by_what(mllm, prompt, box, capsys, impatient, monkeypatch):
    found = run.found

    def slow(*given):
        assert impatient.wait(60)
        return found(*given)

    monkeypatch.setattr(run, "found", slow)
    cm.refer(mllm, prompt.image, prompt.question, box, cm.methods.RedCircle())
    assert "cmllm_tools: referring by red circle ..." in capsys.readouterr().err


def test_a_bar_waits_no_time_below_none():
    with pytest.raises(cm.SettingsError, match="after"):
        cm.ProgressBar(after=-1)
