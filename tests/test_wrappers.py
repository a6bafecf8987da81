"""Models as users hold them: split over devices, quantised, adapted, compiled."""

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
