import json

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from scipy.stats import binomtest

import cmllm_tools as cm
from cmllm_tools.analysis import HeadRanking, answer_words, rank_heads, ranking_run
from cmllm_tools.analysis.intervals import bootstrap
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data.formats.roc import read_roc


@pytest.fixture(scope="module")
def examples():
    return [example.example() for example in read_roc(HELDOUT)[:48]]


@pytest.fixture(scope="module")
def ranking(mllm, examples):
    return rank_heads(mllm, examples[:6], "last", layers=[1, 4])


@pytest.mark.slow
def test_top_tenth_of_heads_localises_on_other_scenes(mllm, examples):
    """Chosen on one half, they point at the object on the other half at least 1.5 times as often as the mean of all."""
    chosen = rank_heads(mllm, examples[::2], answer_words).top(0.1)
    other = rank_heads(mllm, examples[1::2], answer_words)
    pointing = np.mean([row["pointing"] for row in other.rows(chosen)])
    assert len(chosen) == 4
    assert pointing > 0.9
    assert pointing >= 1.5 * other.pointing.mean()
    # What that is worth: a token drawn at random.
    assert other.pointing.mean() > 3 * other.pointing_chance


def test_figures_are_those_of_the_formula(mllm, examples, ranking):
    hits, lifts = np.zeros((2, 6)), np.zeros((2, 6))
    for example in examples[:6]:
        prompt = mllm.prepare(example.image, example.question)
        rows = cm.capture_attention(mllm, prompt, queries="last").values[[1, 4], :, 0].numpy()
        inside = prompt.layout.inside(example.region)
        lifts += (rows * inside).sum(-1) / rows.sum(-1) / inside.mean() / 6
        hits += inside[rows.argmax(-1)] >= 0.5 * inside.max()
    assert np.array_equal(ranking.hits, hits)
    assert np.allclose(ranking.lift, lifts, rtol=1e-4)
    assert (ranking.layers, ranking.heads, ranking.examples) == ((1, 4), (0, 1, 2, 3, 4, 5), 6)
    low, high = ranking.lift_interval
    assert (low <= ranking.lift).all()
    assert (ranking.lift <= high).all()


def test_order_and_top(ranking):
    keys = [(row["pointing"], row["over_chance"]) for row in ranking.rows(ranking.order)]
    assert keys == sorted(keys, reverse=True)
    assert len(set(ranking.order)) == 12
    assert ranking.top(0.1) == ranking.order[:1] == ranking.top(1)
    assert ranking.top(0.5) == ranking.order[:6]
    for amount in (0, 13, 1.0, 0.0, -0.5, 2.5):
        with pytest.raises(cm.SettingsError, match=r"a fraction in \(0, 1\) or a whole number in 1\.\.12"):
            ranking.top(amount)


def test_intervals_against_scipy(ranking):
    for row in ranking.rows(ranking.order):
        exact = binomtest(round(6 * row["pointing"]), 6).proportion_ci(method="wilson")
        assert row["pointing_ci"] == pytest.approx([exact.low, exact.high], abs=1e-4)
    values = np.random.default_rng(0).normal(3, 2, (400, 2))
    low, high = bootstrap(values, seed=1)
    half = 1.96 * values.std(0) / 20
    assert np.allclose([values.mean(0) - half, values.mean(0) + half], [low, high], atol=0.03)


def test_saved_and_reopened(ranking, tmp_path):
    again = HeadRanking.load(ranking.save(tmp_path / "heads.json"))
    assert again.order == ranking.order
    assert again.table() == ranking.table()
    assert repr(again) == repr(ranking)
    damaged = tmp_path / "damaged.json"
    for text in ("", "[]", "{}", json.dumps({"cmllm_heads": 99}), (tmp_path / "heads.json").read_text()[:-40]):
        damaged.write_text(text)
        with pytest.raises(cm.DataError, match=r"written by HeadRanking\.save"):
            HeadRanking.load(damaged)
    with pytest.raises(cm.OutputError, match="cannot be written"):
        ranking.save(tmp_path / "no" / "heads.json")


