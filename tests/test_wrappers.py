"""Models as users hold them: split over devices, quantised, adapted, compiled."""

from copy import copy

import numpy as np
import pytest
import torch
from tiny_models import tiny_llava
from transformers import BitsAndBytesConfig

import cmllm_tools as cm

METHOD = cm.ControlMLLMPlus(steps=3, step_size=0.05, layers=(), contrast=0.0)
BOX = cm.Box(5, 0, 25, 20)


def prepared(mllm):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    return mllm.prepare(pixels, "what is the red object ?")


def steered(mllm):
    prompt = prepared(mllm)
    trace = cm.optimize(mllm, prompt, BOX, METHOD)
    return [step.energy for step in trace.steps], mllm.generate(prompt, latent=trace.latent, max_new_tokens=3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    for part in tiny_llava(width=64):
        part.save_pretrained(folder)
    return folder


def test_layers_offloaded_to_disk_give_the_same_run(saved, tmp_path):
    """accelerate's hooks bring each layer's weights in for its forward, as they do over several devices."""
    away = ("embed_tokens", "layers.1", "layers.2")
    places = {"lm_head": "disk"} | {f"model.language_model.{name}": "disk" for name in away}
    rest = ("layers.0", "norm", "rotary_emb")
    places |= {f"model.language_model.{name}": "cpu" for name in rest}
    places |= {"model.vision_tower": "cpu", "model.multi_modal_projector": "cpu"}
    mllm = cm.load(saved, device_map=places, offload_folder=tmp_path)
    assert mllm.model.hf_device_map["lm_head"] == "disk"
    assert mllm.decoder.layers[2].self_attn.q_proj.weight.is_meta
    energies, answer = steered(mllm)
    expected, expected_answer = steered(cm.load(saved))
    assert energies == pytest.approx(expected, rel=1e-5)
    assert answer == expected_answer
    assert mllm.decoder.layers[2].self_attn.q_proj.weight.is_meta


@pytest.mark.parametrize(
    "config",
    [
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
        BitsAndBytesConfig(load_in_8bit=True),
    ],
    ids=["4 bit", "8 bit"],
)
def test_the_gradient_reaches_the_latent_through_quantised_layers(saved, config):
    mllm = cm.load(saved, quantization_config=config, dtype=torch.float32)
    assert (
        "4bit" in type(mllm.decoder.layers[0].mlp.up_proj).__name__
        or "8bit" in type(mllm.decoder.layers[0].mlp.up_proj).__name__
    )
    prompt = prepared(mllm)
    latent = prompt.zero_latent()
    # The attention of layer 2 depends on the latent through the quantised layers before it.
    attention = cm.capture_attention(mllm, prompt, layers=[2], latent=latent)
    (gradient,) = torch.autograd.grad(cm.energy(cm.context_map(attention), BOX), latent)
    assert (gradient.norm(dim=1) > 0).all()
    energies, answer = steered(mllm)
    assert energies[-1] < energies[0]
    assert isinstance(answer, str)
    # Once more, after an answer.
    assert steered(mllm)[0] == pytest.approx(energies, rel=1e-3)


def packed(module):
    return getattr(module.weight.quant_state, "packing_format_for_cpu", False)


@pytest.fixture(params=[False, True], ids=["plain scales", "nested scales"])
def packing(saved, monkeypatch, request):
    """A 4-bit model as on a CPU with AVX512-BF16, where bitsandbytes packs weights for a kernel that has no backward."""
    from bitsandbytes import functional
    from bitsandbytes.nn import Linear4bit

    def kernel(inputs, weight, out=None, state=None):
        whole = copy(state)
        plain, whole = functional._convert_weight_packed_for_cpu_inverse(weight.data, whole)
        whole.nested, whole.absmax = False, state.absmax.T.flatten().float()
        with torch.no_grad():
            return inputs @ functional.dequantize_4bit(plain, whole).to(inputs.dtype).T

    monkeypatch.setattr(functional, "gemv_4bit", kernel)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_use_double_quant=request.param,
    )
    mllm = cm.load(saved, quantization_config=config, dtype=torch.float32)
    layers = [module for module in mllm.model.modules() if isinstance(module, Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True
    return mllm, layers


def test_optimising_after_an_answer_where_4_bit_layers_are_packed_for_inference(packing):
    mllm, layers = packing
    energies, answer = steered(mllm)
    assert energies[-1] < energies[0]
    assert not any(packed(layer) for layer in layers)
    assert all(layer.support_avx512bf16_for_cpu for layer in layers)
    assert steered(mllm) == (energies, answer)
    # The user's own call packs them: they are stepped through as they are, and stay packed.
    prompt = prepared(mllm)
    with torch.no_grad():
        mllm.model(**prompt.inputs)
    before = [
        (layer.weight.data, layer.weight.quant_state, layer.weight.quant_state.absmax) for layer in layers if packed(layer)
    ]
    assert before
    again, _ = steered(mllm)
    assert again == pytest.approx(energies, rel=1e-2)
    mllm.gradient_checkpointing = True
    assert steered(mllm)[0] == pytest.approx(again, rel=1e-5)
    after = [
        (layer.weight.data, layer.weight.quant_state, layer.weight.quant_state.absmax) for layer in layers if packed(layer)
    ]
    for (data, state, scales), (now, state_now, scales_now) in zip(before, after, strict=True):
        assert data.data_ptr() == now.data_ptr()
        assert state is state_now
        assert scales is scales_now


def test_an_adapted_model_is_steered_with_its_adapters():
    from peft import LoraConfig, get_peft_model

    model, processor = tiny_llava()
    plain, _ = steered(cm.load((model, processor)))
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], r=4, init_lora_weights=False))
    mllm = cm.load((adapted, processor))
    energies, _ = steered(mllm)
    assert energies[0] != pytest.approx(plain[0], rel=1e-3)
    assert energies[-1] < energies[0]
    with adapted.disable_adapter():
        assert steered(mllm)[0] == pytest.approx(plain, rel=1e-5)
    assert any(parameter.requires_grad for parameter in adapted.parameters())


def test_an_adapter_that_adds_prompt_tokens_is_refused():
    from peft import PromptTuningConfig, get_peft_model

    model, processor = tiny_llava()
    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, num_layers=3, token_dim=32, num_attention_heads=4
    )
    with pytest.raises(cm.UnsupportedModelError, match="adds tokens to the prompt"):
        cm.load((get_peft_model(model, config), processor))


def test_a_compiled_model_runs_as_the_one_it_was_made_of():
    model, processor = tiny_llava()
    assert cm.load((torch.compile(model), processor)).model is model


def test_a_model_compiled_in_place_is_refused():
    model, processor = tiny_llava()
    model.model.language_model.layers[0].compile()
    with pytest.raises(cm.UnsupportedModelError, match=r"compiled in place.*model\.language_model\.layers\.0"):
        cm.load((model, processor))
