"""Sweeps over windows: batched runs against `optimize`, and what is made of their figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from small_sets import roc

import cmllm_tools as cm
from cmllm_tools.analysis.recommend import recommend
from cmllm_tools.analysis.sweep import FIGURES, Choice, Sweep
from cmllm_tools.analysis.window_sweep import sweep_windows
from cmllm_tools.attention.memory import MemoryEstimate
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.models.scoring import AnswerScore
from cmllm_tools.referring.loop import steer_together
from cmllm_tools.referring.target import Target
from cmllm_tools.show.cards.analysis import sweep_pictures

CHOICES = [((0, 2), "text"), ((1, 4), "last"), ((0, 6), "text"), ((5, 6), ("object",))]

# Of a sweep of one run. Where it says nothing of `most`, a sweep measures first what a step takes: that takes longest here.
ONE = {"windows": [(0, 3)], "contexts": ["last"], "method": cm.ControlMLLMPlus(steps=1), "max_copies": 4, "progress": False}


@pytest.fixture(scope="module")
def examples():
    return [line.example("box") for line in read_roc(HELDOUT)[:3]]


def methods(mllm, base, **settings):
    return [replace(base, layers=layers, queries=queries, **settings).resolve(mllm) for layers, queries in CHOICES]


def assert_as_alone(mllm, prompt, region, several):
    target = Target.of(prompt.layout, [region], several[0].sigma, several[0].rule)
    ends = steer_together(mllm, prompt, target, several)
    for number, method in enumerate(several):
        trace = cm.optimize(mllm, prompt, region, method)
        alone = trace.steps[0], trace.steps[-1]
        torch.testing.assert_close(
            ends.energy[:, number].float(), torch.tensor([step.energy for step in alone]), rtol=1e-4, atol=0
        )
        torch.testing.assert_close(
            ends.share[:, number].float(), torch.tensor([step.share for step in alone]), rtol=1e-4, atol=0
        )
        assert (ends.latent[number] - trace.latent).norm() <= 1e-4 * trace.latent.norm()
        yield trace


@pytest.mark.parametrize(
    "base",
    [
        cm.ControlMLLMPlus(steps=3),
        cm.ControlMLLM(steps=3, early_stop=0.0),
        cm.ControlMLLM.published(steps=3, rule="area", early_stop=0.0),
        cm.ControlMLLMPlus(steps=2, heads=(1, 3), without=(5, 20)),
    ],
    ids=["++", "gradient", "accumulating", "heads and tokens left out"],
)
def test_runs_together_end_as_runs_alone(mllm, prompt, box, base):
    before = snapshot(mllm)
    assert len(list(assert_as_alone(mllm, prompt, box, methods(mllm, base)))) == len(CHOICES)
    assert_same(before, snapshot(mllm))


@pytest.mark.slow
def test_runs_that_stop_early_keep_the_latent_they_stopped_at(mllm, prompt, example):
    several = methods(mllm, cm.ControlMLLM(steps=6, early_stop=0.2))
    traces = list(assert_as_alone(mllm, prompt, example.region("point"), several))
    # Some stop before others, or the test would say little.
    assert len({len(trace) for trace in traces}) > 1


def test_windows_of_one_width_stand_beside_one_another_with_all_layers(mllm, examples):
    options = {"contexts": ["last"], "method": cm.ControlMLLMPlus(steps=1), "progress": False}
    sweep = sweep_windows(mllm, examples[:1], 4, **options)
    assert [each.layers for each in sweep.choices] == [(0, 4), (4, 6), (0, 6)]
    same = sweep_windows(mllm, examples[:1], [(0, 4), (4, 6), (0, 6)], **options)
    np.testing.assert_allclose(sweep.values[:-1], same.values[:-1], rtol=1e-5, atol=1e-6)
    assert [each.layers for each in sweep_windows(mllm, examples[:1], np.int64(9), **options).choices] == [(0, 6)]
    for wrong in (0, True, 2.0):
        with pytest.raises(cm.SettingsError, match="windows"):
            sweep_windows(mllm, examples[:1], wrong, **options)


def test_single_heads_of_layers_count_as_they_do_alone(mllm, prompt, box):
    several = methods(mllm, cm.ControlMLLMPlus(steps=2), heads=((0, 1), (1, 0), (1, 3), (5, 2)))
    assert len(list(assert_as_alone(mllm, prompt, box, several))) == len(CHOICES)


@pytest.mark.slow
def test_runs_of_a_model_in_float64_end_as_alone(example):
    mllm = cm.load(dtype=torch.float64)
    prompt = mllm.prepare(example.image, "describe the object.")
    assert len(list(assert_as_alone(mllm, prompt, example.region("box"), methods(mllm, cm.ControlMLLMPlus(steps=2))))) == 4


def test_tokens_that_do_not_exist_are_not_left_out(mllm, prompt, box):
    target = Target.of(prompt.layout, [box])
    for token in (-1, len(prompt.visual)):
        with pytest.raises(cm.CaptureError, match="Visual tokens to leave out"):
            steer_together(mllm, prompt, target, methods(mllm, cm.ControlMLLMPlus(steps=1), without=(token,)))


def test_a_run_that_diverges_ends_alone(mllm, prompt, box):
    wild = cm.ControlMLLM(steps=3, early_stop=0.0, step_size=1e60, layers=(0, 6), queries="text").resolve(mllm)
    target = Target.of(prompt.layout, [box], wild.sigma, wild.rule)
    ends = steer_together(mllm, prompt, target, [wild, replace(wild, layers=(0, 3))])
    assert torch.isnan(ends.energy[1]).all()
    assert torch.isfinite(ends.energy[0]).all()
    assert torch.isfinite(ends.latent).all()


@pytest.mark.slow
def test_a_sweep_measures_what_runs_alone_do(mllm, examples):
    before = snapshot(mllm)
    method = cm.ControlMLLMPlus(steps=3)
    sweep = sweep_windows(mllm, examples[:1], [(0, 3), (2, 6)], ["last"], method, max_copies=2, progress=False)
    assert_same(before, snapshot(mllm))
    example = examples[0]
    prompt = mllm.prepare(example.image, example.question)
    trace = cm.optimize(mllm, prompt, example.region, replace(method, layers=(2, 6), queries="last"))
    assert sweep.figure("energy")[1, 0] == pytest.approx(trace.steps[-1].energy, rel=1e-4)
    assert sweep.figure("share before")[1, 0] == pytest.approx(trace.steps[0].share, rel=1e-4)
    texts = [example.answer, *example.alternatives]
    assert any(mllm.generate(prompt).startswith(text) for text in texts)
    scores = [AnswerScore(mllm, prompt, text) for text in texts]
    plain = torch.stack([score(torch.zeros_like(trace.latent)[None])[0] for score in scores])
    steered = torch.stack([score(trace.latent[None])[0] for score in scores])
    assert sweep.figure("moved")[1, 0] == pytest.approx((steered[0] - plain[0]).item(), abs=1e-3)
    assert sweep.figure("damage")[1, 0] == pytest.approx(
        (plain.exp().sum().log() - steered.exp().sum().log()).item(), abs=1e-3
    )
    assert sweep.figure("right")[1, 0] == float(steered.argmax() == 0)


def test_each_size_of_prompt_gets_the_copies_that_fit(mllm, examples, monkeypatch):
    from cmllm_tools.analysis import window_sweep

    one = mllm.prepare(examples[0].image, examples[0].question)
    longer = mllm.prepare(examples[0].image, 20 * "is the object red ? ")
    ratio = longer.call.states.numel() / one.call.states.numel()
    assert ratio > 2
    # Half of what is free holds ten copies of the first.
    need = MemoryEstimate(step=1000, checkpointed=500, free=20_000, checkpointing=False)
    monkeypatch.setattr(window_sweep, "estimate_memory", lambda *_: need)
    fitting = window_sweep._copies_that_fit(mllm, one)
    assert (fitting(one), fitting(longer)) == (10, int(10 / ratio))
    monkeypatch.setattr(window_sweep, "estimate_memory", lambda *_: replace(need, free=0))
    assert window_sweep._copies_that_fit(mllm, one)(longer) == 1
    monkeypatch.setattr(window_sweep, "estimate_memory", lambda *_: replace(need, free=10**9, checkpointing=True))
    assert window_sweep._copies_that_fit(mllm, one)(longer) == window_sweep.MAX_COPIES


@pytest.mark.slow
def test_a_file_keeps_the_examples_of_earlier_sweeps(mllm, examples, tmp_path, capsys):
    path = tmp_path / "sweep.json"
    # As a process leaves it that is killed before the first line.
    path.touch()
    first = sweep_windows(mllm, examples[:2], path=path, **ONE)
    second = sweep_windows(mllm, [examples[2], examples[0]], path=path, **ONE | {"progress": True})
    assert "2/2" in capsys.readouterr().err
    assert second.done == len(second.examples) == 2
    np.testing.assert_array_equal(second.values[:, :, 1], first.values[:, :, 0])
    kept = Sweep.load(path)
    assert kept.done == 3
    assert set(kept.examples) == {*first.examples, *second.examples}


def test_the_right_answer_is_compared_with_those_that_were_given(mllm, examples, monkeypatch):
    """The model's own wording may be likelier than every answer that was given."""
    example = examples[1]
    own = example.alternatives[0]
    asked = replace(example, alternatives=("zebra",))
    monkeypatch.setattr(mllm, "generate", lambda *_, **__: own)
    method = cm.ControlMLLMPlus(steps=1, step_size=1e-6)
    sweep = sweep_windows(mllm, [asked], [(5, 6)], ["last"], method, max_copies=1, progress=False)
    prompt = mllm.prepare(example.image, example.question)
    zero = torch.zeros_like(prompt.zero_latent())[None]
    likelier = AnswerScore(mllm, prompt, own)(zero) > AnswerScore(mllm, prompt, example.answer)(zero)
    assert likelier
    assert sweep.figure("right")[0, 0] == 1


