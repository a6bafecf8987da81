"""Knockouts and ablations against plain forwards, with masks and hooks written out."""

import itertools
import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from test_families import eager

import cmllm_tools as cm
from cmllm_tools.causes import ablate, ablate_grid, knockout, knockout_grid
from cmllm_tools.causes.cells import windows_of
from cmllm_tools.causes.edits import KnockOut
from cmllm_tools.causes.runs import Runs
from cmllm_tools.causes.scored import MeasuredPrompt
from cmllm_tools.causes.tokens import queries_of
from cmllm_tools.models.scoring import continuation

ANSWER = "red cross at"
CANDIDATES = ("a red cross", "blue seven", "green circle")
FEW = {"answer": ANSWER, "progress": False}


def attention_of(mllm):
    """Every layer's attention module, in order."""
    return [layer.self_attn for layer in mllm.model.model.language_model.layers]


def plain(mllm, prompt, answer=ANSWER):
    """Log-probability of an answer in the model's own forward over the whole sequence."""
    ids = mllm.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    inputs = {name: value for name, value in prompt.inputs.items() if name != "attention_mask"}
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
    with torch.no_grad():
        logits = mllm.model(**inputs, use_cache=False).logits[0, -len(ids) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None]).sum().item()


@contextmanager
def masked(mllm, rows, columns, layers, heads):
    """While open, a mask written out hides `columns` from `rows`; a row of nothing but hidden keys draws nothing."""
    modules, handles = attention_of(mllm), []

    def hide(module, arguments, named):
        length = named["hidden_states"].shape[1]
        mask = torch.full((1, mllm.heads, length, length), float("-inf")).triu(1)
        for head in heads:
            for row in rows:
                mask[0, head, row, columns] = float("-inf")
        blind = mask.isneginf().all(-1)
        module.blind = blind
        return arguments, named | {"attention_mask": mask.masked_fill(blind[..., None], 0)}

    def nothing(module, arguments):
        kept = ~module.attention.blind[0].T
        width = arguments[0].shape[-1] // mllm.heads
        return (arguments[0] * kept.repeat_interleave(width, 1),)

    for layer in layers:
        modules[layer].o_proj.__dict__["attention"] = modules[layer]
        handles.append(modules[layer].register_forward_pre_hook(hide, with_kwargs=True))
        handles.append(modules[layer].o_proj.register_forward_pre_hook(nothing))
    try:
        with eager(mllm):
            yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            del modules[layer].o_proj.__dict__["attention"], modules[layer].blind


@contextmanager
def put(mllm, pairs, rows, value):
    """While open, each head's part of what its layer's output is mixed of is `value(layer, head, part)` at `rows`."""

    def change(layer):
        def changed(module, arguments):
            found = arguments[0].clone()
            width = found.shape[-1] // mllm.heads
            for at, head in pairs:
                if at == layer:
                    part = slice(head * width, (head + 1) * width)
                    found[:, rows, part] = value(layer, head, found[..., part])
            return (found,)

        return changed

    modules = attention_of(mllm)
    handles = [modules[layer].o_proj.register_forward_pre_hook(change(layer)) for layer in {layer for layer, _ in pairs}]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def answering(prompt):
    return [*range(len(prompt.tokens) - 1, len(prompt.tokens) + len(ANSWER.split()))]


def region_columns(prompt, box):
    return [prompt.visual[number] for number in np.flatnonzero(prompt.layout.inside(box) >= 0.5)]


