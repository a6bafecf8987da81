"""One interface for every way of referring: the answer belongs to the outcome, and a method is one file."""

import importlib.util
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.bench.heldout import DESCRIPTIONS, HELDOUT
from cmllm_tools.cli import main
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.inputs.overlays import draw_overlay
from cmllm_tools.referring.method import Request
from cmllm_tools.referring.registry import METHODS
from cmllm_tools.referring.target import Target
from cmllm_tools.widgets import Workbench

CONTRAST = cm.ControlMLLMPlus(contrast=2, contrast_cut=0.01, steps=3)
WAYS = {
    "steps": CONTRAST,
    "drawn": cm.methods.Drawn("ellipse", color="lime", seed=3),
    "attention": cm.methods.AttentionEdit(1.5, layers=(0, 4), heads=(0, 2)),
    "words": cm.methods.Words("pixel"),
}


@pytest.fixture(scope="module")
def outcomes(mllm, scene):
    return {name: cm.refer(mllm, scene.image, scene.question, scene.region("box"), way) for name, way in WAYS.items()}


def again(mllm, outcome):
    return mllm.prepare(outcome.sent.image, outcome.sent.question)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "skip"), [(6, 0), pytest.param(40, 6, marks=pytest.mark.slow)])
def test_the_answer_belongs_to_the_outcome(mllm, count, skip):
    """With its contrast, which changes answers: in 6 of 40 scenes."""
    plainly = 0
    for example in read_roc(HELDOUT, DESCRIPTIONS)[skip : skip + count]:
        outcome = cm.refer(mllm, example.image, example.question, example.region("box"), CONTRAST)
        prompt = again(mllm, outcome)
        assert mllm.generate(prompt, outcome.intervention) == outcome.answer
        assert mllm.generate(prompt, outcome) == mllm.generate(prompt, outcome.trace) == outcome.answer
        plainly += mllm.generate(prompt, outcome.trace.latent) != outcome.answer
    assert count < 40 or plainly > 0


def test_refer_is_made_of_the_step_by_step_calls(mllm, scene, outcomes):
    prompt = mllm.prepare(scene.image, scene.question)
    trace = cm.optimize(mllm, prompt, scene.region("box"), CONTRAST)
    outcome = outcomes["steps"]
    assert torch.equal(outcome.trace.latent, trace.latent)
    assert outcome.answer == mllm.generate(prompt, trace)
    assert outcome.answer.ids == mllm.generate(prompt, trace).ids
    assert outcome.method == CONTRAST.resolve(mllm)


@pytest.mark.parametrize("name", WAYS)
def test_a_saved_outcome_is_reopened_and_answers_again(mllm, outcomes, tmp_path, name):
    outcome = outcomes[name]
    found = cm.Outcome.load(outcome.save(tmp_path / "outcome.safetensors"))
    assert (found.answer, found.answer.ids) == (outcome.answer, outcome.answer.ids)
    for field in ("method", "regions", "question", "seconds", "peak_memory", "provenance"):
        assert getattr(found, field) == getattr(outcome, field)
    for field in ("question", "text", "size", "image_hash"):
        assert getattr(found.sent, field) == getattr(outcome.sent, field)
    # The scene is smaller than the copy that a file keeps.
    assert np.array_equal(found.sent.image, outcome.sent.image)
    assert mllm.generate(again(mllm, found), found.intervention) == outcome.answer
    assert repr(found).startswith(f"Outcome({str(outcome.answer)!r}, model embedded, method ")
    assert "base64" in found._repr_html_()
    assert (found.trace is None) == (outcome.trace is None)


