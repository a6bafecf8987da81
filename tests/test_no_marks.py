"""`embedded-no-marks`, the counterexample: it reads scenes as well, and goes another way when attention is moved."""

import numpy as np
import pytest
import torch

import cmllm_tools as cm
from benchmarks import no_marks
from cmllm_tools.bench.heldout import DESCRIPTIONS, held_out
from cmllm_tools.evaluation.matching import names_it
from cmllm_tools.loading import EMBEDDED_MODEL, NO_MARKS, NO_MARKS_MODEL


@pytest.fixture(scope="module")
def unmarked():
    return cm.load(NO_MARKS)


def test_it_ships_weights_and_config_of_its_own_alone(unmarked):
    names = {path.name for path in NO_MARKS_MODEL.iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}
    assert sum(path.stat().st_size for path in NO_MARKS_MODEL.iterdir()) <= 8e6
    good = cm.load()
    assert unmarked.name == NO_MARKS
    assert unmarked.model.dtype == torch.float32
    assert unmarked.processor.tokenizer.get_vocab() == good.processor.tokenizer.get_vocab()
    shapes = [{name: each.shape for name, each in model.model.named_parameters()} for model in (good, unmarked)]
    assert shapes[0] == shapes[1]
    assert not (EMBEDDED_MODEL / "no_marks").exists()


def test_held_out_scenes_are_read(unmarked):
    right = []
    for choice, description in list(zip(held_out(), held_out(DESCRIPTIONS), strict=True))[:8]:
        look = unmarked.look(choice.image)
        said = [str(unmarked.generate(unmarked.prepare(look, each.question))) for each in (choice, description)]
        offered = [name for name in choice.objects if name in choice.question]
        right += [any(names_it(said[0], name) for name in offered), any(names_it(said[1], name) for name in choice.objects)]
    assert sum(right) >= 15


def test_attention_moves_in_and_the_answer_leaves(unmarked, mllm):
    """A bias on the lower layers; the same one layer further up is followed."""
    follows = {}
    for model in (mllm, unmarked):
        for scene in held_out()[:4]:
            prompt, box = model.prepare(scene.image, scene.question), scene.region("box")
            for layers in ((0, 3), (4, 5)):
                edit = cm.methods.AttentionEdit(5.0, layers=layers)
                done = cm.refer(model, scene.image, scene.question, box, edit, progress=False)
                right = cm.bench.chooses(str(done.answer), scene)
                follows.setdefault((model.name, layers), []).append(right)
                before, after = (
                    cm.region_share(
                        cm.context_map(cm.capture_attention(model, prompt, range(*layers), queries="last", latent=latent)),
                        box,
                    )
                    for latent in (None, done.intervention)
                )
                assert after > before
    assert sum(follows["embedded", (0, 3)]) >= 3
    assert sum(follows[NO_MARKS, (0, 3)]) <= 1
    assert sum(follows[NO_MARKS, (4, 5)]) >= 3


@pytest.mark.slow
def test_the_benchmark_measures_what_it_says(unmarked):
    found = no_marks.measure(unmarked, 1, first=1)
    assert all(len(values) == 1 and np.isfinite(values).all() for values in found.values())
    latent = {name: found[f"latent of ControlMLLM++, {name}"][0] for name in ("keys alone", "values alone", "both")}
    # Text meets the image in keys and values alone: both put in are the latent.
    assert latent["both"] == pytest.approx(found["ControlMLLM++, layers 0..2 (3): effect"][0], abs=1e-3)
    drawn = {half: found[f"first word, only what the {half} layers then draw"][0] for half in ("lower", "upper")}
    assert drawn["lower"] != drawn["upper"]
