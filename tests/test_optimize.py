import pytest
import torch
from conftest import assert_same, snapshot
from tests_support import noise
from tiny_models import tiny_llava

import cmllm_tools as cm


@pytest.fixture(scope="module")
def tiny():
    mllm = cm.load(tiny_llava())
    return mllm, mllm.prepare(noise((50, 40)), "what is the red object ?")


REGION = cm.Box(12, 5, 30, 30)


@pytest.mark.parametrize("method", [cm.ControlMLLM(), cm.ControlMLLMPlus()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("kind", ["box", "mask", "scribble", "point"])
def test_energy_falls_and_attention_moves_into_the_region(mllm, prompt, example, method, kind):
    trace = cm.optimize(mllm, prompt, example.region(kind), method)
    assert 2 <= len(trace) <= trace.method.steps + 1
    assert trace.stopped == "finished" or trace.stopped.startswith("early stop")
    assert trace.steps[-1].energy < trace.steps[0].energy
    assert trace.steps[-1].share > trace.steps[0].share


def test_first_step_is_unsteered_and_agrees_with_the_step_by_step_functions(mllm, prompt, box):
    method = cm.ControlMLLM(steps=2, layers=(2, 5), queries="text")
    trace = cm.optimize(mllm, prompt, box, method)
    attention = cm.capture_attention(mllm, prompt, layers=range(2, 5))
    cmap = cm.context_map(attention)
    assert trace.steps[0].energy == pytest.approx(cm.energy(cmap, box).item(), abs=1e-6)
    assert trace.steps[0].share == pytest.approx(cm.region_share(cmap, box), abs=1e-6)
    assert torch.allclose(trace.steps[0].maps, attention.values.mean((1, 2)), atol=1e-6)
    assert trace.steps[0].latent_norm == 0
    assert trace.layers == (2, 3, 4)


def test_by_hand_gives_the_same_latent(tiny):
    """The loop written out with the public step-by-step functions."""
    mllm, prompt = tiny
    method = cm.ControlMLLM(steps=3, step_size=2.0, ema=0.5, early_stop=0.0)
    raw = average = prompt.zero_latent().detach()
    for _ in range(3):
        latent = average.clone().requires_grad_()
        cmap = cm.context_map(cm.capture_attention(mllm, prompt, latent=latent))
        (gradient,) = torch.autograd.grad(cm.energy(cmap, REGION), latent)
        raw = raw - 2.0 * gradient
        average = 0.5 * raw + 0.5 * average
    trace = cm.optimize(mllm, prompt, REGION, method)
    assert torch.allclose(trace.latent, average, atol=1e-6)


def test_gradient_norm_is_that_of_the_energy(tiny):
    mllm, prompt = tiny
    trace = cm.optimize(mllm, prompt, REGION, cm.ControlMLLM(steps=1, early_stop=0.0))
    latent = prompt.zero_latent()
    cmap = cm.context_map(cm.capture_attention(mllm, prompt, latent=latent))
    (gradient,) = torch.autograd.grad(cm.energy(cmap, REGION), latent)
    assert trace.steps[0].gradient_norm == pytest.approx(gradient.norm().item(), rel=1e-5)
    assert trace.steps[1].gradient_norm is None


def test_steps_are_yielded_one_by_one_and_the_model_is_free_between_them(tiny):
    mllm, prompt = tiny
    before = snapshot(mllm)
    run = cm.Steering(mllm, prompt, REGION, cm.ControlMLLM(steps=3))
    steps = iter(run)
    next(steps)
    next(steps)
    assert_same(before, snapshot(mllm))
    assert len(run.trace) == 2
    assert run.trace.stopped == "running"
    run.stop("seen enough")
    assert next(steps, None) is None
    assert run.trace.stopped == "seen enough"


def test_accumulating_reference_variant_runs(mllm, prompt, box):
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLM.published(steps=2))
    assert trace.queries == prompt.positions("after_image")
    assert trace.steps[-1].energy < trace.steps[0].energy


def test_several_regions(tiny):
    mllm, prompt = tiny
    trace = cm.optimize(mllm, prompt, [REGION, cm.Point(40, 20)], cm.ControlMLLM(steps=1))
    assert len(trace.regions) == 2


class Recorder(cm.Callback):
    def __init__(self):
        self.calls = []

    def on_start(self, run):
        self.calls.append("start")

    def on_step(self, run, step):
        assert run.trace.steps[-1] is step
        self.calls.append(step.number)

    def on_end(self, run):
        self.calls.append("end")


def test_callbacks_hear_every_step(tiny):
    recorder = Recorder()
    cm.optimize(*tiny, REGION, cm.ControlMLLM(steps=2, early_stop=0.0), callbacks=[recorder])
    assert recorder.calls == ["start", 0, 1, 2, "end"]


class InterruptAt(cm.Callback):
    def __init__(self, number):
        self.number = number

    def on_step(self, run, step):
        if step.number == self.number:
            raise KeyboardInterrupt


def test_interrupt_leaves_a_usable_trace(tiny, tmp_path):
    mllm, prompt = tiny
    before, recorder = snapshot(mllm), Recorder()
    trace = cm.optimize(
        mllm,
        prompt,
        REGION,
        cm.ControlMLLM(steps=5, early_stop=0.0),
        callbacks=[recorder, InterruptAt(2), cm.Answers("ends")],
    )
    assert trace.stopped == "interrupted"
    assert len(trace) == 3
    assert recorder.calls[-1] == "end"
    assert trace.steps[-1].answer is not None
    assert mllm.generate(prompt, trace.latent) is not None
    assert len(cm.Trace.load(trace.save(tmp_path / "partial.safetensors"))) == 3
    assert_same(before, snapshot(mllm))


def test_interrupt_inside_a_step_keeps_the_steps_before_it(tiny):
    mllm, prompt = tiny
    count = 0

    def interrupt(*_):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    before = snapshot(mllm)
    handle = mllm.decoder.layers[1].register_forward_pre_hook(interrupt)
    trace = cm.optimize(mllm, prompt, REGION, cm.ControlMLLM(steps=5, early_stop=0.0))
    handle.remove()
    assert trace.stopped == "interrupted"
    assert len(trace) == 2
    assert trace.latent.norm().item() == pytest.approx(trace.steps[-1].latent_norm, rel=1e-6)
    assert_same(before, snapshot(mllm))


def test_interrupt_before_the_first_step_goes_on(tiny):
    class AtStart(cm.Callback):
        def on_start(self, run):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cm.optimize(*tiny, REGION, callbacks=[AtStart()])


def test_error_in_a_callback_ends_all_callbacks_and_leaves_the_model(tiny):
    class Broken(cm.Callback):
        def on_step(self, run, step):
            raise RuntimeError("broken callback")

    before, recorder = snapshot(tiny[0]), Recorder()
    with pytest.raises(RuntimeError, match="broken callback"):
        cm.optimize(*tiny, REGION, callbacks=[recorder, Broken()])
    assert recorder.calls == ["start", 0, "end"]
    assert_same(before, snapshot(tiny[0]))


def test_non_finite_energy_stops_with_the_last_good_latent(tiny):
    mllm, prompt = tiny
    with pytest.raises(cm.OptimizationError, match=r"must stay finite; at step 1 .*smaller step_size") as caught:
        cm.optimize(mllm, prompt, REGION, cm.ControlMLLM(steps=5, step_size=1e300, ema=1.0, early_stop=0.0))
    trace = caught.value.trace
    assert len(trace) == 1
    assert torch.isfinite(trace.latent).all()
    assert trace.stopped.endswith("not finite")


def test_early_stopping(tiny):
    mllm, prompt = tiny
    full = cm.optimize(mllm, prompt, REGION, cm.ControlMLLM(steps=6, step_size=20.0, early_stop=0.0))
    energies = [step.energy for step in full.steps]
    threshold = 0.5 * abs(energies[-1] - energies[0]) / energies[0]
    expected = next(i for i, e in enumerate(energies) if i and abs(e - energies[0]) >= threshold * energies[0])
    by_setting = cm.optimize(mllm, prompt, REGION, cm.ControlMLLM(steps=6, step_size=20.0, early_stop=threshold))
    by_callback = cm.optimize(
        mllm,
        prompt,
        REGION,
        cm.ControlMLLM(steps=6, step_size=20.0, early_stop=0.0),
        callbacks=[cm.EarlyStopping(threshold)],
    )
    for trace in (by_setting, by_callback):
        assert len(trace) == expected + 1 < len(full)
        assert trace.stopped == "early stop: energy changed enough"


def test_early_stopping_on_rise(tiny):
    class Run:
        def __init__(self, energies):
            self.trace = type("T", (), {"steps": [type("S", (), {"energy": e, "number": 0}) for e in energies]})
            self.reason = None

        def stop(self, reason):
            self.reason = reason

    for energies, reason in (([1.0, 0.9], None), ([1.0, 0.9, 0.95], "early stop: energy rose")):
        run = Run(energies)
        cm.EarlyStopping(0.5, on_rise=True).on_step(run, run.trace.steps[-1])
        assert run.reason == reason


def test_answers_at_each_step_or_at_the_ends(mllm, prompt, box):
    each = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=2, early_stop=0.0), callbacks=[cm.Answers()])
    ends = cm.optimize(mllm, prompt, box, cm.ControlMLLM(steps=2, early_stop=0.0), callbacks=[cm.Answers("ends")])
    assert all(step.answer for step in each.steps)
    assert [bool(step.answer) for step in ends.steps] == [True, False, True]
    assert each.steps[0].answer == ends.steps[0].answer == mllm.generate(prompt)
    assert each.steps[-1].answer == mllm.generate(prompt, each.latent)


