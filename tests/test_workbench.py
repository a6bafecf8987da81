import asyncio
import signal

import pytest
from conftest import PLUS
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.widgets import Workbench
from cmllm_tools.widgets.layers_tab import LayersTab


@pytest.fixture
def expected(mllm, scene):
    prompt = mllm.prepare(scene.image, "describe the object.")
    return cm.optimize(mllm, prompt, scene.region("box"), PLUS, [cm.Answers("ends")])


def energies(trace):
    return [step.energy for step in trace.steps]


def message(bench):
    return bench._message.value


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen in time")


def steps_so_far(bench):
    return 0 if bench.trace is None or not bench.running else len(bench.trace)


def test_steered_it_is_what_optimize_does(bench, expected, scene):
    async def steer():
        assert not bench.running
        task = bench.steer()
        assert bench.running
        assert not bench._stop.disabled
        return await task

    trace = asyncio.run(steer())
    assert trace is bench.trace
    assert energies(trace) == energies(expected)
    assert trace.stopped == "finished"
    assert bench.answers == (expected.steps[0].answer, expected.steps[-1].answer)
    assert scene.names[0] in bench.answers[1]
    assert bench.answers[1] in bench._answers.value
    assert bench._status.value == "finished (step 3 of 3)"
    assert (bench.player.trace, bench.player.step, len(bench.player.data["steps"])) == (trace, 3, 4)
    assert bench.player.data["steps"][3]["answer"] == bench.answers[1]
    assert (bench.running, bench.error, bench._stop.disabled, message(bench)) == (False, None, True, "")


def test_run_needs_no_loop(bench, expected):
    assert energies(bench.run()) == energies(expected)
    assert bench.answers[1] == expected.steps[-1].answer
    with pytest.raises(cm.OptimizationError, match=r"steer\(\) needs a running event loop.*Call run\(\)"):
        bench.steer()
    assert not bench.running


def test_player_follows_and_others_have_their_turn_meanwhile(bench):
    seen = set()

    async def steer():
        task = bench.steer()
        while not task.done():
            if bench.player:
                seen.add((bench.player.step, len(bench.player.data["steps"]), bench._status.value))
            await asyncio.sleep(0.001)

    asyncio.run(steer())
    assert {(step, step + 1, f"step {step} of 3") for step in range(4)} <= seen


def test_player_stays_where_it_was_put(bench):
    async def steer():
        task = bench.steer()
        await until(lambda: steps_so_far(bench) == 2)
        bench.player.step = 0
        await task

    asyncio.run(steer())
    assert (bench.player.step, len(bench.player.data["steps"])) == (0, 4)


def test_stop_ends_within_a_step(bench, mllm):
    bench.method = cm.ControlMLLMPlus(steps=200)

    async def steer():
        task = bench.steer()
        await until(lambda: steps_so_far(bench) >= 3)
        count = len(bench.trace)
        bench._stop.click()
        assert bench._stop.disabled
        await task
        return count

    count = asyncio.run(steer())
    assert count <= len(bench.trace) <= count + 1
    assert bench.trace.stopped == "stopped"
    latent = bench.trace.latent.to(mllm.device)
    assert bench.answers[1] == mllm.generate(bench._prompt, latent, bench.trace.method.contrast_decoding)
    bench.method = PLUS
    assert len(bench.run()) == 4
    bench.stop()
    assert not bench.running


def test_stopped_before_the_first_step_it_is_unsteered(bench):
    async def steer():
        task = bench.steer()
        bench.stop()
        await task

    asyncio.run(steer())
    assert (len(bench.trace), bench.trace.stopped) == (1, "stopped")
    assert bench.answers[0] == bench.answers[1] is not None


def test_second_steer_is_refused_where_it_is_seen(bench, expected):
    async def steer():
        task = bench.steer()
        await until(lambda: steps_so_far(bench) >= 1)
        bench._steer.click()
        assert "A run goes on in this panel: press Stop" in message(bench)
        assert bench.steer() is None
        with pytest.raises(cm.OptimizationError, match="A run goes on"):
            bench.run()
        assert bench.running
        await task

    asyncio.run(steer())
    assert energies(bench.trace) == energies(expected)


def test_click_in_another_thread_steps_in_this_one(mllm, scene, monkeypatch):
    import threading

    threads = set()
    step = cm.Steering._step
    monkeypatch.setattr(cm.Steering, "_step", lambda *given: (threads.add(threading.current_thread()), step(*given))[1])

    async def steer():
        bench = Workbench(mllm, scene.image, regions=scene.region("box"), method=PLUS)

        async def click():
            bench._steer.click()

        await asyncio.to_thread(asyncio.run, click())
        await until(lambda: bench.trace and not bench.running)
        return bench

    assert len(asyncio.run(steer()).trace) == 4
    assert threads == {threading.main_thread()}


