import pytest
import torch
from conftest import assert_same, snapshot
from tests_support import noise
from tiny_models import tiny_llava
from transformers import AttentionInterface

import cmllm_tools as cm
from cmllm_tools.analysis import gradient_profile, relevancy, rollout, sinks
from cmllm_tools.attention.rows import attention_rows


def eager_attention(mllm, prompt, latent=None):
    """(layer, head, query, key) by transformers itself, on a model set to eager."""
    embeds = prompt.call.states.clone()
    if latent is not None:
        embeds = embeds.index_add(1, torch.tensor(prompt.visual), latent[None])
    model = mllm.model
    model.set_attn_implementation("eager")
    try:
        out = mllm.decoder(inputs_embeds=embeds, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation("sdpa")
    return torch.stack(out.attentions)[:, 0]


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


@pytest.mark.parametrize("heads", [None, [0, 3], [2]])
@pytest.mark.parametrize("layers", [None, [1], range(0, 2)])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_equals_eager_attention(tiny, layers, heads, implementation):
    mllm, prompt = tiny
    expected = eager_attention(mllm, prompt)
    mllm.model.set_attn_implementation(implementation)
    try:
        prompt = mllm.prepare(prompt.image, prompt.question)
        attention = cm.capture_attention(mllm, prompt, layers=layers, heads=heads, queries="after_image")
    finally:
        mllm.model.set_attn_implementation("sdpa")
    expected = expected[list(attention.layers)][:, list(attention.heads)]
    expected = expected[:, :, list(attention.queries)][..., list(prompt.visual)]
    assert attention.values.shape == expected.shape
    assert (attention.values - expected).abs().max() < 1e-5
    assert not attention.values.requires_grad


def test_equals_eager_attention_under_padding(tiny):
    mllm, prompt = tiny
    padded = mllm.prepare(prompt.image, prompt.question, padding="max_length", max_length=40, padding_side="left")
    assert len(padded.tokens) == 40
    assert [padded.tokens[i] for i in padded.text_span] == [prompt.tokens[i] for i in prompt.text_span]
    attention = cm.capture_attention(mllm, padded)
    model = mllm.model
    model.set_attn_implementation("eager")
    try:
        out = model(**padded.inputs, output_attentions=True)
    finally:
        model.set_attn_implementation("sdpa")
    expected = torch.stack(out.attentions)[:, 0][:, :, list(padded.text_span)][..., list(padded.visual)]
    assert (attention.values - expected).abs().max() < 1e-5
    with pytest.raises(cm.PromptError, match="padded on the left"):
        mllm.prepare(prompt.image, prompt.question, padding="max_length", max_length=40, padding_side="right")


def test_equals_eager_attention_in_bfloat16():
    model, processor = tiny_llava()
    mllm = cm.load((model.to(torch.bfloat16), processor))
    prompt = mllm.prepare(noise((50, 40)), "what is this ?")
    attention = cm.capture_attention(mllm, prompt)
    expected = eager_attention(mllm, prompt)[:, :, list(attention.queries)][..., list(prompt.visual)].float()
    assert attention.values.dtype == torch.float32
    assert (attention.values - expected).abs().max() < 2e-2


def test_gradient_equals_that_through_eager_attention(tiny):
    mllm, prompt = tiny
    torch.manual_seed(0)
    start = 0.1 * torch.randn_like(prompt.zero_latent())
    region = cm.Box(12, 5, 30, 30)
    ours = start.clone().requires_grad_()
    attention = cm.capture_attention(mllm, prompt, latent=ours)
    (ours_gradient,) = torch.autograd.grad(cm.energy(cm.context_map(attention), region), ours)
    theirs = start.clone().requires_grad_()
    kept = eager_attention(mllm, prompt, theirs)[:, :, list(prompt.text_span)][..., list(prompt.visual)]
    values = kept.mean((0, 1, 2))
    inside = torch.from_numpy(prompt.layout.inside(region))
    energy = (1 - (values * inside).sum() / values.sum()) ** 2
    (gradient,) = torch.autograd.grad(energy, theirs)
    assert (ours_gradient - gradient).norm() / gradient.norm() < 1e-4


def test_gradient_equals_finite_differences_in_float64():
    model, processor = tiny_llava(layers=2)
    mllm = cm.load((model.double(), processor))
    prompt = mllm.prepare(noise((50, 40)), "what is this ?")
    region = cm.Box(12, 5, 30, 30)
    torch.manual_seed(0)
    start = 0.1 * torch.randn(len(prompt.visual), 32, dtype=torch.float64)
    inside = torch.from_numpy(prompt.layout.inside(region)).double()

    def energy(latent):
        attention = cm.capture_attention(mllm, prompt, latent=latent)
        return cm.hard_energy(attention.values.double().mean((0, 1, 2)), inside)

    latent = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(latent), latent)
    direction = torch.randn_like(start)
    # Rows are kept in float32, which bounds what a difference of energies can show.
    step = 1e-2
    with torch.no_grad():
        numeric = (energy(start + step * direction) - energy(start - step * direction)) / (2 * step)
    assert numeric.item() == pytest.approx((gradient * direction).sum().item(), rel=2e-3)


