from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools import loading
from cmllm_tools.models.families import FAMILIES
from training.embedded.architecture import build_processor


def test_a_sound_model_passes_and_is_told_with_what_figures():
    mllm = cm.load(tiny_llava())
    found = cm.self_check(mllm)
    assert found.layers == len(mllm.attention_layers)
    assert 0 <= found.off < 1e-4
    assert 0 < found.attention <= 1
    assert found.logits > 0
    assert f"passed by {mllm.name} (llava)" in repr(found)
    assert f"in {found.layers} layers" in found._repr_html_()


def test_a_layer_that_does_not_call_the_interface_is_named():
    model, processor = tiny_llava()
    attention = model.model.language_model.layers[1].self_attn
    attention.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(cm.UnsupportedModelError, match=r"fails the self-check: .*layers 1 of LlamaModel did not"):
        cm.self_check(cm.load((model, processor)))


def test_logits_that_a_latent_does_not_move_are_reported():
    model, processor = tiny_llava()
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
    with pytest.raises(cm.UnsupportedModelError, match="must change the logits"):
        cm.self_check(cm.load((model, processor)))


def test_attention_that_a_latent_does_not_move_is_reported():
    model, processor = tiny_llava()
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.k_proj.weight.zero_()
    with pytest.raises(cm.UnsupportedModelError, match="must change the attention"):
        cm.self_check(cm.load((model, processor)))


@pytest.mark.parametrize(
    ("tested", "check", "runs"), [(True, None, 0), (False, None, 1), (True, True, 1), (False, False, 0)]
)
def test_it_runs_at_load_for_families_that_the_tests_do_not_cover(monkeypatch, tested, check, runs):
    monkeypatch.setitem(FAMILIES, "llava", replace(FAMILIES["llava"], tested=tested))
    seen = []
    monkeypatch.setattr(loading, "self_check", seen.append)
    mllm = cm.load(tiny_llava(), check=check)
    assert seen == [mllm] * runs


def test_a_processor_of_another_model_fails_it():
    model, _ = tiny_llava()
    with pytest.raises(cm.UnsupportedModelError, match=r"fails the self-check: .*must have 16 visual tokens"):
        cm.load((model, build_processor(32, 16)), check=True)


def test_rows_that_are_not_what_the_kernel_drew_are_reported(monkeypatch):
    from cmllm_tools.attention import observe

    rows = observe.attention_rows

    def without_mask(module, query, key, mask, *arguments, **options):
        return rows(module, query, key, None, *arguments, **options | {"is_causal": False})

    monkeypatch.setattr(observe, "attention_rows", without_mask)
    with pytest.raises(cm.UnsupportedModelError, match="must give what the model's own kernel draws"):
        cm.self_check(cm.load(tiny_llava()))