def test_a_look_in_another_thread_uses_the_model_in_this_one(mllm, scene, monkeypatch):
    import threading

    threads = set()
    look = LayersTab.look
    monkeypatch.setattr(LayersTab, "look", lambda tab: (threads.add(threading.current_thread()), look(tab))[1])

    async def looked():
        bench = Workbench(mllm, scene.image, regions=scene.region("box"), method=PLUS)

        async def click():
            bench.layers._look.click()

        await asyncio.to_thread(asyncio.run, click())
        await until(lambda: bench.layers.explorer)
        return bench

    assert asyncio.run(looked()).layers.explorer.answer
    assert threads == {threading.main_thread()}


def test_errors_are_shown_and_leave_the_panel_usable(bench, scene, mllm):
    bench.method = cm.ControlMLLM(steps=4, step_size=1e300, early_stop=0.0)
    asyncio.run(awaited(bench))
    assert isinstance(bench.error, cm.OptimizationError)
    assert "must stay finite" in message(bench)
    assert "<details><summary>OptimizationError: traceback</summary>" in message(bench)
    assert "Traceback (most recent call last)" in message(bench)
    assert bench.picker.regions == (scene.region("box"),)
    assert len(bench.trace) >= 1
    bench.settings.steps.value = 0
    with pytest.raises(cm.SettingsError, match="steps must be a whole number"):
        bench.run()
    assert "steps must be a whole number" in message(bench)
    bench.method = PLUS
    bench.question = "what about <image> & <b>that</b> ?"
    asyncio.run(awaited(bench))
    assert isinstance(bench.error, cm.PromptError)
    assert "&lt;image&gt;" in message(bench)
    assert "<image>" not in message(bench)
    bench.question = "describe the object."
    bench.picker.regions = ()
    asyncio.run(awaited(bench))
    assert "Draw at least one region" in message(bench)
    bench.picker.regions = scene.region("box")
    asyncio.run(awaited(bench))
    assert (bench.error, message(bench), bench.trace.stopped) == (None, "", "finished")


async def awaited(bench):
    return await bench.steer()


def test_interrupt_in_a_step_and_between_two(bench, monkeypatch):
    # As ipykernel has it while no cell runs.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    bench.method = cm.ControlMLLMPlus(steps=200)
    step = cm.Steering._step

    def interrupted(*given):
        if given[1] == 2:
            signal.raise_signal(signal.SIGINT)
        return step(*given)

    async def between():
        task = asyncio.get_running_loop().create_task(bench._cooperate()) if bench._begin() else None
        await until(lambda: steps_so_far(bench) >= 2)
        signal.raise_signal(signal.SIGINT)
        await task

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(between())
        assert (bench.trace.stopped, 2 <= len(bench.trace) <= 3) == ("interrupted", True)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        monkeypatch.setattr(cm.Steering, "_step", interrupted)
        loop.run_until_complete(awaited(bench))
        assert (bench.trace.stopped, len(bench.trace), bench.error) == ("interrupted", 2, None)
        assert bench.answers[1] is not None
    finally:
        loop.close()
        signal.signal(signal.SIGINT, before)


def test_code_does_the_same(bench, scene, capsys):
    several = (scene.region("box"), scene.region("mask"), scene.region("scribble"), scene.region("point"))
    for regions, method in (
        (several, PLUS),
        (several[:1], cm.ControlMLLM(steps=2, ema=0.7, layers=(1, 3), queries="object")),
    ):
        bench.picker.regions, bench.method = regions, method
        trace, names = bench.run(), {}
        exec(bench.code(), names)  # noqa: S102
        assert names["regions"] == list(regions)
        assert names["trace"].method == trace.method
        assert energies(names["trace"]) == energies(trace)
        assert names["trace"].steps[-1].answer == bench.answers[1]
    assert "finished" not in capsys.readouterr().err


def test_code_of_an_image_without_a_file_has_a_placeholder(mllm, scene, picture_file):
    code = Workbench(mllm, scene.image, 'what\'s "that" ?').code()
    assert "put its path here" in code
    assert "'path/to/your/image.png'" in code
    compile(code, "code", "exec")
    with Image.open(picture_file) as opened:
        assert repr(str(picture_file)) in Workbench(mllm, opened).code()


def test_copied_code_follows_what_is_set(bench):
    bench._copy.click()
    assert (bench._code.shown, bench._code.code) == (1, bench.code())
    bench.settings.steps.value = 7
    bench.question = "what is it ?"
    bench.picker.regions = cm.Point(3, 4)
    assert "steps=7" in bench._code.code
    assert "what is it ?" in bench._code.code
    assert "cm.Point(3.0, 4.0)" in bench._code.code
    # Only a press of the button copies.
    assert bench._code.shown == 1


