"""Interrupts at any moment: the model is as it was found, and the interrupt is heard."""

import random
import signal
import sys
import threading
import time
from functools import cache

import pytest
import torch
from conftest import assert_same, snapshot
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm
from cmllm_tools.models.interrupts import _HELD, restoring, uninterrupted
from cmllm_tools.models.scoring import AnswerScore

REGION = cm.Box(12, 5, 30, 30)
METHOD = cm.ControlMLLM(steps=2, early_stop=0.0)


@pytest.fixture(scope="module")
def tiny():
    model, processor = tiny_llava()
    # Something to put back: training mode, and a parameter without a gradient.
    model.train()
    model.lm_head.weight.requires_grad_(False)
    mllm = cm.load((model, processor))
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


def uses(mllm, prompt):
    latent = torch.ones_like(prompt.zero_latent())
    score = AnswerScore(mllm, prompt, "red")

    def steer(checkpointing):
        mllm.gradient_checkpointing = checkpointing
        try:
            # An interrupted run returns its trace: what is heard is in it.
            if cm.optimize(mllm, prompt, REGION, METHOD).stopped == "interrupted":
                raise KeyboardInterrupt
        finally:
            mllm.gradient_checkpointing = False

    return {
        "capture": lambda: cm.capture_attention(mllm, prompt, latent=latent),
        "generate": lambda: mllm.generate(prompt, latent, max_new_tokens=2),
        "prepare": lambda: mllm.prepare(prompt.image, prompt.question),
        "score": lambda: score(latent[None]),
        "optimize": lambda: steer(False),
        "optimize, checkpointed": lambda: steer(True),
    }


USES = ["capture", "generate", "prepare", "score", "optimize", "optimize, checkpointed"]


def found(mllm):
    """What an interrupt could leave behind, beyond the model's own state."""
    return snapshot(mllm) | {
        "forwards": [module for module in mllm.model.modules() if "forward" in vars(module)],
        "gradient": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "handler": signal.getsignal(signal.SIGINT),
    }


def free(mllm):
    """Whether another thread may use the model."""
    from cmllm_tools.models.undisturbed import _LOCKS

    taken = []

    def take():
        for lock in list(_LOCKS.values()):
            taken.append(lock.acquire(timeout=1))
            if taken[-1]:
                lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return all(taken)


@cache
def watched(code):
    files = ("/cmllm_tools/", "/contextlib.py", "/torch/autograd/grad_mode.py", "/torch/utils/hooks.py")
    return any(part in code.co_filename for part in files)


def run_interrupted_at(count, use):
    """Run with an interrupt at the `count`-th line or call of code during which interrupts must wait.

    Returns the places of the moments until then, or of all, and whether the interrupt was heard.
    """
    seen = []

    def held(frame):
        while frame is not None:
            if frame.f_code in _HELD:
                return True
            frame = frame.f_back
        return False

    def trace(frame, event, argument):
        if event == "call" and not (watched(frame.f_code) and held(frame)):
            return None
        seen.append((frame.f_code, frame.f_lineno))
        if len(seen) == count:
            # What follows needs no watching, and goes ten times as fast.
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
        return trace

    heard = False
    before = sys.gettrace()
    try:
        sys.settrace(trace)
        use()
    except KeyboardInterrupt:
        heard = True
    finally:
        sys.settrace(before)
    return seen, heard


def check_interrupted(mllm, use, counts):
    before = found(mllm)
    for count in counts:
        _, heard = run_interrupted_at(count, use)
        assert heard, count
        assert_same(dict(before), found(mllm))
    assert free(mllm)


@pytest.mark.slow
@pytest.mark.parametrize("name", USES)
def test_an_interrupt_at_any_line_of_entering_or_leaving_is_heard_after_all_is_put_back(tiny, name):
    mllm, prompt = tiny
    use = uses(mllm, prompt)[name]
    use()
    moments, heard = run_interrupted_at(0, use)
    assert len(moments) > 200
    assert not heard
    check_interrupted(mllm, use, random.Random(0).sample(range(1, len(moments) + 1), 15))