def test_ranking_chooses_the_heads_of_capture_and_steering(mllm, examples, ranking):
    prompt = mllm.prepare(examples[0].image, examples[0].question)
    best = ranking.top(2)
    values = torch.stack([cm.capture_attention(mllm, prompt).values[pair].mean(0) for pair in best])
    cmap = cm.context_map(cm.capture_attention(mllm, prompt, heads=best))
    assert torch.allclose(cmap.values, values.mean(0), atol=1e-7)
    trace = cm.optimize(mllm, prompt, examples[0].region, cm.ControlMLLMPlus(steps=3, heads=best))
    assert trace.layers == tuple(sorted({layer for layer, _ in best}))
    assert trace.steps[-1].share > trace.steps[0].share


def test_an_interrupt_leaves_the_ranking_so_far_and_the_model_as_found(mllm, examples, monkeypatch):
    before, left = snapshot(mllm), [3]

    def interrupted(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return cm.capture_attention(*arguments)

    monkeypatch.setattr(ranking_run, "capture_attention", interrupted)
    assert rank_heads(mllm, examples, "last", layers=[0]).examples == 3
    with pytest.raises(KeyboardInterrupt):
        rank_heads(mllm, examples, "last", layers=[0])
    assert_same(before, snapshot(mllm))


def test_a_head_that_does_not_look_at_the_image_never_points(mllm, examples, monkeypatch):
    def blind(*arguments):
        attention = cm.capture_attention(*arguments)
        attention.values[0, 2] = 0
        return attention

    monkeypatch.setattr(ranking_run, "capture_attention", blind)
    corner = cm.analysis.Example(examples[0].image, examples[0].question, cm.Box(0, 0, 48, 48))
    ranking = rank_heads(mllm, [corner], "last", layers=[0])
    assert ranking.hits[0, 2] == ranking.lift[0, 2] == 0


def test_bad_queries_and_examples_are_refused(mllm, examples):
    with pytest.raises(cm.PromptError, match="'zebra'"):
        rank_heads(mllm, examples[:2], "zebra")
    with pytest.raises(cm.DataError, match="At least one example"):
        rank_heads(mllm, [])
    nameless = cm.analysis.Example(examples[0].image, examples[0].question, examples[0].region)
    with pytest.raises(cm.DataError, match="need examples with an answer"):
        rank_heads(mllm, [nameless], answer_words)


def test_ranking_shows_itself(ranking):
    assert " (2) x 6 heads over 6 examples" in repr(ranking)
    # A heading, three heads, and what six examples cannot tell.
    assert ranking.table(3).count("\n") == 4
    page = ranking._repr_html_()
    assert "95 % interval" in page
    assert page.count("<tr>") > 8


def test_no_flipped_byte_of_a_ranking_passes(ranking, tmp_path):
    path = ranking.save(tmp_path / "heads.json")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(100), *rng.integers(0, len(data), 400)]:
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        with pytest.raises(cm.DataError, match=r"written by HeadRanking\.save"):
            HeadRanking.load(path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model", [None, 3, ["x"]]),
        ("layers", [None, "14", [1], [1, 1], [1, -4], [1, 4.5], [True, 4], []]),
        ("heads", [None, [0], [0, 1, 2, 3, 4, "5"]]),
        ("examples", [None, 0, -1, 6.0, True, "6", 10**400]),
        ("hits", [None, [], [[1.5] * 6] * 2, [[7] * 6] * 2, [[-1] * 6] * 2, [["1"] * 6] * 2, [[True] * 6] * 2]),
        ("pointing_chance", [None, "0.5", 1.5, -0.1, float("nan")]),
        ("lift", [None, [[1.0] * 6], [[float("inf")] * 6] * 2, [[10**400] * 6] * 2]),
        ("lift_interval", [None, [[1.0] * 6] * 2]),
        ("cmllm_heads", [None, 2, "1"]),
        ("extra", [1]),
    ],
)
def test_a_ranking_of_wrong_types_and_shapes_is_refused(ranking, tmp_path, name, values):
    path = ranking.save(tmp_path / "heads.json")
    data = json.loads(path.read_text())
    # As earlier versions wrote it.
    del data["sha256"]
    path.write_text(json.dumps(data))
    assert HeadRanking.load(path).order == ranking.order
    for value in values:
        path.write_text(json.dumps(data | {name: value}))
        with pytest.raises(cm.DataError, match=r"written by HeadRanking\.save"):
            HeadRanking.load(path)