@pytest.mark.parametrize(
    "what", ["text to image", "last to region", "image to image", "word to itself", "answering to text"]
)
def test_a_knockout_equals_masks_written_out(mllm, prompt, box, what):
    end, after = len(prompt.tokens), [*range(prompt.image_end, len(prompt.tokens) + 3)]
    from_, to, rows, columns = {
        "text to image": ("after_image", "image", after, list(prompt.visual)),
        "last to region": ("last", box, [end - 1], region_columns(prompt, box)),
        "image to image": ("image", "image", list(prompt.visual), list(prompt.visual)),
        "word to itself": ("object", "all", prompt.positions("object"), list(range(end))),
        "answering to text": ("answering", "text", answering(prompt), list(prompt.text_span)),
    }[what]
    for layers, heads in (([0, 1, 2, 3, 4, 5], range(6)), ([2, 3], [1, 4]), ([5], range(6))):
        with masked(mllm, rows, columns, layers, heads):
            expected = plain(mllm, prompt)
        found = knockout(mllm, prompt, from_, to, layers=layers, heads=heads, answer=ANSWER)
        assert found.after == pytest.approx(expected, abs=1e-5)
        assert found.before == pytest.approx(plain(mllm, prompt), abs=1e-5)
        # What it gives to answer with is the same.
        again = continuation(mllm, prompt, ANSWER, found.intervention).sum().item()
        assert again == pytest.approx(expected, abs=1e-5)


def test_a_grid_equals_knockouts_one_by_one_and_leaves_the_model_alone(mllm, prompt):
    before = snapshot(mllm)
    found = knockout_grid(mllm, prompt, candidates=CANDIDATES, max_copies=4, progress=False)
    assert found.values.shape == (6, 6)
    for layer, head in ((0, 0), (3, 5), (5, 2)):
        one = knockout(mllm, prompt, layers=[layer], heads=[head], candidates=CANDIDATES)
        assert one.measure == found.measure == "log-odds"
        assert found.values[layer, head] == pytest.approx(one.after, abs=1e-4)
        scores = []
        for each in CANDIDATES:
            rows = range(prompt.image_end, len(prompt.tokens) + len(each.split()))
            with masked(mllm, rows, list(prompt.visual), [layer], [head]):
                scores.append(plain(mllm, prompt, each))
        expected = scores[0] - np.logaddexp(*scores[1:])
        assert found.values[layer, head] == pytest.approx(expected, abs=1e-4)
    assert_same(before, snapshot(mllm))


def test_a_grid_of_windows(mllm, prompt):
    found = knockout_grid(mllm, prompt, "image", "image", together=True, window=3, step=2, **FEW)
    assert (found.rows, found.columns) == (("0..2", "2..4", "4..5"), ("all",))
    assert found.values[1, 0] == pytest.approx(
        knockout(mllm, prompt, "image", "image", layers=[2, 3, 4], answer=ANSWER).after, abs=1e-5
    )
    assert found.strongest(1)[0][0] in found.rows


@pytest.mark.parametrize("numbers", [range(6), range(28), (3, 7, 11, 15, 19)])
def test_windows_have_every_layer_that_their_steps_do_not_pass_over(numbers):
    numbers = tuple(numbers)
    for window, step in itertools.product(range(1, len(numbers) + 1), range(1, len(numbers) + 2)):
        windows = windows_of(numbers, window, step)
        assert [each[0] for each in windows] == list(numbers[::step][: len(windows)])
        assert all(len(each) == window for each in windows[:-1])
        assert 0 < len(windows[-1]) <= window
        # None is of another one's layers alone.
        assert not any(set(one) <= set(other) for one, other in itertools.permutations(windows, 2))
        if step <= window:
            assert set().union(*windows) == set(numbers)


@pytest.mark.parametrize("first", [0, 68])
def test_nothing_knocked_out_is_unchanged(mllm, prompt, first):
    """Whatever is skipped: from no layer on, and from each."""
    runs = Runs(mllm, prompt, [5, 6], first)
    rows = queries_of(mllm, prompt, "last")
    for begin in range(6):
        found = runs(2, lambda: KnockOut([(), ()], rows, [4], mllm, runs.answered).opened(mllm), begin)
        torch.testing.assert_close(found, runs.clean.expand(2, -1), atol=1e-5, rtol=0)