def test_a_figure_that_was_never_measured_is_shown_without_a_warning(recwarn):
    sweep = made([[1, 2]] * 4)
    sweep.values[FIGURES.index("right")] = np.nan
    assert len(sweep_pictures(sweep, "right")) == 2
    assert not [each for each in recwarn if issubclass(each.category, RuntimeWarning)]


def test_progress_counts_runs(mllm, examples, capsys):
    sweep_windows(mllm, examples[:1], [(0, 3), (2, 6), (0, 6)], ["last"], cm.ControlMLLMPlus(steps=1), max_copies=2)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.slow
def test_copies_change_nothing_but_time(mllm, examples):
    settings = {"windows": "all", "contexts": ("last",), "method": cm.ControlMLLMPlus(steps=1), "progress": False}
    together = sweep_windows(mllm, examples[:1], max_copies=8, **settings)
    alone = sweep_windows(mllm, examples[:1], max_copies=1, **settings)
    assert len(together.choices) == 21
    for name in FIGURES[:-1]:
        np.testing.assert_allclose(together.figure(name), alone.figure(name), rtol=1e-4, atol=1e-4)


def test_a_sweep_is_interrupted_saved_and_resumed(mllm, examples, tmp_path, monkeypatch):
    from cmllm_tools.analysis import window_sweep

    path = tmp_path / "sweep.json"
    settings = {
        "windows": [(0, 3), (0, 6)],
        "contexts": ("last",),
        "method": cm.ControlMLLMPlus(steps=1),
        "max_copies": 4,
        "progress": False,
    }
    measured, runs = window_sweep._measured, []

    def interrupted(*arguments):
        if len(runs) == 2:
            raise KeyboardInterrupt
        runs.append(arguments)
        return measured(*arguments)

    monkeypatch.setattr(window_sweep, "_measured", interrupted)
    partial = sweep_windows(mllm, examples, path=path, **settings)
    assert partial.done == 2
    assert "2 of 3 examples" in repr(partial)
    assert len(partial.rows()) == 2
    monkeypatch.setattr(window_sweep, "_measured", measured)
    monkeypatch.setattr(window_sweep, "_candidates", lambda *arguments: runs.append("once") or ([], torch.empty(0)))
    whole = sweep_windows(mllm, examples, path=path, **settings)
    assert whole.done == 3
    assert runs.count("once") == 1
    np.testing.assert_array_equal(whole.values[:, :, :2], partial.values[:, :, :2])
    with pytest.raises(cm.DataError, match="resumed from a file of the same method"):
        sweep_windows(mllm, examples, path=path, **settings | {"method": cm.ControlMLLMPlus(steps=2)})


