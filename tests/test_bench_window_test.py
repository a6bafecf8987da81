"""A sweep on one half of a set, tested on the other; and its command."""

import json

import numpy as np
import pytest
from conftest import assert_same, snapshot

import cmllm_tools as cm
from cmllm_tools.analysis import Choice, Sweep
from cmllm_tools.analysis.sweep import FIGURES
from cmllm_tools.bench import window_test
from cmllm_tools.bench.embedded import chooses
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.bench.window_test import sweep_and_test
from cmllm_tools.cli import main
from cmllm_tools.data.formats.roc import read_roc


@pytest.fixture
def few_windows(monkeypatch):
    """The sweep over two windows only, as the windows are not what is tested."""
    own = window_test.sweep_windows
    few = {"windows": [(0, 3), (0, 6)]}
    monkeypatch.setattr(window_test, "sweep_windows", lambda *given, **named: own(*given, **named | few))


@pytest.mark.slow
def test_the_other_half_is_answered_with_both_choices(mllm, few_windows):
    lines = read_roc(HELDOUT)[:8]
    # transformers hangs hooks of its own on a model at its first forward.
    mllm.generate(mllm.prepare(lines[0].image, lines[0].question))
    before = snapshot(mllm)
    method = cm.ControlMLLMPlus(steps=3)
    sweep, chosen, tested = sweep_and_test(mllm, lines, "box", method, ["last"], n=2, held_out=3)
    assert_same(before, snapshot(mllm))
    assert sweep.done == len(sweep.examples) == 2
    assert chosen.against == Choice((0, 6), "last")
    assert tested.n == 3

    def accuracy(layers):
        right = []
        for line in lines[4:7]:
            prompt = mllm.prepare(line.image, line.question)
            run = cm.ControlMLLMPlus(steps=3, layers=layers, queries="last")
            trace = cm.optimize(mllm, prompt, line.region("box"), run)
            right.append(chooses(mllm.generate(prompt, trace.latent), line))
        return np.mean(right)

    assert tested.recommended == pytest.approx(accuracy(chosen.choice.layers))
    assert tested.all_layers == pytest.approx(accuracy((0, 6)))
    assert tested.margin == pytest.approx(tested.recommended - tested.all_layers)


def interrupted_after(count, own):
    runs = []

    def run(*given):
        if len(runs) == count:
            raise KeyboardInterrupt
        runs.append(given)
        return own(*given)

    return run


@pytest.mark.slow
def test_an_interrupted_sweep_is_not_tested(mllm, few_windows, monkeypatch, capsys):
    from cmllm_tools.analysis import window_sweep as sweeping

    monkeypatch.setattr(sweeping, "_measured", interrupted_after(1, sweeping._measured))
    assert main(["sweep", "embedded", "--n", "2", "--held-out", "1", "--steps", "1", "--json"]) == 130
    printed = json.loads(capsys.readouterr().out)
    assert (printed["examples"], printed["recommended"], printed["held_out"]) == (1, None, None)
    assert len(printed["windows"]) == 4