def test_rows_sum_to_one_with_and_without_sinks_and_softcap():
    torch.manual_seed(0)
    query, key = torch.randn(3, 4, 6, 8), torch.randn(3, 2, 6, 8)
    module = torch.nn.Module()
    module.is_causal = True
    rows = attention_rows(module, query, key, None, range(4), [2, 5])
    assert rows.shape == (3, 4, 2, 6)
    assert torch.allclose(rows.sum(-1), torch.ones(3, 4, 2))
    assert (rows[:, :, 0, 3:] == 0).all()
    capped = attention_rows(module, query, key, None, [1, 2], [2, 5], softcap=5.0)
    full = torch.einsum("bhqd,bhkd->bhqk", query, key.repeat_interleave(2, 1)) * 8**-0.5
    causal = torch.ones(6, 6).tril().bool()
    expected = (5 * torch.tanh(full / 5)).masked_fill(~causal, -torch.inf).softmax(-1)
    assert torch.allclose(capped, expected[:, [1, 2]][:, :, [2, 5]], atol=1e-6)
    sinks = torch.tensor([0.3, -1.0, 2.0, 0.0])
    with_sinks = attention_rows(module, query, key, None, range(4), [5], s_aux=sinks)
    logits = torch.cat([full[:, :, 5], sinks.expand(3, 4)[..., None]], -1).softmax(-1)
    assert torch.allclose(with_sinks[:, :, 0], logits[..., :-1], atol=1e-6)


def test_attention_that_cannot_be_reproduced_is_refused():
    module = torch.nn.Module()
    module.is_causal = True
    query = torch.randn(1, 2, 4, 8)
    with pytest.raises(cm.CaptureError, match="position bias, which cannot be reproduced"):
        attention_rows(module, query, query, None, [0], [1], position_bias=torch.zeros(1, 2, 4, 4))
    with pytest.raises(cm.CaptureError, match="draws its attention with a mask that is a dict"):
        attention_rows(module, query, query, {}, [0], [1])


def test_forward_stops_after_the_last_layer_needed(tiny):
    mllm, prompt = tiny
    ran = []
    handles = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(mllm.decoder.layers)
    ]
    try:
        cm.capture_attention(mllm, prompt, layers=[1])
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [0]


def test_only_what_is_asked_for_is_kept(tiny):
    mllm, prompt = tiny
    attention = cm.capture_attention(mllm, prompt, layers=[2, 0, 2], heads=[3, 1], queries="last")
    assert (attention.layers, attention.heads, attention.queries) == ((0, 2), (1, 3), prompt.positions("last"))
    assert attention.values.shape == (2, 2, 1, 16)
    assert "layers 0, 2 (2), heads 1, 3, queries ':'" in repr(attention)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [3]}, r"Layers must be at least one number in 0\.\.2; got \[3\]"),
        ({"layers": []}, "Layers must be at least one"),
        ({"layers": [-1]}, "Layers must be"),
        ({"heads": [0, 4]}, r"Heads must be at least one number in 0\.\.3; got \[0, 4\]"),
    ],
)
def test_layers_and_heads_out_of_range(tiny, options, message):
    with pytest.raises(cm.CaptureError, match=message):
        cm.capture_attention(*tiny, **options)


def test_model_is_left_as_found_after_success_error_and_interrupt(tiny):
    mllm, prompt = tiny
    mllm.model.train()
    mllm.model.lm_head.weight.requires_grad_(False)
    before = snapshot(mllm)
    cm.capture_attention(mllm, prompt, latent=prompt.zero_latent())
    assert_same(dict(before), snapshot(mllm))
    for error in (RuntimeError, KeyboardInterrupt):
        # A layer that fails half way; its own hook is removed before the comparison.
        def fail(*_, error=error):
            raise error("half way")

        handle = mllm.decoder.layers[1].register_forward_hook(fail)
        with pytest.raises(error):
            cm.capture_attention(mllm, prompt, latent=prompt.zero_latent())
        handle.remove()
        assert_same(dict(before), snapshot(mllm))
    mllm.model.eval().requires_grad_(True)


