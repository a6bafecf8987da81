import json

import pytest
import torch
from tests_support import noise

import cmllm_tools as cm
from benchmarks import answer, attribution, capture, evaluate, key_ranks, steer, sweep
from cmllm_tools.referring.target import Target

pytestmark = pytest.mark.slow


def test_capture_benchmark_measures_what_it_says(monkeypatch):
    """On a model small enough for a unit test: the figures are there, and the gradient is the reference's."""
    for name, value in {"LAYERS": 2, "WIDTH": 64, "WINDOW": range(0, 1), "GRIDS": (4, 8)}.items():
        monkeypatch.setattr(capture, name, value)
    summary, details = capture.measure(repeats=1)
    assert set(summary) == {
        "grad_rel_diff",
        "step_ratio_to_floor",
        "speedup_all_layers",
        "speedup_window",
        "memory_ratio_to_reference",
        "memory_ratio_checkpointed",
        "time_ratio_checkpointed",
        "memory_growth_exponent",
        "time_growth_exponent",
    }
    assert summary["grad_rel_diff"] < 1e-4
    assert 0 < summary["memory_ratio_to_reference"] < 1
    assert 0 < summary["memory_ratio_checkpointed"] < 1
    assert details["peak_mb"]["ours, window"] < details["peak_mb"]["ours"] < details["peak_mb"]["reference"]


def test_answer_benchmark_measures_what_it_says(monkeypatch):
    """On a model small enough for a unit test. What is counted is exactly so many numbers for each token."""
    for name, value in {"LAYERS": 2, "WIDTH": 64}.items():
        monkeypatch.setattr(capture, name, value)
    mllm = capture.random_llava(4)
    prompt = mllm.prepare(noise((60, 60)), capture.QUESTION)
    found = answer.measure(mllm, prompt, (8, 16, 32))
    assert set(found) == {"growth", "peak_mb", "stored", "captured", "lengths"}
    for length, stored, captured in zip(found["lengths"], found["stored"], found["captured"], strict=True):
        # Of each token a map of 16 visual tokens and a number of each of 2 x 8 heads; no region.
        assert stored == length * (16 + 2 * 8)
        assert captured == length * 2 * 8 * 16


def test_sweep_benchmark_measures_what_it_says(monkeypatch):
    """With one step and one context token: both ways agree, and the figures are there."""
    monkeypatch.setattr(sweep, "CONTEXTS", ("last",))
    summary = sweep.measure(1, 1, cm.ControlMLLMPlus(steps=1))
    assert set(summary) == {"max_rel_diff", "speedup", "all_windows_seconds"}
    assert 0 < summary["max_rel_diff"] < 1e-4
    assert summary["speedup"] > 0


def test_attribution_benchmark_measures_what_it_says():
    summary = attribution.measure(2, skip=40)
    assert summary["n"] == 2
    assert set(summary) == {"n", "chance", "completeness_error", *attribution.METHODS}
    assert summary["completeness_error"] <= 0.01
    assert all(0 <= summary[method] <= 1 for method in attribution.METHODS)


def test_steer_benchmark_measures_what_it_says(monkeypatch):
    """On a model small enough for a unit test; the larger ones are made in the same way, with fewer and narrower layers."""
    for name, value in {"LAYERS": 2, "WIDTH": 64}.items():
        monkeypatch.setattr(capture, name, value)
    monkeypatch.setattr(steer, "GRID", 4)
    found = steer.measure("small", (4, 16), torch.device("cpu"), repeats=1, seconds=600)
    assert set(found) == {
        "device",
        "step_seconds",
        "answer_seconds",
        "answer_ratio",
        "second_question_ratio",
        "peak_memory_ratio",
        "memory_of_cache",
        "growth",
    }
    methods = {"reference", "controlmllm", "controlmllm_plus", "key_steering"}
    assert all(set(found[name]) - {"plain"} == methods for name in ("step_seconds", "answer_ratio", "peak_memory_ratio"))
    assert set(found["growth"]) == {4, 16}
    assert all(set(steps) == methods and min(steps.values()) > 0 for steps in found["growth"].values())


def test_ways_that_took_long_are_left_out_of_larger_sizes(monkeypatch):
    for name, value in {"LAYERS": 1, "WIDTH": 64}.items():
        monkeypatch.setattr(capture, name, value)
    monkeypatch.setattr(steer, "LONG", 5.0)
    seconds = {"reference": None, "controlmllm": 6.0, "controlmllm_plus": 4.0, "key_steering": 1.0}
    monkeypatch.setattr(steer.Setting, "least", lambda setting, name, repeats: seconds[name])
    found = steer.growth("small", (16, 4), torch.device("cpu"), float("inf"))
    assert found == {4: seconds, 16: seconds | {"controlmllm": None}}
    monkeypatch.setattr(steer, "BYTES", 10**15)
    assert steer.growth("small", (4,), torch.device("cpu"), float("inf")) == {}


def test_the_reference_step_is_that_of_capture(monkeypatch):
    for name, value in {"LAYERS": 2, "WIDTH": 64}.items():
        monkeypatch.setattr(capture, name, value)
    setting = steer.Setting("small", 4, torch.device("cpu"))
    latent = setting.prompt.zero_latent()
    attention = cm.capture_attention(setting.mllm, setting.prompt, latent=latent)
    energy = Target.of(setting.prompt.layout, setting.region).energy(cm.context_map(attention).values)
    expected = torch.autograd.grad(energy, latent)[0]
    torch.testing.assert_close(setting.reference_gradient(setting.prompt, latent), expected, rtol=1e-3, atol=1e-9)


def test_evaluate_benchmark_measures_what_it_says():
    summary = evaluate.measure(4, 20, 0)
    asked = {"overhead", "memory_growth", "prefix_ratio", "ray_speedup", "examples_per_second"}
    assert set(summary) == asked | {"prefix_ratio_one_by_one", "batch_ratio"}
    assert summary["ray_speedup"] is None
    assert summary["examples_per_second"] > 0
    assert abs(summary["memory_growth"]) < 1


def test_key_ranks_benchmark_measures_what_it_says(capsys):
    key_ranks.main(["--model", "embedded", "--n", "1", "--json"])
    found = json.loads(capsys.readouterr().out)["ranks"]
    shares = [each["share_of_square"] for each in found.values()]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, abs=1e-5)
    # Of one query, the last token, a head's gradient has one direction.
    assert shares[0] > 0.99
    assert found["1"]["effect"] == pytest.approx(found["all"]["effect"], abs=0.1)


def test_offsets_are_cut_to_as_many_directions():
    offsets = torch.randn(20, 3 * 8, generator=torch.Generator().manual_seed(0))
    for rank in (1, 3, 8):
        kept, share = key_ranks.cut(offsets, 8, rank)
        ranks = torch.linalg.matrix_rank(kept.unflatten(-1, (3, 8)).transpose(0, 1))
        assert ranks.tolist() == [rank] * 3
        assert kept.norm().item() == pytest.approx(offsets.norm().item(), rel=1e-5)
        assert 0 < share <= 1 + 1e-5
    torch.testing.assert_close(kept, offsets, atol=1e-4, rtol=1e-4)