@pytest.mark.slow
def test_an_interrupted_test_keeps_what_was_tested(mllm, few_windows, monkeypatch, capsys):
    monkeypatch.setattr(window_test, "_answers_right", interrupted_after(2, lambda *_: [True, False]))
    assert main(["sweep", "embedded", "--n", "2", "--held-out", "3", "--steps", "1", "--json"]) == 130
    tested = json.loads(capsys.readouterr().out)["held_out"]
    assert (tested["n"], tested["complete"], tested["margin"]) == (2, False, 1.0)
    monkeypatch.setattr(window_test, "_answers_right", interrupted_after(0, None))
    assert main(["sweep", "embedded", "--n", "2", "--held-out", "3", "--steps", "1", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["held_out"] is None


@pytest.mark.slow
def test_what_fails_in_the_test_is_told(mllm, few_windows, monkeypatch, capsys):
    def answers(mllm, line, *rest):
        if line.data["id"] == lines[5].data["id"]:
            raise cm.PromptError("no such word")
        return [True, False]

    lines = read_roc(HELDOUT)[:8]
    monkeypatch.setattr(window_test, "_answers_right", answers)
    given = (mllm, lines, "box", cm.ControlMLLMPlus(steps=1), ["last"], 2, 3)
    _, _, tested = sweep_and_test(*given)
    assert (tested.n, tested.complete) == (2, True)
    (told,) = tested.failed
    assert told.endswith("PromptError: no such word")
    with pytest.raises(cm.PromptError, match="no such word"):
        sweep_and_test(*given, strict=True)


def test_answers_are_scored_as_the_model_says_them(mllm, monkeypatch):
    seen = []

    def ends(mllm, swept, **_):
        seen.extend(swept)
        raise LookupError

    monkeypatch.setattr(window_test, "sweep_windows", ends)
    lines = read_roc(HELDOUT)[:4]
    with pytest.raises(LookupError):
        sweep_and_test(mllm, lines, n=2, says="It is a {}.".format)
    for example, line in zip(seen, lines[:2], strict=True):
        plain = line.example("box")
        assert example.answer == f"It is a {plain.answer}."
        assert list(example.alternatives) == [f"It is a {each}." for each in plain.alternatives]
    with pytest.raises(cm.SettingsError, match="a function of its name; got 'It is"):
        sweep_and_test(mllm, lines, says="It is.")


def test_a_set_too_small_to_halve_is_refused(mllm):
    with pytest.raises(cm.DataError, match="at least four lines; got 3"):
        sweep_and_test(mllm, read_roc(HELDOUT)[:3])


@pytest.mark.slow
def test_the_command_sweeps_a_set(few_windows, capsys, tmp_path):
    saved, page = tmp_path / "sweep.json", tmp_path / "page.html"
    command = ["sweep", "embedded", "--n", "2", "--held-out", "1", "--steps", "1", "--resume", str(saved)]
    assert main([*command, "--json", "--html", str(page)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"recommended", "held_out", "examples", "windows"}
    assert printed["recommended"]["layers"] in ([0, 3], [0, 6])
    assert printed["recommended"]["context"] in ("text", "last")
    assert {"recommended", "all_layers", "margin_ci"} < set(printed["held_out"])
    assert len(printed["windows"]) == 4
    assert Sweep.load(saved).done == 2
    assert page.stat().st_size < 6_000_000
    assert page.read_text(encoding="utf-8").count("plotly.js v") == 1
    assert main([*command[:5], "0", *command[6:]]) == 0
    text = capsys.readouterr().out
    assert "recommended: layers" in text
    assert "on 1 other examples" not in text


@pytest.mark.slow
def test_the_command_sweeps_an_image(example, capsys, tmp_path):
    image = tmp_path / "scene.png"
    example.image.save(image)
    box = [str(getattr(example.region("box"), name)) for name in ("x0", "y0", "x1", "y1")]
    command = ["sweep", str(image), example.question, "--box", *box, "--steps", "1", "--contexts", "last", "--json"]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["recommended"] is None
    assert printed["held_out"] is None
    assert len(printed["windows"]) == 21
    assert all(window["moved"] is None and window["energy"] < window["energy_before"] for window in printed["windows"])
    assert main([*command, "--answer", example.names[0]]) == 0
    assert all(window["moved"] is not None for window in json.loads(capsys.readouterr().out)["windows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embedded", "what ?"], "A set has questions"),
        (["embedded", "--box", "1", "1", "2", "2"], "A set has questions"),
        (["embedded", "--n", "1"], "--n must be at least 2"),
        (["scene.png"], "An image needs a QUESTION"),
    ],
)
def test_the_command_refuses_what_does_not_fit(arguments, message, capsys):
    assert main(["sweep", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_figure_shows_each_window_once():
    choices = [Choice((a, b), q) for q in ("text", "last") for b in range(1, 4) for a in range(b)]
    sweep = Sweep.empty("m", cm.ControlMLLMPlus(), choices, ["0", "1"])
    sweep.values[:] = np.arange(len(choices))[None, :, None]
    sweep.values[FIGURES.index("moved")] += np.array([0, 1])
    recommended = cm.analysis.recommend(sweep)
    figure = cm.figures.window_grid(sweep, "moved", recommended)
    assert len(figure.data) == 2
    for heat, context in zip(figure.data, ("text", "last"), strict=True):
        for choice, index in zip(choices, range(len(choices)), strict=True):
            if choice.queries == context:
                assert heat.z[choice.layers[0]][choice.layers[1] - 1] == pytest.approx(index + 0.5)
        assert np.isfinite(np.array(heat.z, float)).sum() == 6
    frames = [shape for shape in figure.layout.shapes if shape.type == "rect" and shape.line.width == 3]
    first, last = recommended.choice.layers[0], recommended.choice.layers[1] - 1
    assert [(shape.x0, shape.y0) for shape in frames] == [(last - 0.5, first - 0.5)]