def test_words_and_folders_are_found_again_when_a_sweep_is_resumed(mllm, examples, tmp_path, monkeypatch):
    from cmllm_tools.analysis import window_sweep

    monkeypatch.setenv("HOME", str(tmp_path))
    given = [(0, 3), (0, 6), (0, 6)], [["object"], ["object", -1], ("object",)], cm.ControlMLLMPlus(steps=1)
    options = {"path": "~/sweep.json", "max_copies": 4, "progress": False}
    sweep = sweep_windows(mllm, examples[:1], *given, **options)
    assert len(sweep.choices) == 4
    monkeypatch.setattr(window_sweep, "_measured", None)
    again = sweep_windows(mllm, examples[:1], *given, **options)
    np.testing.assert_array_equal(again.values, sweep.values)
    assert Sweep.load("~/sweep.json").choices == sweep.choices


def test_an_answer_with_more_words_than_the_models_own_may_be_right(mllm, examples):
    own = mllm.generate(mllm.prepare(examples[0].image, examples[0].question))
    example = replace(examples[0], answer=f"{own} at the left", alternatives=())
    sweep = sweep_windows(mllm, [example], [(0, 6)], ["last"], cm.ControlMLLMPlus(steps=1), progress=False)
    # There is nothing left to compare it with.
    assert np.isnan(sweep.figure("right")).all()
    assert sweep.figure("damage") == -sweep.figure("moved")


