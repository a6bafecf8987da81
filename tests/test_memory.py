import gc

import pytest
import torch
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.attention.memory import MemoryEstimate, peak_bytes


@pytest.fixture(scope="module")
def deep():
    """A model with enough layers that most of them are reckoned, not measured."""
    mllm = cm.load(tiny_llava(layers=12, width=64, image=64, patch=4))
    return mllm, mllm.prepare(noise((90, 70)), "what is the red object ?")


def measured(mllm, prompt, layers, queries="text"):
    def step():
        latent = prompt.zero_latent()
        attention = cm.capture_attention(mllm, prompt, layers, queries=queries, latent=latent)
        energy = cm.energy(cm.context_map(attention), cm.Box(10, 10, 50, 50))
        return torch.autograd.grad(energy, latent)[0]

    return peak_bytes(step)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("layers", "queries"), [(None, "text"), (range(3, 9), "last"), ([11], "after_image"), ([0, 1], "text")]
)
def test_estimate_lies_within_a_quarter_of_what_a_step_takes(deep, layers, queries, checkpointing):
    mllm, prompt = deep
    estimate = cm.estimate_memory(mllm, prompt, layers, queries)
    mllm.gradient_checkpointing = checkpointing
    try:
        found = measured(mllm, prompt, layers, queries)
    finally:
        mllm.gradient_checkpointing = False
    assert (estimate.checkpointed if checkpointing else estimate.step) == pytest.approx(found, rel=0.25)
    assert not mllm.gradient_checkpointing


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_from_before_is_not_found_while_a_step_is_measured(collecting, capfd):
    kept = []

    def step():
        kept.append(torch.zeros(2**18))
        # Enough for Python to look for garbage by itself.
        kept.extend([[number] for number in range(300_000)])
        kept.append(torch.zeros(2**18))

    before, threshold = gc.isenabled(), gc.get_threshold()
    gc.set_threshold(100_000)
    (gc.enable if collecting else gc.disable)()
    try:
        garbage = [torch.zeros(2**20)]
        garbage.append(garbage)
        del garbage
        assert peak_bytes(step) == 2 * 4 * 2**18
        assert gc.isenabled() == collecting
        # torch would warn of a block that it has not seen come.
        assert capfd.readouterr().err == ""
    finally:
        gc.set_threshold(*threshold)
        (gc.enable if before else gc.disable)()


def test_estimate_says_what_to_do():
    assert "fits" in repr(MemoryEstimate(10, 5, 20, False))
    assert "set mllm.gradient_checkpointing = True" in repr(MemoryEstimate(10, 5, 7, False))
    assert "fewer layers" in repr(MemoryEstimate(10, 5, 2, False))
    assert MemoryEstimate(10, 5, 7, True).fits
    assert "1.5 kB" in repr(MemoryEstimate(1500, 5, 7, True))


def test_estimate_refuses_layers_that_do_not_exist(deep):
    with pytest.raises(cm.CaptureError, match=r"must be among \[0, 1"):
        cm.estimate_memory(*deep, layers=[12])


def test_checkpointing_takes_less_and_gives_the_same_gradient(deep):
    mllm, prompt = deep
    latent = prompt.zero_latent()

    def gradient():
        attention = cm.capture_attention(mllm, prompt, latent=latent, layers=range(2, 11), heads=[0, 2])
        return torch.autograd.grad(cm.energy(cm.context_map(attention), cm.Box(10, 10, 50, 50)), latent)[0]

    expected, plain = gradient(), peak_bytes(gradient)
    forwards = [vars(layer).get("forward") for layer in mllm.decoder.layers]
    mllm.gradient_checkpointing = True
    try:
        torch.testing.assert_close(gradient(), expected, rtol=1e-6, atol=1e-9)
        assert peak_bytes(gradient) < 0.6 * plain
    finally:
        mllm.gradient_checkpointing = False
    assert [vars(layer).get("forward") for layer in mllm.decoder.layers] == forwards
    assert mllm.decoder.config._attn_implementation == "sdpa"
