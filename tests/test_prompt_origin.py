"""A prompt belongs to the model that prepared it, as it was then."""

import copy
import warnings

import pytest
import torch
import torch.nn.utils.prune
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.analysis import grad_cam, relevancy, token_activation
from cmllm_tools.models.origin import weights_mark
from cmllm_tools.models.scoring import AnswerScore

QUESTION = "what is the red object ?"
REGION = cm.Box(12, 5, 30, 30)


def prepared(mllm):
    return mllm.prepare(noise((50, 40)), QUESTION)


@pytest.fixture
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, prepared(mllm)


USES = {
    "capture": cm.capture_attention,
    "generate": lambda mllm, prompt: mllm.generate(prompt, max_new_tokens=1),
    "generate with a latent": lambda mllm, prompt: mllm.generate(prompt, prompt.zero_latent(), max_new_tokens=1),
    "optimize": lambda mllm, prompt: cm.optimize(mllm, prompt, REGION),
    "steering": lambda mllm, prompt: cm.Steering(mllm, prompt, REGION),
    "estimate_memory": lambda mllm, prompt: cm.estimate_memory(mllm, prompt, [0]),
    "score": lambda mllm, prompt: AnswerScore(mllm, prompt, "red"),
    "relevancy": lambda mllm, prompt: relevancy(mllm, prompt, "red"),
    "token_activation": lambda mllm, prompt: token_activation(mllm, prompt, "red"),
    "grad_cam": lambda mllm, prompt: grad_cam(mllm, prompt, "red"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_prompt_of_another_model_is_refused(tiny, use):
    other = cm.load(tiny_llava())
    with pytest.raises(cm.PromptError, match=r"model that prepared it; .* is another one\. Prepare it again"):
        use(other, tiny[1])
    use(*tiny)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_prompt_of_another_dtype_is_refused(tiny, use):
    mllm, prompt = tiny
    mllm.model.to(torch.bfloat16)
    with pytest.raises(cm.PromptError, match=r"dtype .* prepared, torch\.float32; .* now has torch\.bfloat16\. Prepare it"):
        use(mllm, prompt)
    use(mllm, prepared(mllm))


@pytest.mark.parametrize("part", ["model.vision_tower", "model.language_model", "lm_head"])
def test_a_prompt_of_a_model_that_was_cast_in_part_is_refused(tiny, part):
    mllm, prompt = tiny
    mllm.model.get_submodule(part).half()
    with pytest.raises(cm.PromptError, match=r"prepared, torch\.float32; the model now has .*torch\.float16"):
        mllm.generate(prompt)


def test_a_copy_of_a_prompt_is_one_of_the_same_model(mllm, prompt, box):
    latent = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=3)).latent
    copied = copy.deepcopy(prompt)
    assert copied.call.states is not prompt.call.states
    assert copied.call.module is mllm.decoder
    assert torch.equal(
        cm.capture_attention(mllm, copied, latent=latent).values, cm.capture_attention(mllm, prompt, latent=latent).values
    )


def test_a_language_model_that_was_replaced_is_not_left_unsteered(tiny):
    mllm, prompt = tiny
    mllm.model.model.language_model = copy.deepcopy(mllm.model.model.language_model)
    with (
        pytest.warns(cm.WeightsWarning),
        pytest.raises(cm.PromptError, match=r"'model\.language_model' of .* has been replaced since\. Prepare it again"),
    ):
        mllm.generate(prompt, prompt.zero_latent() + 1, max_new_tokens=1)
    fresh = prepared(mllm)
    mllm.generate(fresh, fresh.zero_latent(), max_new_tokens=1)


def test_a_prompt_of_another_implementation_is_refused_where_its_masks_are_used(tiny):
    mllm, prompt = tiny
    score = AnswerScore(mllm, prompt, "red")
    answer = mllm.generate(prompt, max_new_tokens=3)
    mllm.model.set_attn_implementation("eager")
    for use in (lambda: cm.capture_attention(mllm, prompt), lambda: score(prompt.zero_latent()[None])):
        with pytest.raises(cm.CaptureError, match=r"'sdpa'; the model now has 'eager'\. Prepare the prompt again"):
            use()
    assert mllm.generate(prompt, max_new_tokens=3) == answer


def changed_in_place(model):
    with torch.no_grad():
        model.lm_head.weight.add_(0.1)


def changed_through_data(model):
    for parameter in model.parameters():
        parameter.data.mul_(1.5)


def loaded(model):
    model.load_state_dict(
        {name: value * 2 for name, value in model.state_dict().items() if value.is_floating_point()}, False
    )


def assigned(model):
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 2)


def pruned(model):
    torch.nn.utils.prune.l1_unstructured(model.lm_head, "weight", amount=0.5)


@pytest.mark.parametrize("change", [changed_in_place, changed_through_data, loaded, assigned, pruned])
def test_weights_changed_since_are_noted_once(tiny, change):
    mllm, prompt = tiny
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cm.capture_attention(mllm, prompt)
        change(mllm.model)
    with pytest.warns(cm.WeightsWarning, match="have changed since this prompt was prepared") as caught:
        cm.capture_attention(mllm, prompt)
        mllm.generate(prompt, max_new_tokens=1)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cm.capture_attention(mllm, prepared(mllm))


def test_a_change_of_any_one_weight_through_data_is_in_the_mark(tiny):
    """Of sixteen weights only, spread over the model, some values were looked at."""
    mark = weights_mark(tiny[0].model)
    for name, weight in tiny[0].model.named_parameters():
        weight.data.add_(1)
        assert weights_mark(tiny[0].model) != mark, name
        mark = weights_mark(tiny[0].model)


@pytest.mark.slow
def test_adapters_switched_off_are_noted():
    from peft import LoraConfig, get_peft_model

    model, processor = tiny_llava()
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], r=4, init_lora_weights=False))
    mllm = cm.load((adapted, processor))
    prompt = prepared(mllm)
    with adapted.disable_adapter(), pytest.warns(cm.WeightsWarning, match="weights or adapters"):
        mllm.generate(prompt, max_new_tokens=1)
    # A prompt of the adapted model again.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cm.capture_attention(mllm, prepared(mllm))
    again = prepared(mllm)
    adapted.merge_adapter()
    with pytest.warns(cm.WeightsWarning):
        cm.capture_attention(mllm, again)


def test_what_this_package_does_changes_no_mark(tiny):
    mllm, prompt = tiny
    mark = weights_mark(mllm.model)
    cm.optimize(mllm, prompt, REGION, cm.ControlMLLM(steps=1))
    mllm.generate(prompt, max_new_tokens=1)
    assert weights_mark(mllm.model) == mark
    mllm.model.train()
    mllm.model.requires_grad_(False)
    assert weights_mark(mllm.model) == mark