def test_unknown_attention_implementation_is_refused(tiny):
    mllm, prompt = tiny
    config = mllm.decoder.config
    config._attn_implementation = "made_up"
    try:
        with pytest.raises(cm.CaptureError, match="got 'made_up'"):
            cm.capture_attention(mllm, mllm.prepare(prompt.image, prompt.question))
        assert config._attn_implementation == "made_up"
    finally:
        config._attn_implementation = "sdpa"


def test_users_own_attention_function_is_observed(tiny):
    """Any function registered with transformers computes the output; capture delegates to it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    calls = []

    def own(module, *args, **kwargs):
        calls.append(module.layer_idx)
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register("users_own", own)
    AttentionMaskInterface.register("users_own", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    mllm, prompt = tiny
    expected = cm.capture_attention(mllm, prompt).values
    mllm.decoder.config._attn_implementation = "users_own"
    try:
        values = cm.capture_attention(mllm, mllm.prepare(prompt.image, prompt.question)).values
    finally:
        mllm.decoder.config._attn_implementation = "sdpa"
    assert torch.equal(values, expected)
    assert calls == [0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_those_of_the_kernel(dtype):
    """Large common offsets of queries and keys, as biases make them: products summed in half precision would be far off."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 12, 64, generator=generator) for _ in range(2))
    query, key = (query + 6).to(dtype), (key + 6).to(dtype)
    module = torch.nn.Module()
    module.is_causal = False
    rows = attention_rows(module, query, key, None, [0, 1], [3, 7])
    exact = (query.double() @ key.double().transpose(-1, -2) * 64**-0.5).softmax(-1)[0][:, [3, 7]]
    assert (rows - exact).abs().max() < 1e-4


def test_a_mask_of_another_form_is_refused(tiny):
    mllm, _ = tiny
    module = next(iter(mllm.attention_modules))
    query = torch.zeros(1, 4, 5, 8)
    with pytest.raises(cm.CaptureError, match=r"a mask that is a Tensor of shape \(1, 5\)"):
        attention_rows(module, query, query, torch.ones(1, 5), [0], [0])


@pytest.fixture
def overflowing():
    """A model in float16 whose second layer makes values above 65504."""
    model, processor = tiny_llava()
    with torch.no_grad():
        model.model.language_model.layers[1].mlp.down_proj.weight.fill_(3e4)
        model.model.language_model.layers[1].mlp.up_proj.weight.fill_(3e3)
    mllm = cm.load((model.half(), processor))
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


NOT_FINITE = r"Attention must be finite; in layer 2 it is not \(dtype torch\.float16\)\..*bfloat16 or float32"


@pytest.mark.parametrize(
    "use",
    {
        "capture": cm.capture_attention,
        "optimize": lambda mllm, prompt: cm.optimize(mllm, prompt, cm.Box(12, 5, 30, 30)),
        "gradient_profile": lambda mllm, prompt: gradient_profile(mllm, prompt, cm.Box(12, 5, 30, 30)),
        "sinks": lambda mllm, prompt: sinks(mllm, prompt.image, [prompt.question]),
        "rollout": rollout,
        "relevancy": lambda mllm, prompt: relevancy(mllm, prompt, "red"),
        "self_check": lambda mllm, prompt: cm.self_check(mllm),
    }.values(),
    ids=lambda use: getattr(use, "__name__", ""),
)
def test_overflow_is_named_where_attention_is_made(overflowing, use):
    with pytest.raises(cm.CmllmError, match=NOT_FINITE):
        use(*overflowing)


def test_layers_before_an_overflow_can_be_captured(overflowing):
    assert cm.capture_attention(*overflowing, layers=[0, 1]).values.isfinite().all()


def test_a_row_that_sees_nothing_is_zeros_and_passes_no_gradient():
    module = torch.nn.Module()
    module.is_causal = False
    query, key = torch.randn(1, 2, 4, 8, requires_grad=True), torch.randn(1, 2, 4, 8)
    seen = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    seen[..., 0, :] = False
    added = torch.zeros(1, 1, 4, 4).masked_fill(~seen, -torch.inf)
    for mask in (seen, added):
        rows = attention_rows(module, query, key, mask, range(2), [0, 3])
        assert (rows[:, :, 0] == 0).all()
        torch.testing.assert_close(rows[:, :, 1].sum(-1), torch.ones(1, 2))
        (gradient,) = torch.autograd.grad(rows.square().sum(), query)
        assert gradient.isfinite().all()
        assert (gradient[:, :, 0] == 0).all()


def test_values_that_are_not_finite_are_no_row_that_sees_nothing():
    module = torch.nn.Module()
    module.is_causal = False
    query = torch.full((1, 1, 3, 4), torch.inf)
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    assert attention_rows(module, query, torch.randn(1, 1, 3, 4), mask, [0], [0, 1]).isnan().all()