def made(moved, choices=None):
    """A sweep with the given figures `moved` (choice, example)."""
    moved = np.asarray(moved, float)
    choices = choices or [Choice((0, 2), "last"), Choice((1, 6), "last"), Choice((0, 6), "last"), Choice((0, 6), "text")]
    sweep = Sweep.empty("m", cm.ControlMLLMPlus(), choices, [str(number) for number in range(moved.shape[1])])
    sweep.values[:] = 1.0
    sweep.values[FIGURES.index("moved")] = moved
    return sweep


def test_the_recommended_window_is_the_cheapest_within_one_standard_error():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=50)
    noise = rng.normal(size=(4, 50))
    # Differences are paired: what examples share is no noise, so that 0.1 is far.
    sweep = made([shared + 1.0 + 0.01 * noise[0], shared + 1.1, shared + 0.5 + 0.1 * noise[2], shared])
    chosen = recommend(sweep)
    assert chosen.choice == Choice((1, 6), "last")
    assert chosen.against == Choice((0, 6), "last")
    gain = 0.6 - 0.1 * noise[2].mean()
    assert chosen.gain == pytest.approx(gain)
    error = 0.1 * noise[2].std(ddof=1) / 50**0.5
    assert chosen.interval == pytest.approx((gain - 1.96 * error, gain + 1.96 * error), abs=0.5 * error)
    assert "0 more are within one standard error" in chosen.reason
    near = made([shared + 1.1 + noise[0], shared + 1.1 + noise[0].mean(), shared, shared])
    assert recommend(near).choice == Choice((0, 2), "last")


def test_a_choice_that_failed_is_not_recommended():
    sweep = made([[np.nan, 9], [1, 2], [0, 1], [0, 0]])
    assert recommend(sweep).choice == Choice((1, 6), "last")
    assert sweep.rows()[-1]["choice"] == Choice((0, 2), "last")


