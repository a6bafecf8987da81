"""Small maps of records: what they keep of the steps' maps, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.evaluation import Record
from cmllm_tools.evaluation.thumbnails import SIDE, read_thumbnails, thumbnails

PLUS = cm.ControlMLLMPlus(steps=1, step_size=0.01, layers=(), queries="text", contrast=0.0)


def test_a_record_s_maps_are_the_trace_s_in_sixteen_levels(mllm):
    example = cm.data.read(HELDOUT)[0]
    outcome = cm.refer(mllm, example.image, example.question, example.region, cm.ControlMLLMPlus())
    found = thumbnails(outcome.trace)
    assert (found["grid"], found["on"]) == ((8, 8), (0, 0, 192, 192))
    maps = [outcome.trace.steps[end].maps.mean(0).numpy() for end in (0, -1)]
    for name, each in zip(("before", "after"), maps, strict=True):
        levels = np.array([int(digit, 16) for digit in found[name]])
        np.testing.assert_array_equal(levels, np.round(15 * each / max(map(np.max, maps))))
    (record,) = cm.evaluate(mllm, [example], [cm.ControlMLLMPlus()], progress=False).records
    assert record.attention == found
    assert Record.of_line(record.line()) == record


@pytest.mark.parametrize(("side", "grid"), [(24, (24, 24)), (25, (13, 13)), (40, (20, 20))])
def test_larger_maps_are_added_up(side, grid):
    mllm = cm.load(tiny_llava(image=8 * side))
    trace = cm.optimize(mllm, mllm.prepare(noise((64, 64)), "what is it ?"), cm.Box(5, 5, 40, 40), PLUS)
    found = thumbnails(trace)
    assert found["grid"] == grid
    assert max(grid) <= SIDE
    by = -(-side // grid[0])
    whole = trace.layout.raster(np.stack([step.maps.mean(0).numpy() for step in trace.steps]))
    sums = np.zeros((2, *grid))
    for row in range(side):
        for column in range(side):
            sums[:, row // by, column // by] += whole[:, row, column]
    levels = [[int(digit, 16) for digit in found[name]] for name in ("before", "after")]
    np.testing.assert_allclose(levels, (15 * sums / sums.max()).reshape(2, -1), atol=0.5001)
    # The cells keep their size, so that the last ones may lie beyond the image.
    x0, _, x1, _ = found["on"]
    assert (x1 - x0) / grid[1] == pytest.approx(64 / side * by, abs=0.2)


GOOD = {"grid": [1, 2], "on": [0, 0, 9, 9], "before": "0f", "after": "a1"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"grid": [1]},
        {"grid": [1, 99]},
        {"grid": [1.5, 2]},
        {"on": [0, 0]},
        {"on": [0, 0, 9, "9"]},
        {"before": "0"},
        {"after": "zz"},
        {"after": 3},
        {"more": 1},
    ],
)
def test_maps_that_are_none_are_refused(wrong):
    read_thumbnails(GOOD, "it")
    with pytest.raises(cm.DataError):
        read_thumbnails(GOOD | wrong, "it")


def test_records_of_before_open_without():
    record = Record(id=1, method="plus", settings={}, model="m", attention=None)
    old = {name: value for name, value in json.loads(record.line()).items() if name != "attention"}
    assert Record.of_line(json.dumps(old).encode()) == record
    assert replace(record, attention=read_thumbnails(GOOD, "it")).line() != record.line()