@pytest.mark.slow
def test_an_interrupt_at_every_line_of_a_capture(tiny):
    """The first and the last time that each is run, as most are run for every layer."""
    mllm, prompt = tiny
    use = uses(mllm, prompt)["capture"]
    moments = list(enumerate(run_interrupted_at(0, use)[0], 1))
    first = {place: count for count, place in reversed(moments)}
    last = {place: count for count, place in moments}
    assert len(first) > 100
    check_interrupted(mllm, use, sorted({*first.values(), *last.values()}))


@pytest.mark.slow
@pytest.mark.parametrize("name", USES)
def test_timed_interrupts_leave_nothing_behind(tiny, name, monkeypatch):
    mllm, prompt = tiny
    dropped = []
    # Python itself drops what is raised in a finaliser or in a callback of its garbage collector (hypothesis has one).
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: dropped.append(raised.exc_type))
    use = uses(mllm, prompt)[name]
    use()
    before, generator = found(mllm), random.Random(0)
    start = time.perf_counter()
    use()
    length = time.perf_counter() - start
    main, heard = threading.main_thread().ident, 0
    for _ in range(20):
        timer = threading.Timer(generator.uniform(0, length), signal.pthread_kill, (main, signal.SIGINT))
        try:
            timer.start()
            use()
            timer.join()
        except KeyboardInterrupt:
            heard += 1
            timer.join()
        assert_same(dict(before), found(mllm))
    assert heard + dropped.count(KeyboardInterrupt) == 20
    assert free(mllm)


def test_an_interrupt_in_the_body_is_heard_at_once():
    @restoring
    def context():
        yield

    with pytest.raises(KeyboardInterrupt), context(), context():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the body went on")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_entering_undoes_what_was_entered():
    done = []

    @restoring
    def context():
        done.append("changed")
        signal.raise_signal(signal.SIGINT)
        done.append("still")
        try:
            yield
        finally:
            done.append("restored")

    with pytest.raises(KeyboardInterrupt), context():
        pytest.fail("the body was entered")
    assert done == ["changed", "still", "restored"]


def test_an_interrupt_while_leaving_waits_for_the_rest():
    done = []

    @restoring
    def context():
        try:
            yield
        finally:
            signal.raise_signal(signal.SIGINT)
            done.append("restored")

    with pytest.raises(KeyboardInterrupt), context():
        done.append("body")
    assert done == ["body", "restored"]


def test_what_belongs_together_is_not_interrupted_between():
    done = []

    @uninterrupted
    def both():
        done.append(1)
        signal.raise_signal(signal.SIGINT)
        done.append(2)

    with pytest.raises(KeyboardInterrupt):
        both()
    assert done == [1, 2]


def test_the_users_own_handler_hears_the_interrupt_and_is_put_back():
    heard = []

    def own(number, frame):
        heard.append(number)

    @restoring
    def context():
        signal.raise_signal(signal.SIGINT)
        yield
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, own)
    try:
        with context():
            assert len(heard) == 1
            signal.raise_signal(signal.SIGINT)
            assert len(heard) == 2
        assert len(heard) == 3
        assert signal.getsignal(signal.SIGINT) is own
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with context():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_waiting_for_another_thread_can_be_interrupted(tiny):
    from cmllm_tools.models.undisturbed import undisturbed

    mllm, prompt = tiny
    inside, done = threading.Event(), threading.Event()

    def use():
        with undisturbed(mllm.model):
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=use)
    thread.start()
    inside.wait(60)
    timer = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            mllm.generate(prompt, max_new_tokens=1)
    finally:
        done.set()
        thread.join()
        timer.join()
    assert mllm.generate(prompt, max_new_tokens=1) is not None