def test_examples_without_an_answer_do_not_count_against_a_choice():
    known, mixed = (
        made([[5, 6], [1, 2], [0, 1], [0, 0]]),
        made([[5, np.nan, 6], [1, np.nan, 2], [0, np.nan, 1], [0, np.nan, 0]]),
    )
    assert str(recommend(mixed)) == str(recommend(known))
    assert mixed.rows() == known.rows()
    np.testing.assert_array_equal(mixed.grid("moved", "last"), known.grid("moved", "last"))


def test_recommendations_need_figures():
    with pytest.raises(cm.DataError, match="at least two examples"):
        recommend(made([[1], [1], [1], [1]]))
    with pytest.raises(cm.DataError, match=r"window of all layers, \(0, 6\)"):
        recommend(made([[1, 2], [1, 3]], [Choice((0, 2), "last"), Choice((1, 6), "last")]))
    with pytest.raises(cm.DataError, match=r"must be .energy before"):
        recommend(made([[1, 2]] * 4), by="speed")


def test_a_sweep_is_read_back_as_it_was(tmp_path):
    sweep = made([[np.nan, 9], [1, 2], [0, 1], [0, 0]])
    again = Sweep.load(sweep.save(tmp_path / "sweep.json"))
    np.testing.assert_array_equal(again.values, sweep.values)
    assert (again.choices, again.examples, again.method) == (sweep.choices, sweep.examples, sweep.method)
    (tmp_path / "other.json").write_text('{"figures": []}')
    with pytest.raises(cm.DataError, match="those of a sweep's to_json"):
        Sweep.load(tmp_path / "other.json")


def test_a_sweep_lists_its_best_choices():
    choices = [Choice((low, high), "last") for high in range(1, 6) for low in range(high)]
    sweep = made([[number, number] for number in range(len(choices))], choices)
    page = sweep._repr_html_()
    listed = [page.find(f">{choice}<") for choice in choices]
    assert listed[:-8] == [-1] * (len(choices) - 8)
    assert -1 not in listed[-8:] and listed[-8:] == sorted(listed[-8:], reverse=True)
    sweep.values[FIGURES.index("moved")] = np.nan
    sweep.values[FIGURES.index("share"), 0] = 2.0
    assert sweep.decisive == "share"
    page = sweep._repr_html_()
    assert "moved" not in page and page.count(">2.000<") == 1


def test_the_grid_holds_each_window_once():
    sweep = made([[1, 2], [3, 3], [0, 1], [0, 4]])
    grid = sweep.grid("moved", "last")
    assert grid.shape == (6, 6)
    assert (grid[0, 1], grid[1, 5], grid[0, 5]) == (1.5, 3, 0.5)
    assert np.isfinite(grid).sum() == 3


def test_what_cannot_be_swept_is_refused(mllm, examples):
    with pytest.raises(cm.SettingsError, match="'all' or a sequence"):
        sweep_windows(mllm, examples, windows="some")
    with pytest.raises(cm.SettingsError, match="At least one window"):
        sweep_windows(mllm, examples, windows=[])
    with pytest.raises(cm.SettingsError, match="0 <= a < b <= 6"):
        sweep_windows(mllm, examples, windows=[(3, 9)])
    with pytest.raises(cm.SettingsError, match="one or more context tokens; got 'last'"):
        sweep_windows(mllm, examples, contexts="last")
    with pytest.raises(cm.SettingsError, match="one or more context tokens"):
        sweep_windows(mllm, examples, contexts=[])
    with pytest.raises(cm.SettingsError, match="max_copies must be at least 1"):
        sweep_windows(mllm, examples, max_copies=0)
    with pytest.raises(cm.OutputError, match="folder of an output path must exist"):
        sweep_windows(mllm, examples, path="/nowhere/sweep.json")
    with pytest.raises(cm.CaptureError, match="pair must be in layers"):
        sweep_windows(mllm, examples, [(1, 3)], method=cm.ControlMLLMPlus(heads=((0, 1),)))
    with pytest.raises(cm.DataError, match="At least one example"):
        sweep_windows(mllm, [])


