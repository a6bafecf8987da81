"""A rule to stop beside fixed numbers of steps: what is counted, chosen and summed up."""

import numpy as np
import pytest

import cmllm_tools as cm
from cmllm_tools.bench.stopping import Stops, rule_beside_fixed, stops


def test_a_rule_is_chosen_by_right_answers_the_cautious_first():
    right = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1]], float)
    found = Stops((2.0, 3.0, 4.0), (1, 5), right, right * 2, right * 3)
    assert found.best_rule() == 3.0
    assert found.of(slice(1)).best_rule() == 2.0
    summed = found.summary(3.0)
    assert (summed["n"], summed["rule"], summed["best_fixed"], summed["fixed_steps"]) == (4, 1.0, 0.75, 1)
    assert summed["rule_effect"] == 2.0


def test_ends_are_those_of_runs_with_the_rule(mllm):
    scene = cm.bench.held_out()[7]
    method = cm.methods.KeySteering(steps=4, step_size=0.05)
    found = stops(mllm, [scene], method, (1, 4), gains=(1.2, 1e9))
    run = cm.optimize(
        mllm,
        mllm.prepare(scene.image, scene.question),
        scene.region("box"),
        cm.methods.KeySteering(steps=4, step_size=0.05, until=1.2),
    )
    assert found.taken[:, 0].tolist() == [len(run) - 1, 4, 1, 4]
    assert found.effect[1] == found.effect[3]
    with pytest.raises(cm.SettingsError, match="as the longest fixed run"):
        stops(mllm, [scene], method, (9,))
    with pytest.raises(cm.SettingsError, match="one half of which chooses the rule"):
        rule_beside_fixed(1)