def test_settings_are_the_model_s_and_taken_over(mllm, scene):
    bench = Workbench(mllm, scene.image, regions=scene.region("box"))
    assert bench.method == cm.ControlMLLM().resolve(mllm)
    settings = bench.settings
    settings.steps.value, settings.step_size.value, settings.layers.value = 2, 300.0, (1, 5)
    settings.queries.value, settings.sigma.value = "the, object", 0.3
    changed = bench.method
    assert (changed.steps, changed.step_size, changed.layers) == (2, 300.0, (1, 5))
    assert (changed.queries, changed.sigma, bench.picker.sigma) == (("the", "object"), 0.3, 0.3)
    settings.kind.value = cm.ControlMLLMPlus
    assert bench.method == cm.ControlMLLMPlus().resolve(mllm)
    settings.kind.value = cm.ControlMLLM
    assert bench.method == changed
    given = cm.ControlMLLMPlus(heads=(0, 1), contrast=0.5, queries=(-1, -2), layers=())
    bench.method = given
    assert bench.method == given.resolve(mllm)
    assert settings.heads.value == "0 1"
    settings.heads.value = "2:4, 3:1"
    assert bench.method.heads == ((2, 4), (3, 1))
    settings.heads.value = "2:x"
    with pytest.raises(cm.SettingsError, match="layer:head pairs"):
        _ = bench.method
    settings.heads.value = ""
    assert bench.method.heads is None
    settings.sigma.value = -1
    assert bench.picker.sigma == 0.4
    with pytest.raises(cm.SettingsError, match="sigma"):
        bench.run()
    settings.sigma.value, settings.queries.value = 0.4, " , "
    with pytest.raises(cm.SettingsError, match="queries must be one of"):
        _ = bench.method


def test_prompt_is_prepared_again_only_when_it_must(bench, mllm, monkeypatch, scene):
    prepared = []
    prepare = cm.Mllm.prepare
    monkeypatch.setattr(cm.Mllm, "prepare", lambda *given: (prepared.append(given[2]), prepare(*given))[1])
    bench.run()
    bench.method = cm.ControlMLLM(steps=1)
    bench.run()
    assert prepared == []
    bench.question = "what is the object ?"
    bench.run()
    bench.run()
    assert prepared == ["what is the object ?"]
    assert bench.trace.question == "what is the object ?"
    drawn = bench.picker.regions
    bench.image = scene.image.rotate(180)
    assert prepared == ["what is the object ?"] * 2
    assert bench.picker.regions == drawn
    bench.run()
    assert len(prepared) == 2
    bench.image = scene.image.resize((40, 30))
    assert bench.picker.regions == ()
    assert bench.picker in bench._picker_box.children


def test_saved_trace_reopens(bench, tmp_path):
    bench._save.click()
    assert "There is no trace to save yet" in message(bench)
    trace = bench.run()
    bench._path.value = str(tmp_path / "run.safetensors")
    bench._save.click()
    assert "Saved" in message(bench)
    assert energies(cm.Trace.load(tmp_path / "run.safetensors")) == energies(trace)
    bench._path.value = str(tmp_path / "no" / "run.safetensors")
    bench._save.click()
    assert "The folder of an output path must exist" in message(bench)
    assert not bench.running


def test_repr_and_static_fallback(bench):
    assert repr(bench).startswith("Workbench('describe the object.', RegionPicker(image")
    data = bench._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/html"] == bench._prompt._repr_html_()
    bench.run()
    assert bench._repr_mimebundle_()["text/html"] == bench.trace._repr_html_()


def test_saved_while_it_runs(bench, expected, tmp_path):
    async def steer():
        task = bench.steer()
        await until(lambda: steps_so_far(bench) == 2)
        bench._path.value = str(tmp_path)
        bench._save.click()
        assert "must name a file" in message(bench)
        assert (bench.running, bench.trace.stopped) == (True, "running")
        bench._path.value = str(tmp_path / "run.safetensors")
        bench._save.click()
        await task

    asyncio.run(steer())
    assert energies(cm.Trace.load(tmp_path / "run.safetensors")) == energies(expected)[:2]
    assert (bench.trace.stopped, energies(bench.trace)) == ("finished", energies(expected))


def test_cancelled_task_leaves_the_panel_free(bench):
    async def steer():
        task = bench.steer()
        await until(lambda: steps_so_far(bench) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(steer())
    assert not bench.running
    assert bench.run().stopped == "finished"