def replaced(monkeypatch, act):
    """`act(calls so far)` before each example is measured; the figures are those of a run that is not made."""
    from cmllm_tools.analysis import window_sweep

    calls = []

    def measured(mllm, prompt, example, sweep, most, tick):
        act(len(calls))
        calls.append(example)
        return np.full((len(FIGURES), len(sweep.choices)), float(len(calls)))

    monkeypatch.setattr(window_sweep, "_measured", measured)
    return calls


def test_a_file_that_another_process_adds_to_is_refused(mllm, examples, monkeypatch, tmp_path):
    path = tmp_path / "sweep.json"

    def other(count):
        if count == 0:
            with pytest.raises(cm.OutputError, match=r"another process adds to it\. Give each a file of its own"):
                sweep_windows(mllm, [examples[2]], path=path, **ONE)

    replaced(monkeypatch, other)
    assert sweep_windows(mllm, examples[:1], path=path, **ONE).done == 1


def test_parts_of_a_set_are_put_together(mllm, examples, monkeypatch, tmp_path):
    """Each by itself; then the whole set is swept without running anything."""
    paths = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    calls = replaced(monkeypatch, lambda count: None)
    dataset = cm.data.Dataset.of(examples)
    for number, path in enumerate(paths, 1):
        sweep_windows(mllm, dataset.shard(number, 2), path=path, **ONE)
    out, count = cm.evaluation.merge(paths, tmp_path / "all.jsonl")
    assert count == Sweep.load(out).done == len(calls) == 3
    assert sweep_windows(mllm, dataset, path=out, **ONE).figure("moved").tolist() == [[1, 3, 2]]
    assert len(calls) == 3
    sweep_windows(mllm, dataset[:1], path=tmp_path / "other.jsonl", **ONE | {"windows": [(0, 2)]})
    with pytest.raises(cm.DataError, match=r"other\.jsonl is of another model, or other settings"):
        cm.evaluation.merge([paths[0], tmp_path / "other.jsonl"], out)
    with pytest.raises(cm.DataError, match="was written whole"):
        cm.evaluation.merge([paths[0], Sweep.load(out).save(tmp_path / "whole.json")], out)


@pytest.mark.parametrize("by_file", [True, False])
def test_an_example_that_fails_is_recorded_and_the_sweep_goes_on(mllm, examples, tmp_path, by_file):
    path = tmp_path / "sweep.jsonl" if by_file else None
    bad = replace(examples[1], region=cm.Box(500, 500, 600, 600))
    sweep = sweep_windows(mllm, [examples[0], bad, examples[2]], path=path, **ONE)
    assert sweep.done == len(sweep.examples) == 2
    (fault,) = sweep.failed
    assert "RegionError: A box must lie within the image of 192 x 192 px" in fault
    assert "failed 1" in repr(sweep)
    assert Sweep.from_json(sweep.to_json()).failed == sweep.failed
    if by_file:
        assert Sweep.load(path).failed == sweep.failed
        again = sweep_windows(mllm, [examples[0], bad, examples[2]], path=path, **ONE)
        np.testing.assert_array_equal(again.values, sweep.values)
        assert again.failed == sweep.failed
        # Tried again, it fails again: another line, of which the last counts.
        sweep_windows(mllm, [bad, examples[0]], path=path, retry=True, **ONE)
        assert len(path.read_bytes().splitlines()) == 5
        assert len(Sweep.load(path).failed) == 1
    with pytest.raises(cm.RegionError, match="must lie within the image") as caught:
        sweep_windows(mllm, [bad, bad], **ONE)
    assert caught.value.__notes__ == ["All 2 examples failed; this is the first one's reason."]


