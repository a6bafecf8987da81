"""Shapes as annotations say them: real flows, run with every annotation of these modules checked (jaxtyping, beartype).

In a process of its own, as the modules must not have been imported before. Elsewhere nothing is checked at run time: what
callers get wrong is answered in the package's own words.
"""

import subprocess
import sys

import pytest

MODULES = [
    "cmllm_tools.attention.context_token",
    "cmllm_tools.attention.rows",
    "cmllm_tools.models.contrast",
    "cmllm_tools.models.prefix",
    "cmllm_tools.models.scoring",
    "cmllm_tools.referring.energy",
    "cmllm_tools.referring.target",
    "cmllm_tools.referring.updates",
]
CHECKED = f"""
from jaxtyping import install_import_hook
with install_import_hook({MODULES}, "beartype.beartype"):
    import cmllm_tools as cm
    from cmllm_tools.referring.target import Target
import torch
"""
FLOWS = """
mllm, scene = cm.load(), cm.demo_scene()
prompt = mllm.prepare(scene.image, scene.question)
attention = cm.capture_attention(mllm, prompt, heads=[1, 2])
for kind in ("box", "mask", "scribble", "point"):
    cmap = cm.context_map(attention, without=[3])
    cm.energy(cmap, [scene.region(kind), cm.Point(10, 10)]), cm.region_share(cmap, scene.region(kind))
for method in (cm.ControlMLLM(steps=2), cm.ControlMLLMPlus(steps=2, contrast=1), cm.methods.KeySteering(steps=2)):
    outcome = cm.refer(mllm, scene.image, scene.question, scene.region("box"), method, max_new_tokens=3)
cm.refer(mllm, scene.image, scene.question, scene.region("box"), cm.methods.AttentionEdit(2), max_new_tokens=3)
score = cm.AnswerScore(mllm, prompt, "red cross")
score(torch.stack([prompt.zero_latent().detach()] * 2))
example = cm.analysis.Example(scene.image, scene.question, scene.region("box"), "red cross", ("blue zero",))
cm.analysis.sweep_windows(mllm, [example], [(0, 3), (2, 6)], ("last",), cm.ControlMLLMPlus(steps=1), progress=False)
print("all shapes hold")
"""
WRONG = [
    "cm.hard_energy(torch.ones(2, 4), torch.ones(5))",
    "Target(torch.ones(4), (False,), 0.1)",
    "cm.Contrast(1).combine(torch.ones(4), torch.ones(3))",
    "cm.hard_energy(torch.ones(4, dtype=torch.int64), torch.ones(4))",
]


@pytest.fixture(scope="module")
def said():
    tried = "".join(
        f"try: {wrong}; print('unseen')\nexcept Exception as error: print(type(error).__name__)\n" for wrong in WRONG
    )
    done = subprocess.run([sys.executable, "-c", CHECKED + tried + FLOWS], capture_output=True, text=True, check=False)
    return done.stdout.split("\n"), done.stderr


@pytest.mark.slow
def test_real_flows_keep_the_shapes_that_are_annotated(said):
    lines, problems = said
    assert lines[-2:] == ["all shapes hold", ""], problems[-3000:]


@pytest.mark.slow
def test_what_is_annotated_is_checked(said):
    """Each breaks a shape that is said in no other way here, so that the test above could fail."""
    assert said[0][: len(WRONG)] == ["TypeCheckError"] * len(WRONG)