def test_checkpoint_saves_every_step(tiny, tmp_path):
    path = tmp_path / "run.safetensors"
    seen = []

    class Watch(cm.Callback):
        def on_step(self, run, step):
            seen.append(len(cm.Trace.load(path)))

    cm.optimize(*tiny, REGION, cm.ControlMLLM(steps=2, early_stop=0.0), callbacks=[cm.Checkpoint(path), Watch()])
    assert seen == [1, 2, 3]
    assert cm.Trace.load(path).stopped == "finished"


@pytest.mark.parametrize("callbacks", [cm.Callback(), [cm.Callback], [print], 3, None, "each"])
def test_what_are_no_callbacks_is_refused_before_the_run(mllm, prompt, box, callbacks):
    with pytest.raises(cm.SettingsError, match="callbacks must be several objects with on_start"):
        cm.optimize(mllm, prompt, box, callbacks=callbacks)


def test_callback_settings_are_checked(tmp_path):
    with pytest.raises(cm.SettingsError, match="above 0; got 0"):
        cm.EarlyStopping(0)
    with pytest.raises(cm.SettingsError, match="'each' step or at the 'ends'; got 'never'"):
        cm.Answers("never")
    with pytest.raises(cm.SettingsError, match="every must be a whole number of at least 1; got 0"):
        cm.Checkpoint(tmp_path / "a", every=0)
    with pytest.raises(cm.OutputError, match="must exist"):
        cm.Checkpoint(tmp_path / "no" / "a")


