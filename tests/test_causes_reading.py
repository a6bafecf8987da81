"""What states would say, and where an answer's tokens look, against the model's own modules by hook."""

import pytest
import torch
from conftest import assert_same, snapshot
from test_families import eager
from tests_support import noise
from tiny_families import TINY

import cmllm_tools as cm
from cmllm_tools.attention.capture import capture
from cmllm_tools.models.batch import followed_by


def states_by_hook(mllm, prompt):
    """(token, width): what goes into each layer, and what the last one gives, in a plain forward."""
    decoder, found = mllm.model.model.language_model, []
    handles = [
        layer.register_forward_pre_hook(
            lambda module, given, named: found.append((given or [named["hidden_states"]])[0][0]), with_kwargs=True
        )
        for layer in decoder.layers
    ]
    handles.append(decoder.layers[-1].register_forward_hook(lambda module, given, output: found.append(output[0])))
    with torch.no_grad():
        mllm.model(**prompt.inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("tokens", ["image", "text", "last"])
def test_a_lens_equals_the_head_of_the_norm_of_the_state(mllm, prompt, tokens):
    before = snapshot(mllm)
    found = cm.lens(mllm, prompt, tokens, top=3)
    assert found.layers == (-1, 0, 1, 2, 3, 4, 5)
    positions = {"image": list(prompt.visual), "text": list(prompt.text_span), "last": [len(prompt.tokens) - 1]}[tokens]
    assert list(found.positions) == positions
    decoder = mllm.model.model.language_model
    for number, state in enumerate(states_by_hook(mllm, prompt)):
        with torch.no_grad():
            expected = mllm.model.lm_head(decoder.norm(state[positions])).softmax(-1)
        torch.testing.assert_close(found.values[number], expected.topk(3).values, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(expected.gather(-1, found.ids[number]), found.values[number], atol=1e-5, rtol=1e-4)
        assert found.words[number][0][0] == mllm.words([int(found.ids[number, 0, 0])])[0]
    assert_same(before, snapshot(mllm))


def test_a_lens_of_embeddings_is_the_nearest_word(mllm, prompt, box):
    found = cm.lens(mllm, prompt, box, layers=[-1, 5], how="embeddings", top=2)
    embeddings = mllm.model.get_input_embeddings().weight.detach()
    states = states_by_hook(mllm, prompt)
    for number, state in enumerate((states[0], states[-1])):
        cosine = torch.nn.functional.cosine_similarity(state[list(found.positions), None], embeddings[None], dim=-1)
        torch.testing.assert_close(found.values[number], cosine.topk(2).values, atol=1e-5, rtol=1e-4)
    # A word's own input embedding is its nearest.
    text = cm.lens(mllm, prompt, "text", layers=[-1], how="embeddings", top=1)
    assert [word for (word,) in text.words[0]] == [prompt.tokens[position] for position in prompt.text_span]
    assert "after" in repr(found)


def test_what_no_lens_shows_is_refused(mllm, prompt, monkeypatch):
    with pytest.raises(cm.CaptureError, match=r"Layers must be at least one number in -1..5; got \[6\]"):
        cm.lens(mllm, prompt, layers=[6])
    with pytest.raises(cm.SettingsError, match="how must be 'logits' or 'embeddings'"):
        cm.lens(mllm, prompt, how="tuned")
    with pytest.raises(cm.SettingsError, match="top must be a whole number"):
        cm.lens(mllm, prompt, top=0)
    # What looks at other tokens after its last layer is no head of a state by itself.
    layers = list(mllm.family.layer_modules(mllm.model))
    monkeypatch.setattr(type(mllm.family), "layer_modules", lambda *_: layers[:-1])
    with pytest.raises(
        cm.UnsupportedModelError, match="llava has none: what follows its last layer reads more than each state"
    ):
        cm.lens(mllm, prompt)


@pytest.mark.parametrize("method", [None, cm.methods.AttentionEdit(2), cm.methods.KeySteering()], ids=repr)
def test_an_answers_tokens_look_where_eager_attention_does_with_a_cache(mllm, prompt, box, method):
    intervention = method and cm.refer(mllm, prompt.image, prompt.question, box, method).intervention
    before = snapshot(mllm)
    trace = cm.trace_answer(mllm, prompt, intervention, regions=[box, cm.Box(0, 0, 96, 192)])
    assert_same(before, snapshot(mllm))
    seen = []
    with eager(mllm):
        drawn = mllm.prepare(prompt.image, prompt.question)
        handles = [
            module.register_forward_hook(lambda module, given, output: seen.append(output[1][0, :, -1].detach()))
            for module in mllm.attention_modules
        ]
        answer = mllm.generate(drawn, intervention)
        for handle in handles:
            handle.remove()
    assert answer == trace.answer
    assert trace.words == mllm.words(answer.ids)
    # The last forwards are those of the answer's tokens, and of the one that ends it.
    count = len(trace) + 1
    rows = torch.stack([each[:, list(prompt.visual)] for each in seen[-6 * count :]]).unflatten(0, (count, 6))[:-1]
    torch.testing.assert_close(trace.maps, rows.mean((1, 2)), atol=1e-5, rtol=1e-3)
    for number, region in enumerate(trace.regions):
        inside = torch.from_numpy(prompt.layout.inside(region)).float()
        torch.testing.assert_close(
            trace.shares[:, number], rows.mean((1, 2)) @ inside / rows.mean((1, 2)).sum(-1), atol=1e-5, rtol=1e-3
        )


def numbers(*tensors):
    """How many numbers are kept with these: a part of something larger keeps all of it."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() // each.itemsize for each in tensors}
    return sum(storages.values())


def test_what_is_kept_of_an_answer_is_so_many_numbers_for_each_token(mllm, prompt, box):
    """At 128 tokens as at 8: attention to visual tokens alone, and not among the answer's own, which is its square."""
    (word,) = mllm.processor.tokenizer("red", add_special_tokens=False)["input_ids"]
    for length in (8, 32, 128):
        trace = cm.trace_answer(mllm, prompt, answer=[word] * length, regions=box)
        assert numbers(trace.maps, trace.shares, trace.by_head) == length * (64 + 1 + 6 * 6)
        followed = followed_by(mllm, prompt, [word] * length)
        rows = range(len(prompt.tokens) - 1, len(prompt.tokens) - 1 + length)
        recorder = capture(mllm, followed, range(6), None, list(rows), prompt.visual)
        assert numbers(*recorder.captured.values()) == length * 6 * 6 * 64


def test_heads_of_a_token(mllm, prompt, box):
    trace = cm.trace_answer(mllm, prompt, regions=box)
    layer, head, most = trace.top_heads(0, 1)[0]
    values = cm.capture_attention(mllm, prompt, queries="last").values[:, :, 0]
    inside = torch.from_numpy(prompt.layout.inside(box)).float()
    assert most == pytest.approx((values @ inside).max().item(), abs=1e-5)
    assert (values @ inside)[layer, head] == pytest.approx(most, abs=1e-5)
    one = cm.trace_answer(mllm, prompt, heads=[(layer, head)], layers=[layer])
    torch.testing.assert_close(one.maps[0], values[layer, head], atol=1e-5, rtol=1e-3)
    assert one.map(0).words == trace.words[:1]
    assert trace.on_image.max() <= 1
    given = cm.trace_answer(mllm, prompt, answer="red cross")
    assert given.words == ("red", "cross")
    for call, error, message in (
        (lambda: trace.map(99), cm.PromptError, "The number of an answer's token"),
        (lambda: cm.trace_answer(mllm, prompt, answer=""), cm.PromptError, "must have a token"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_attention_among_the_texts_tokens(mllm, prompt, box):
    followed = followed_by(mllm, prompt, [9, 10])
    rows = list(range(len(followed.tokens)))
    whole = cm.capture_attention(mllm, followed, queries=rows, columns="all")
    assert whole.values.shape[-1] == len(followed.tokens)
    torch.testing.assert_close(whole.values.sum(-1), torch.ones(whole.values.shape[:3]), atol=1e-5, rtol=0)
    text = cm.capture_attention(mllm, followed, queries="text", columns="text")
    assert set(text.columns) | set(followed.visual) == set(rows)
    picked = whole.values[:, :, list(followed.text_span)][..., list(text.columns)]
    torch.testing.assert_close(text.values, picked, atol=1e-6, rtol=0)
    # Before the image there is text to look at, too.
    first = cm.capture_attention(mllm, followed, queries=0, columns="text")
    assert first.values[..., 0].min() == pytest.approx(1, abs=1e-6)
    image = cm.capture_attention(mllm, followed)
    whole = cm.capture_attention(mllm, followed, columns="all")
    assert cm.region_share(cm.context_map(whole), box) == pytest.approx(
        cm.region_share(cm.context_map(image), box), abs=1e-6
    )
    assert "of it on these tokens" in repr(text)
    with pytest.raises(cm.CaptureError, match=r"this is to the text's alone\. Capture with columns='image' or 'all'"):
        cm.context_map(text)
    with pytest.raises(cm.CaptureError, match="columns must be 'image', 'text' or 'all'"):
        cm.capture_attention(mllm, prompt, columns="words")


def test_words_of_a_text_beside_the_image_are_no_visual_tokens():
    mllm = cm.load(TINY["mllama"]())
    prompt = mllm.prepare(noise((64, 64)), "describe the object .")
    found = cm.lens(mllm, prompt, "text", layers=[0], how="embeddings")
    assert [found.name_of(at) for at in range(len(found.positions))] == [prompt.tokens[at] for at in prompt.text_span]
    with pytest.raises(cm.CaptureError, match="this lens is of the question"):
        _ = found.visual


def test_heads_that_were_not_asked_for_are_not_among_the_first(mllm, prompt):
    trace = cm.trace_answer(mllm, prompt, heads=[(0, 1), (3, 2)], answer="red cross")
    assert {pair[:2] for pair in trace.top_heads(0)} == {(0, 1), (3, 2)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("maps", "explain"), [("activation", cm.analysis.token_activation), ("grad_cam", cm.analysis.grad_cam)]
)
def test_the_maps_of_an_answers_tokens_may_be_others(mllm, prompt, box, maps, explain):
    edit = cm.methods.AttentionEdit(3).intervention(mllm, prompt, (box,))
    for given in (None, edit, lambda number, text: edit):
        trace = cm.trace_answer(mllm, prompt, given, regions=box, maps=maps)
        attention = cm.trace_answer(mllm, prompt, given, regions=box)
        assert trace.answer == attention.answer
        torch.testing.assert_close(trace.by_head, attention.by_head)
        for token, share in enumerate(trace.shares[:, 0].tolist()):
            found = explain(mllm, prompt, trace.answer, token=token, latent=given and edit)
            torch.testing.assert_close(trace.maps[token], found.values, atol=1e-5, rtol=1e-3)
            if found.values.sum() > 0:
                assert share == pytest.approx(cm.region_share(found, box), abs=1e-4)
    assert f"of a token's {trace.of}" in repr(trace)
    assert cm.figures.answer_regions(trace).data[0].z.shape == (1, len(trace))
    with pytest.raises(cm.SettingsError, match="maps must be 'attention', 'activation' or 'grad_cam'; got 'tam'"):
        cm.trace_answer(mllm, prompt, maps="tam")


@pytest.mark.parametrize("maps", ["activation", "grad_cam"])
def test_what_states_hold_is_refused_with_moved_keys_before_an_answer_is_had(mllm, prompt, box, maps, monkeypatch):
    moved = cm.optimize(mllm, prompt, box, cm.methods.KeySteering())
    monkeypatch.setattr(cm.Mllm, "generate", lambda *_, **__: pytest.fail("it was answered"))
    with pytest.raises(cm.CaptureError, match="Use attention in its place"):
        cm.trace_answer(mllm, prompt, moved, maps=maps)


def test_a_function_chooses_what_is_done_as_when_answering(mllm, prompt, box):
    edit = cm.methods.AttentionEdit(3).intervention(mllm, prompt, (box,))
    chosen = cm.trace_answer(mllm, prompt, lambda number, text: edit, regions=box)
    expected = cm.trace_answer(mllm, prompt, edit, regions=box)
    assert chosen.answer == expected.answer
    torch.testing.assert_close(chosen.maps, expected.maps)
    values = cm.capture_attention(mllm, prompt, queries="last", latent=lambda number, text: edit).values
    torch.testing.assert_close(values, cm.capture_attention(mllm, prompt, queries="last", latent=edit).values)
