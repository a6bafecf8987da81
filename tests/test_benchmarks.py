import pytest

import cmllm_tools as cm
from benchmarks import attribution, capture, evaluate, sweep

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


def test_evaluate_benchmark_measures_what_it_says():
    summary = evaluate.measure(4, 20, 0)
    assert set(summary) == {"overhead", "memory_growth", "prefix_ratio", "ray_speedup", "examples_per_second"}
    assert summary["ray_speedup"] is None
    assert summary["examples_per_second"] > 0
    assert abs(summary["memory_growth"]) < 1