def test_an_error_in_a_ranking_carries_what_is_known(mllm, examples):
    def queries(example):
        if example.question == examples[2].question:
            raise RuntimeError("mine")
        return "last"

    with pytest.raises(RuntimeError, match="mine") as caught:
        rank_heads(mllm, examples[:4], queries, layers=[1], strict=True)
    assert caught.value.ranking.examples == 2
    ranking = rank_heads(mllm, examples[:4], queries, layers=[1])
    assert (ranking.examples, len(ranking.failed)) == (3, 1)
    assert "failed 1" in repr(ranking)


@pytest.mark.parametrize(
    "given, error",
    [({"layers": [99]}, cm.CaptureError), ({"queries": 1.5}, cm.PromptError), ({"queries": []}, cm.PromptError)],
)
def test_what_is_wrong_with_the_call_is_no_examples_failure(mllm, examples, monkeypatch, tmp_path, given, error):
    """Nothing is run and nothing recorded, so that the call put right goes on from no such file."""
    monkeypatch.setattr(ranking_run, "_found", None)
    path = tmp_path / "heads.jsonl"
    with pytest.raises(error):
        rank_heads(mllm, examples[:2], **({"queries": "last"} | given), path=path, progress=False)
    assert not path.exists()


def test_a_ranking_goes_on_from_its_file(mllm, examples, monkeypatch, tmp_path):
    """Each example is a line; what is there is not measured again, and the ranking is that of one go."""
    path = tmp_path / "heads.jsonl"
    whole = rank_heads(mllm, examples[:4], "last", layers=[2, 0], progress=False)
    measured, calls = ranking_run._found, []

    def interrupted(mllm, example, *given):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(example)
        return measured(mllm, example, *given)

    monkeypatch.setattr(ranking_run, "_found", interrupted)
    assert rank_heads(mllm, examples[:4], "last", layers=[0, 2], path=path, progress=False).examples == 2
    assert len(path.read_bytes().splitlines()) == 3
    calls.clear()
    again = rank_heads(mllm, examples[:4], "last", layers=[0, 2], path=path, progress=False)
    assert len(calls) == 2
    for name in ("hits", "lift", "lift_interval", "pointing_chance"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    # Other queries are other lines, and another model, layers or sigma another file.
    calls.clear()
    rank_heads(mllm, examples[:1], lambda example: "text", layers=[0, 2], path=path, progress=False)
    assert len(calls) == 1
    with pytest.raises(cm.DataError, match="goes on from a file of the same model, layers and sigma"):
        rank_heads(mllm, examples[:1], "last", layers=[0], path=path, progress=False)
    with pytest.raises(cm.OutputError, match="cannot be written"):
        rank_heads(mllm, examples[:1], "last", path=tmp_path / "nowhere" / "heads.jsonl", progress=False)


def test_parts_of_a_set_are_ranked_apart_and_put_together(mllm, examples, tmp_path):
    dataset = cm.data.Dataset.of(examples[:5])
    settings = {"layers": [0, 2], "progress": False}
    whole = rank_heads(mllm, dataset, answer_words, **settings)
    paths = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    for number, path in enumerate(paths, 1):
        rank_heads(mllm, dataset.shard(number, 2), answer_words, path=path, **settings)
    out, count = cm.evaluation.merge(paths, tmp_path / "all.jsonl")
    before = out.read_bytes()
    again = rank_heads(mllm, dataset, answer_words, path=out, **settings)
    assert (count, out.read_bytes()) == (5, before)
    for name in ("hits", "lift", "lift_interval", "pointing_chance"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
