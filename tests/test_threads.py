"""One model in several threads: every answer and map is the one it would be alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import assert_same, snapshot
from tests_support import noise
from tiny_models import tiny_llava
from transformers import LogitsProcessor

import cmllm_tools as cm


@pytest.fixture(scope="module")
def steered(mllm, prompt):
    """The embedded model, its prompt, a latent that changes the answer, and both answers."""
    noise = torch.randn(prompt.zero_latent().shape, generator=torch.Generator().manual_seed(0))
    latent = 3 * noise * prompt.call.visual_states.std()
    plain, moved = mllm.generate(prompt), mllm.generate(prompt, latent=latent)
    assert plain != moved
    return mllm, prompt, latent, plain, moved


def together(*works):
    """Run in as many threads, all of which are under way before the first goes on."""
    start = threading.Barrier(len(works))

    def run(work):
        start.wait(60)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(run, work) for work in works]]


def test_answers_with_and_without_a_latent_in_two_threads(steered):
    mllm, prompt, latent, plain, moved = steered
    before = snapshot(mllm)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda i: mllm.generate(prompt, latent=latent if i % 2 else None), range(20)))
    assert answers == [plain, moved] * 10
    assert_same(before, snapshot(mllm))


def test_capture_beside_answers(steered):
    mllm, prompt, latent, plain, moved = steered
    expected, before = cm.capture_attention(mllm, prompt).values, snapshot(mllm)
    captured, answers = together(
        lambda: [cm.capture_attention(mllm, prompt).values for _ in range(15)],
        lambda: [mllm.generate(prompt, latent=latent if i % 2 else None) for i in range(8)],
    )
    assert answers == [plain, moved] * 4
    assert all(torch.equal(values, expected) for values in captured)
    assert_same(before, snapshot(mllm))


def test_two_mllms_of_one_model_share_its_lock_and_prompts(steered):
    mllm, prompt, latent, plain, moved = steered
    other = cm.load((mllm.model, mllm.processor))
    answers, captured = together(
        lambda: [mllm.generate(prompt, latent=latent) for _ in range(5)],
        lambda: [cm.capture_attention(other, prompt).values.sum().item() for _ in range(10)],
    )
    assert answers == [moved] * 5
    assert len(set(captured)) == 1
    assert other.generate(prompt) == plain


def test_runs_in_two_threads_are_those_of_one(mllm, prompt, box):
    method = cm.ControlMLLM(steps=2, early_stop=0.0)
    expected = [step.energy for step in cm.optimize(mllm, prompt, box, method).steps]
    traces = together(*[lambda: cm.optimize(mllm, prompt, box, method)] * 2)
    assert [[step.energy for step in trace.steps] for trace in traces] == [expected] * 2


def test_prompts_prepared_in_two_threads(mllm, example):
    """A fast tokenizer keeps the padding of one call for the next."""
    options = ({}, {"padding": "max_length", "max_length": 100, "padding_side": "left"})
    expected = [mllm.prepare(example.image, "describe the object.", **each).tokens for each in options]
    assert len(expected[0]) < len(expected[1]) == 100
    found = together(
        *[
            lambda each=each: [mllm.prepare(example.image, "describe the object.", **each).tokens for _ in range(10)]
            for each in options
        ]
    )
    assert found == [[tokens] * 10 for tokens in expected]


def test_the_users_own_calls_in_another_thread_are_not_touched():
    """While a capture, a score or an answer is open: no latent in them, nothing recorded, nothing skipped."""
    mllm = cm.load(tiny_llava())
    model, prompt = mllm.model, mllm.prepare(noise((50, 40)), "what is this ?")
    with torch.no_grad():
        own = model(**prompt.inputs).logits
    latent, inside = torch.ones_like(prompt.zero_latent()), []

    def call():
        with torch.no_grad():
            inside.append(model(**prompt.inputs).logits)

    def beside(*_):
        if not inside and threading.get_ident() == main:
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()

    main = threading.get_ident()
    score = cm.models.scoring.AnswerScore(mllm, prompt, "red")
    mllm.gradient_checkpointing = True
    uses = {
        "capture": lambda: cm.capture_attention(mllm, prompt, latent=latent),
        "generate": lambda: mllm.generate(prompt, latent, max_new_tokens=1),
        "score": lambda: score(latent[None]),
    }
    for name, use in uses.items():
        inside.clear()
        handle = mllm.decoder.layers[1].register_forward_pre_hook(beside)
        try:
            use()
        finally:
            handle.remove()
        assert torch.equal(inside[0], own), name
    assert mllm.decoder.config._attn_implementation == "sdpa"


class Meanwhile(LogitsProcessor):
    """Uses the model within an answer, once for each token."""

    def __init__(self, use):
        self.use, self.found = use, []

    def __call__(self, input_ids, scores):
        self.found.append(self.use())
        return scores


@pytest.mark.parametrize("contrast", [None, 0.5])
def test_a_use_within_an_answer_does_not_meet_its_latent(steered, contrast):
    mllm, prompt, latent, plain, _ = steered
    expected = mllm.generate(prompt, latent, contrast), cm.capture_attention(mllm, prompt).values
    within = Meanwhile(lambda: (mllm.generate(prompt), cm.capture_attention(mllm, prompt).values))
    assert mllm.generate(prompt, latent, contrast, logits_processor=[within]) == expected[0]
    assert len(within.found) > 1
    assert all(answer == plain and torch.equal(values, expected[1]) for answer, values in within.found)