def test_a_reason_that_was_recorded_says_so(mllm, examples, monkeypatch, tmp_path):
    path, bad = tmp_path / "sweep.jsonl", replace(examples[1], region=cm.Box(500, 500, 600, 600))
    notes = []
    for retry in (False, False, True):
        with pytest.raises(cm.RegionError) as caught:
            sweep_windows(mllm, [bad], path=path, retry=retry, **ONE)
        notes.append(getattr(caught.value, "__notes__", []))
    assert notes == [[], [f"So it is recorded in {path}; it is tried again with retry=True (--retry)."], []]
    # What failed when a sweep was written whole is told by the lines that came after, once.
    whole = sweep_windows(mllm, [examples[0], bad], **ONE).save(tmp_path / "whole.json")
    assert len(sweep_windows(mllm, [examples[0], bad], path=whole, **ONE).failed) == 1
    assert len(Sweep.load(whole).failed) == 1


def test_what_waits_for_a_full_disk_is_told_also_where_all_examples_fail(mllm, examples, monkeypatch, tmp_path):
    import os

    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    bad = replace(examples[1], region=cm.Box(500, 500, 600, 600))
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.warns(cm.OutputWarning), pytest.raises(cm.OutputError, match="No space left on device"):
        sweep_windows(mllm, [bad], path=tmp_path / "sweep.jsonl", **ONE)