def test_layers_that_cannot_be_skipped_are_run(mllm, prompt, monkeypatch):
    """Where what was kept comes to something else, a knockout is what it is without."""
    expected = knockout_grid(mllm, prompt, **FEW).values
    monkeypatch.setattr(Runs, "_may_skip", False)
    np.testing.assert_allclose(knockout_grid(mllm, prompt, **FEW).values, expected, atol=1e-5)
    monkeypatch.setattr("cmllm_tools.causes.runs.prefix_or_none", lambda *_: None)
    np.testing.assert_allclose(knockout_grid(mllm, prompt, **FEW).values, expected, atol=1e-5)


def test_silenced_heads_equal_hooks_written_out(mllm, prompt):
    end, pairs = len(prompt.tokens), [(0, 1), (3, 2), (3, 5)]
    everywhere, last = list(range(end + 3)), [end - 1]
    sums = {}

    def mean(layer, head, part):
        return sums[layer, head]

    with (
        torch.no_grad(),
        put(mllm, pairs, everywhere, lambda layer, head, part: sums.setdefault((layer, head), part[0].mean(0))),
    ):
        pass
    handles = []
    for layer, head in pairs:

        def keep(module, arguments, layer=layer, head=head):
            width = arguments[0].shape[-1] // mllm.heads
            sums[layer, head] = arguments[0][0, :, head * width : (head + 1) * width].mean(0)

        handles.append(attention_of(mllm)[layer].o_proj.register_forward_pre_hook(keep))
    with torch.no_grad():
        mllm.model(**prompt.inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    for how, value in (("zero", lambda *_: 0), ("mean", mean)):
        for tokens, rows in (("all", everywhere), ("last", last)):
            with put(mllm, pairs, rows, value):
                expected = plain(mllm, prompt)
            found = ablate(mllm, prompt, pairs, how=how, tokens=tokens, answer=ANSWER)
            assert found.after == pytest.approx(expected, abs=1e-5)
            again = continuation(mllm, prompt, ANSWER, found.intervention).sum().item()
            assert again == pytest.approx(expected, abs=1e-5)
    grid = ablate_grid(mllm, prompt, how="mean", **FEW)
    for layer, head in ((0, 1), (4, 4)):
        one = ablate(mllm, prompt, [(layer, head)], how="mean", answer=ANSWER)
        assert grid.values[layer, head] == pytest.approx(one.after, abs=1e-5)


@pytest.mark.slow
def test_an_answer_is_given_under_a_knockout(mllm, prompt, box):
    """With a cache, from a look's prefix, and with the attention that it leaves."""
    cut = knockout(mllm, prompt).intervention
    look = mllm.prepare(mllm.look(prompt.image), prompt.question)
    answer = mllm.generate(prompt, cut)
    assert answer == mllm.generate(prompt, cut, use_cache=False) == mllm.generate(look, cut)
    assert answer != mllm.generate(prompt)
    assert cm.capture_attention(mllm, prompt, latent=cut).values.abs().max() == 0
    region = knockout(mllm, prompt, to=box).intervention
    left = cm.capture_attention(mllm, prompt, latent=region, layers=[0]).values
    plain_rows = cm.capture_attention(mllm, prompt, layers=[0]).values
    inside = [number for number, position in enumerate(prompt.visual) if position in region.keys]
    expected = plain_rows / (1 - plain_rows[..., inside].sum(-1, keepdim=True))
    expected[..., inside] = 0
    torch.testing.assert_close(left, expected, atol=1e-6, rtol=1e-4)


def test_a_run_goes_on_where_it_ended(mllm, prompt, tmp_path, monkeypatch):
    path = tmp_path / "grid.jsonl"
    expected = knockout_grid(mllm, prompt, **FEW).values
    calls = []

    def interrupted(self, copies, edit, begin, own=MeasuredPrompt.__call__):
        calls.append(copies)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(self, copies, edit, begin)

    with monkeypatch.context() as patch:
        patch.setattr(MeasuredPrompt, "__call__", interrupted)
        partial = knockout_grid(mllm, prompt, path=path, **FEW)
    assert partial.interrupted
    assert np.isfinite(partial.values).sum() == sum(calls[:2]) == 12
    assert "done 12 of 36" in repr(partial)
    # A line that was cut is done again.
    path.write_bytes(path.read_bytes()[:-5])
    whole = knockout_grid(mllm, prompt, path=path, **FEW)
    assert not whole.interrupted
    np.testing.assert_allclose(whole.values, expected, atol=1e-5)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert len(lines) == 37
    with monkeypatch.context() as patch:
        patch.setattr(MeasuredPrompt, "__call__", None)
        np.testing.assert_array_equal(knockout_grid(mllm, prompt, path=path, **FEW).values, whole.values)
    with pytest.raises(
        cm.DataError, match=r"must be of this run; line 1 of .*grid.jsonl is not: .*another model, prompt or"
    ):
        knockout_grid(mllm, prompt, "last", path=path, **FEW)
    path.write_text('{"causes": "1"}\n{"cell": [9, 0], "value": 1}\n')
    with pytest.raises(cm.DataError, match="Give another file"):
        knockout_grid(mllm, prompt, path=path, **FEW)


def test_interventions_are_saved_with_an_outcome(mllm, prompt):
    from cmllm_tools.referring.outcome_file import contents_of, restored

    for change in (knockout(mllm, prompt, heads=[1], answer=ANSWER), ablate(mllm, prompt, [(2, 3)], answer=ANSWER)):
        tensors, plain_fields = contents_of(change.intervention)
        again = restored(json.loads(json.dumps(plain_fields)), tensors)
        found = continuation(mllm, prompt, ANSWER, again).sum().item()
        assert found == pytest.approx(change.after, abs=1e-5)


def test_what_cannot_be_asked_is_refused(mllm, prompt, box):
    for error, message, arguments, options in (
        (cm.CaptureError, "Layers must be at least one number in 0..5; got", (), {"layers": [6]}),
        (cm.CaptureError, "Heads must be at least one number in 0..5; got", (), {"heads": []}),
        (cm.CaptureError, "There must be attention to forbid; none of these tokens", ("before_image", "image"), {}),
        (cm.CaptureError, "by regions, or by words and positions, not both", ([box, "last"],), {}),
        (cm.PromptError, "A highlight word must be in the question", ("elephant",), {}),
        (cm.SettingsError, "an answer or candidates; got both", (), {"answer": "a", "candidates": ("a", "b")}),
        (cm.SettingsError, "two or more different answers", (), {"candidates": ("a",)}),
        (cm.PromptError, "at least one word", (), {"answer": ""}),
    ):
        with pytest.raises(error, match=message):
            knockout(mllm, prompt, *arguments, **options)
    with pytest.raises(cm.SettingsError, match=r"window must be a whole number in 1..6; got 7"):
        knockout_grid(mllm, prompt, window=7)
    with pytest.raises(cm.CaptureError, match="At least one head must be silenced"):
        ablate(mllm, prompt, [])
    with pytest.raises(cm.SettingsError, match="how must be 'zero' or 'mean'"):
        ablate(mllm, prompt, [0], how="median")
    small = mllm.prepare(prompt.image, "what")
    with pytest.raises(cm.CaptureError, match="They belong to one prompt"):
        mllm.generate(small, cm.causes.AttentionCut((900,), (3,)))
    with pytest.raises(cm.CaptureError, match="a row for each"):
        cm.causes.HeadsPut(torch.zeros(2, 1), ((0, 0),), (3,))


def test_changes_of_nothing_or_of_another_width(mllm, prompt):
    nothing = cm.causes.AttentionCut(prompt.text_span, ())
    assert mllm.generate(prompt, nothing) == mllm.generate(prompt)
    with pytest.raises(cm.CaptureError, match=r"pair must be several whole numbers"):
        cm.causes.HeadsPut(torch.zeros(1, 1), (3,), (3,))
    with pytest.raises(cm.CaptureError, match=r"as wide as what they draw, 32 in layer 0; got 5"):
        mllm.generate(prompt, cm.causes.HeadsPut(torch.zeros(1, 5), ((0, 0),), (3,)))