def test_progress_bar_counts_updates(tiny, capsys):
    cm.optimize(*tiny, REGION, cm.ControlMLLM(steps=2, early_stop=0.0), callbacks=[cm.ProgressBar()])
    assert "2/2" in capsys.readouterr().err
    run = cm.optimize(*tiny, REGION, cm.ControlMLLM(steps=9, early_stop=1e-9), callbacks=[cm.ProgressBar()])
    # A run that stopped as it should has a whole bar.
    assert run.stopped.startswith("early stop")
    assert f"{len(run) - 1}/{len(run) - 1}" in capsys.readouterr().err.splitlines()[-1]


def test_region_the_model_does_not_see_is_refused_before_the_run(tiny):
    mllm, _ = tiny
    wide = mllm.prepare(noise((200, 40)), "what is this ?")
    with pytest.raises(cm.RegionError, match="outside what the model sees"):
        cm.optimize(mllm, wide, cm.Box(0, 0, 20, 20))


def test_trace_holds_cpu_tensors_without_graph(tiny):
    trace = cm.optimize(*tiny, REGION, cm.ControlMLLM(steps=1))
    for tensor in [trace.latent, *(step.maps for step in trace.steps)]:
        assert tensor.device.type == "cpu"
        assert not tensor.requires_grad
        assert tensor.grad_fn is None


def test_pairs_of_heads_and_tokens_left_out_decide_the_energy(tiny, tmp_path):
    mllm, prompt = tiny
    method = cm.ControlMLLM(steps=2, step_size=2.0, early_stop=0.0, heads=((0, 3), (2, 1), (2, 2)), without=(0, 7))
    trace = cm.optimize(mllm, prompt, REGION, method)
    assert trace.layers == (0, 2)
    full = cm.capture_attention(mllm, prompt, latent=prompt.zero_latent().detach()).values.mean(2)
    values = torch.stack([full[0, 3], full[2, 1], full[2, 2]]).mean(0)
    values[[0, 7]] = 0
    inside = torch.from_numpy(prompt.layout.inside(REGION))
    assert trace.steps[0].energy == pytest.approx(((1 - (values * inside).sum() / values.sum()) ** 2).item(), rel=1e-5)
    assert torch.allclose(trace.steps[0].maps.mean(0), values, atol=1e-7)
    assert trace.steps[2].energy < trace.steps[0].energy
    again = cm.Trace.load(trace.save(tmp_path / "run.safetensors"))
    assert again.method == trace.method
    assert cm.optimize(mllm, prompt, REGION, again.method).steps[2].energy == trace.steps[2].energy


def test_pairs_are_taken_from_all_layers_unless_a_window_is_given(mllm, prompt, box):
    pairs = ((1, 0), (5, 2))
    assert cm.ControlMLLMPlus(heads=pairs).resolve(mllm).layers_of(mllm) == (1, 5)
    assert cm.ControlMLLMPlus(heads=pairs, layers=(0, 3)).resolve(mllm).layers_of(mllm) == (1,)
    with pytest.raises(cm.CaptureError, match=r"pair must be in layers \[2, 3\]"):
        cm.ControlMLLMPlus(heads=pairs, layers=(2, 4)).resolve(mllm)
    with pytest.raises(cm.SettingsError, match=r"heads in 0\.\.5; got \[\(9, 0\), \(0, 6\)\]"):
        cm.ControlMLLMPlus(heads=((9, 0), (1, 2), (0, 6))).resolve(mllm)
    with pytest.raises(cm.CaptureError, match="and not all of them"):
        cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(without=(64,)))