@pytest.mark.parametrize("gone", ["file", "row"])
def test_what_cannot_be_read_is_one_example_that_fails(mllm, tmp_path, gone):
    root = roc(tmp_path, 3)
    rows = [json.loads(line) for line in (root / "question_roc.json").read_text().splitlines()]
    if gone == "file":
        (root / "LVIS/image/val2017" / rows[1]["image_path"].rpartition("/")[2]).unlink()
    else:
        del rows[1]["text"]
    (root / "question_roc.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "sweep.jsonl"
    for _ in range(2):
        sweep = sweep_windows(mllm, cm.data.read(root), path=path, **ONE)
        assert (sweep.done, len(sweep.failed)) == (2, 1)
        assert sweep.failed[0].startswith("question_roc.json, line 2: ")
    assert len(path.read_bytes().splitlines()) == 4


def test_a_full_disk_does_not_end_a_sweep(mllm, examples, monkeypatch, tmp_path):
    """What could not be written is written with the next example; what could not to the end is in the error."""
    import os

    path, own, full = tmp_path / "sweep.json", os.fsync, []

    def fsync(descriptor):
        if full:
            raise OSError(28, "No space left on device")
        own(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    replaced(monkeypatch, lambda count: full.append(1) if count == 1 else full.clear())
    with pytest.warns(cm.OutputWarning, match=r"No space left on device. .* The sweep goes on, and is saved after"):
        sweep = sweep_windows(mllm, examples, path=path, **ONE)
    assert sweep.done == Sweep.load(path).done == 3
    replaced(monkeypatch, lambda count: full.append(1))
    more = [replace(each, question="Describe it.") for each in examples[:2]]
    with pytest.warns(cm.OutputWarning), pytest.raises(cm.OutputError, match="No space left on device") as caught:
        sweep_windows(mllm, more, path=path, **ONE)
    assert caught.value.sweep.done == 2
    full.clear()
    assert Sweep.load(path).done >= 3


def test_each_example_is_a_line_and_is_added_to_what_was_written_whole(mllm, examples, monkeypatch, tmp_path):
    path = tmp_path / "sweep.json"
    sizes = []
    replaced(monkeypatch, lambda count: sizes.append(path.stat().st_size if path.exists() else 0))
    sweep = sweep_windows(mllm, examples, path=path, **ONE)
    assert len(path.read_bytes().splitlines()) == 4
    # The head comes with the first; then every example costs what it is.
    assert sizes[2] - sizes[1] == path.stat().st_size - sizes[2]
    whole = sweep.subset([0, 1]).save(tmp_path / "before.json")
    assert len(whole.read_bytes().splitlines()) == 1
    calls = replaced(monkeypatch, lambda count: None)
    again = sweep_windows(mllm, examples, path=whole, **ONE)
    assert len(calls) == 1
    np.testing.assert_array_equal(again.values[:, :, :2], sweep.values[:, :, :2])
    # The one that was written whole stays, with a line to what came after.
    assert len(whole.read_bytes().splitlines()) == 2
    assert Sweep.load(whole).done == 3
    # One that was killed while it wrote its first line has nothing.
    whole.write_bytes(path.read_bytes()[:200])
    assert sweep_windows(mllm, examples[:1], path=whole, **ONE).done == 1
    assert Sweep.load(whole).done == 1


def test_an_error_in_a_sweep_carries_what_is_known(mllm, examples, monkeypatch):
    def act(count):
        if count == 2:
            raise RuntimeError("out of memory")

    replaced(monkeypatch, act)
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        sweep_windows(mllm, examples, strict=True, **ONE)
    assert (caught.value.sweep.done, len(caught.value.sweep.examples)) == (2, 3)
    assert "The sweep so far, 2 of 3 records, is in this error's .sweep." in caught.value.__notes__
    replaced(monkeypatch, act)
    assert sweep_windows(mllm, examples, **ONE).failed == ("example 2: RuntimeError: RuntimeError('out of memory')",)


def test_an_example_given_twice_is_run_once_and_keeps_its_places(mllm, examples, monkeypatch, tmp_path):
    twice = [examples[0], examples[1], examples[0], examples[2]]
    calls = replaced(monkeypatch, lambda count: None)
    for _ in range(2):
        sweep = sweep_windows(mllm, twice, path=tmp_path / "sweep.json", **ONE)
        assert sweep.figure("moved").tolist() == [[1, 2, 1, 3]]
    assert len(calls) == 3


def test_no_flipped_byte_of_a_sweep_passes(tmp_path):
    path = made([[np.nan, 9], [1, 2], [0, 1], [0, 0]]).save(tmp_path / "sweep.json")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(100), *rng.integers(0, len(data), 400)]:
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        with pytest.raises(cm.DataError):
            Sweep.load(path)


def test_a_sweep_in_which_an_example_stands_twice_opens_again(tmp_path):
    """As `sweep_windows` gives it back where an example was given twice."""
    twice = made([[np.nan, 9], [1, 2], [0, 1], [0, 0]]).subset([1, 1])
    again = Sweep.load(twice.save(tmp_path / "sweep.json"))
    assert again.examples == twice.examples
    np.testing.assert_array_equal(again.values, twice.values)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data | {"extra": 1},
        lambda data: {name: data[name] for name in data if name != "model"},
        lambda data: data | {"model": 3},
        lambda data: data | {"method": "x"},
        lambda data: data | {"method": data["method"] | {"name": "x"}},
        lambda data: data | {"examples": "ab"},
        lambda data: data | {"choices": data["choices"][:1] * 4},
        lambda data: data | {"choices": [{"layers": [0, 10**9], "queries": "last"}, *data["choices"][1:]]},
        lambda data: data | {"choices": [{"layers": [2, 1], "queries": "last"}, *data["choices"][1:]]},
        lambda data: data | {"choices": [{"layers": [0.5, 1], "queries": "last"}, *data["choices"][1:]]},
        lambda data: data | {"values": "x"},
        lambda data: data | {"values": data["values"][:-1]},
        lambda data: data | {"values": [[["1"] * 2] * 4] * 8},
        lambda data: data | {"values": [[[True] * 2] * 4] * 8},
        lambda data: data | {"values": [[[10**400] * 2] * 4] * 8},
        lambda data: data | {"values": [[[float("nan")] * 2] * 4] * 8},
        lambda data: data | {"sha256": "0" * 64},
        lambda data: data | {"sha256": "x"},
        lambda data: [data],
    ],
)
def test_a_sweep_of_wrong_types_shapes_and_sizes_is_refused(tmp_path, change):
    data = made([[np.nan, 9], [1, 2], [0, 1], [0, 0]]).to_json()
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(data))
    assert Sweep.load(path).done == 2
    path.write_text(json.dumps(change(data)))
    with pytest.raises(cm.DataError, match=r"sweep must be read from its own|those of a sweep's to_json"):
        Sweep.load(path)