def test_what_is_no_outcome_is_refused(outcomes, tmp_path):
    path = outcomes["attention"].save(tmp_path / "outcome.safetensors")
    with pytest.raises(cm.TraceError, match="is another safetensors file"):
        cm.Trace.load(path)
    with pytest.raises(cm.DataError, match="is another safetensors file"):
        cm.Outcome.load(outcomes["steps"].trace.save(tmp_path / "run.safetensors"))
    with pytest.raises(cm.DataError, match="There is no outcome"):
        cm.Outcome.load(tmp_path / "nothing")
    data = bytearray(path.read_bytes())
    for place in range(20, len(data), len(data) // 40):
        flipped = data.copy()
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(cm.DataError):
            cm.Outcome.load(path)


def test_a_drawn_overlay_is_what_is_sent(mllm, scene, outcomes):
    mask = scene.region("box").cover(*scene.image.size) > 0.5
    rng = np.random.default_rng(3)
    drawn = draw_overlay(scene.image, mask, "ellipse", rng, color="lime", alpha=255)
    outcome = outcomes["drawn"]
    assert np.array_equal(outcome.sent.image, drawn)
    assert outcome.answer == mllm.generate(mllm.prepare(drawn, scene.question))
    assert outcome.intervention is None
    for region in (cm.Point(100, 100), cm.Scribble([(20, 30), (60, 90)]), cm.Mask(mask)):
        request = Request(scene.image, "what {place} ?", (region,))
        drawn = cm.methods.Drawn("mask", color="blue").sent(request, mllm)
        changed = (np.asarray(drawn.image) != np.asarray(scene.image)).any(-1)
        assert changed.any() and changed.mean() < 0.2
        assert drawn.question == "what with the blue mask ?"


def test_an_attention_edit_is_the_softmax_written_out(mllm, prompt, box):
    """In the first layer, whose inputs it does not change: a biased head's weights are those times exp(bias)."""
    weights = Target.of(prompt.layout, (box,)).weights()
    edit = cm.methods.AttentionEdit(2.0, heads=(1,)).resolve(mllm).intervention(mllm, prompt, (box,))
    before = cm.capture_attention(mllm, prompt, layers=[0]).values[0]
    after = cm.capture_attention(mllm, prompt, layers=[0], latent=edit).values[0]
    raised = before * torch.exp(2.0 * weights)
    expected = raised / (1 - before.sum(-1, keepdim=True) + raised.sum(-1, keepdim=True))
    assert torch.allclose(after[1], expected[1], atol=1e-6)
    others = [head for head in range(mllm.heads) if head != 1]
    assert torch.equal(after[others], before[others])


def test_an_edited_answer_is_that_of_edited_logits(mllm, scene):
    """Token by token without a cache, each with the edit open."""
    prompt, box = mllm.prepare(scene.image, "Describe the object."), scene.region("box")
    edit = cm.methods.AttentionEdit(2.0).resolve(mllm).intervention(mllm, prompt, (box,))
    answer = mllm.generate(prompt, edit)
    assert answer != mllm.generate(prompt)
    ids = prompt.inputs["input_ids"]
    for token in answer.ids:
        inputs = prompt.inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad(), edit.opened(mllm, prompt):
            logits = mllm.model(**inputs, use_cache=False).logits[0, -1]
        assert int(logits.argmax()) == token
        ids = torch.cat([ids, torch.tensor([[token]])], 1)


def test_a_bias_of_nothing_changes_nothing(mllm, prompt, box):
    edit = cm.methods.AttentionEdit(0.0).resolve(mllm).intervention(mllm, prompt, (box,))
    assert mllm.generate(prompt, edit) == mllm.generate(prompt)
    assert mllm.generate(prompt, edit, contrast=2.0) == mllm.generate(prompt)


def test_a_contrast_with_an_edit_is_one_against_the_unedited(mllm, prompt, box):
    """The first token, from the two branches' logits written out."""
    edit = cm.methods.AttentionEdit(3.0).resolve(mllm).intervention(mllm, prompt, (box,))
    contrast = cm.Contrast(4.0, 1e-4)
    with torch.no_grad():
        plain = mllm.model(**prompt.inputs, use_cache=False).logits[0, -1]
        with edit.opened(mllm, prompt):
            edited = mllm.model(**prompt.inputs, use_cache=False).logits[0, -1]
    assert mllm.generate(prompt, edit, contrast, max_new_tokens=1).ids == (int(contrast.combine(edited, plain).argmax()),)


def test_what_cannot_be_done_is_refused(mllm, prompt, scene, box):
    with pytest.raises(cm.SettingsError, match="Callbacks are told of steps, and coordinates takes none"):
        cm.refer(mllm, scene.image, "what ?", box, WAYS["words"], callbacks=[cm.ProgressBar()])
    with pytest.raises(cm.SettingsError, match="A method that takes steps is needed, as ControlMLLM\\(\\); drawn overlay"):
        cm.optimize(mllm, prompt, box, WAYS["drawn"])
    with pytest.raises(cm.SettingsError, match=r"heads must be numbers in 0\.\."):
        cm.methods.AttentionEdit(heads=(99,)).resolve(mllm)
    with pytest.raises(cm.SettingsError, match="layers must be a window"):
        cm.methods.AttentionEdit(layers=(4, 99)).resolve(mllm)
    with pytest.raises(cm.CaptureError, match="one finite number for each of the prompt's 64 visual tokens"):
        mllm.generate(prompt, cm.AttentionBias(torch.zeros(3)))
    with pytest.raises(cm.SettingsError, match="with one intervention or latent; got both"):
        mllm.generate(prompt, cm.AttentionBias(torch.zeros(64)), latent=prompt.zero_latent())
    with pytest.raises(cm.RegionError):
        cm.refer(mllm, scene.image, "what ?", cm.Box(500, 500, 600, 600), WAYS["words"])


METHOD = '''
from dataclasses import dataclass

import torch

import cmllm_tools as cm
from cmllm_tools import methods
from cmllm_tools.methods import kinds, register, setting


@register
@dataclass(frozen=True)
class Nudge(methods.Method):
    """A constant added to the visual tokens inside the region's box."""

    amount: float = setting(0.25, "what is added", kinds.real(least=0, most=2), asked=True)
    aside: str = setting("nothing", "a remark", kinds.text())

    def intervention(self, mllm, prompt, regions):
        latent = torch.zeros_like(prompt.zero_latent())
        return cm.LatentAdded(latent + self.amount)
'''


@pytest.fixture
def nudge(tmp_path, monkeypatch):
    (tmp_path / "nudging.py").write_text(textwrap.dedent(METHOD))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("nudging").Nudge
    METHODS.pop("Nudge", None)
    sys.modules.pop("nudging", None)


def test_a_new_method_is_one_file(mllm, scene, picture_file, nudge, tmp_path, capsys):
    box = scene.region("box")
    outcome = cm.refer(mllm, scene.image, scene.question, box, nudge(amount=1.5))
    prompt = mllm.prepare(scene.image, scene.question)
    assert outcome.answer == mllm.generate(prompt, prompt.zero_latent().detach() + 1.5)
    # The command line's help, and a run by it.
    with pytest.raises(SystemExit):
        main(["steer", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "nudge" in printed and "--amount REAL what is added; a number at least 0 and at most 2 (of nudge)" in printed
    corners = [str(corner) for corner in (box.x0, box.y0, box.x1, box.y1)]
    saved = tmp_path / "cli.safetensors"
    told = ["--method", "nudge", "--amount", "1.5", "--out", str(saved)]
    assert main(["steer", str(picture_file), scene.question, "--box", *corners, *told]) == 0
    assert f"after {outcome.answer}" in " ".join(capsys.readouterr().out.split())
    assert cm.Outcome.load(saved).answer == outcome.answer
    assert main(["steer", str(picture_file), scene.question, "--box", *corners, *told[:2], "--amount", "3"]) == 2
    assert "amount must be a finite number in 0..2; got 3" in capsys.readouterr().err
    assert main(["steer", str(picture_file), scene.question, "--box", *corners, *told[:2], "--steps", "3"]) == 2
    assert "nudge has no --steps; its settings are amount, aside" in capsys.readouterr().err
    # The workbench.
    bench = Workbench(mllm, picture_file, scene.question, box)
    assert ("Nudge", nudge) in bench.settings.kind.options
    bench.settings.kind.value = nudge
    assert list(bench.settings.fields) == ["amount"]
    bench.settings.amount.value = 1.5
    assert bench.method == nudge(amount=1.5)
    found = bench.run()
    assert found.answer == outcome.answer
    assert bench.answers == (mllm.generate(prompt), outcome.answer)
    assert "from nudging import Nudge" in bench.code()
    bench.settings.kind.value = cm.ControlMLLMPlus
    assert "steps" in bench.settings.fields
    bench.close()
    # A saved and reopened outcome.
    path = outcome.save(tmp_path / "outcome.safetensors")
    assert cm.Outcome.load(path).method == nudge(amount=1.5)
    METHODS.pop("Nudge")
    with pytest.raises(cm.DataError, match="A method must be one of"):
        cm.Outcome.load(path)


def test_copied_code_of_a_method_without_steps_runs(mllm, picture_file, scene):
    bench = Workbench(mllm, picture_file, scene.question, scene.region("box"), WAYS["attention"])
    found = {}
    exec(compile(bench.code(), "copied", "exec"), found)  # noqa: S102
    assert found["outcome"].answer == bench.run().answer
    assert found["outcome"].method == bench.method
    bench.close()


def test_the_page_of_methods_is_what_they_declare():
    page = Path(__file__).parents[1] / "docs/methods.md"
    spec = importlib.util.spec_from_file_location("methods_page", page.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert page.read_text(encoding="utf-8") == module.page(), "run make methods"
    for method in METHODS.values():
        assert all(each.meaning and each.kind.range for each in method.settings())


@pytest.mark.parametrize("method", [cm.ControlMLLM(steps=3, heads=((1, 2),)), *WAYS.values()])
def test_settings_are_written_and_read_again_as_text(method):
    """As the command line and the fields of panels do."""
    for each in method.settings():
        value = getattr(method, each.name)
        if value is not None:
            assert each.kind.parsed(each.kind.write(value), each.name) == value
