"""The strip of an answer's tokens, by itself and in the workbench, and the look before the first run."""

import asyncio
import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from test_step_player import state_of
from tests_support import noise
from tiny_families import TINY

import cmllm_tools as cm
from cmllm_tools.widgets import AnswerStrip
from cmllm_tools.widgets.answer_strip import strip_data


@pytest.fixture(scope="module")
def trace(mllm, prompt, box):
    return cm.trace_answer(mllm, prompt, regions=[box, cm.Point(3, 3)])


def test_maps_and_shares_survive_the_way_to_the_browser(trace):
    data = strip_data(trace)
    assert json.loads(json.dumps(data)) == data
    assert [token["text"] for token in data["tokens"]] == list(trace.words)
    for number, token in enumerate(data["tokens"]):
        map_ = np.frombuffer(base64.b64decode(token["map"]), "<u2") / 65535 * token["peak"]
        expected = 100 * trace.maps[number] / trace.maps[number].sum()
        assert np.abs(map_ - expected.numpy()).max() < 1e-4 * token["peak"]
        assert map_.sum() == pytest.approx(100, rel=1e-3)
        assert token["shares"] == trace.shares[number].tolist()
        assert token["on_image"] == pytest.approx(trace.on_image[number].item())
        assert token["heads"] == [list(each) for each in trace.top_heads(number, 3)]
        begin, end = token["span"]
        assert str(trace.answer)[begin:end] == trace.words[number]


def test_without_regions_and_of_a_text_that_was_given(mllm, prompt):
    data = strip_data(cm.trace_answer(mllm, prompt, answer="red cross", layers=[1], heads=[(1, 2)]))
    assert (data["where"], data["of"], data["mean"]) == ("", "attention", "mean over layer 1, chosen heads")
    assert [token["span"] for token in data["tokens"]] == [[0, 0]] * 2
    assert data["tokens"][0]["shares"] == []


@pytest.mark.parametrize(("maps", "of"), [("activation", "activation"), ("grad_cam", "Grad-CAM")])
def test_other_maps_are_not_said_to_be_attention(mllm, prompt, maps, of):
    data = strip_data(cm.trace_answer(mllm, prompt, answer="red cross", maps=maps))
    # A mean over layers and heads is what attention is; see tests/js/answer_words.test.js for the sentences.
    assert (data["of"], data["mean"]) == (of, "")


def test_tokens_are_checked(trace):
    strip = AnswerStrip(trace, token=-1)
    assert strip.token == len(trace) - 1
    assert repr(strip).startswith(f"AnswerStrip(token {len(trace) - 1} {trace.words[-1]!r}, ")
    for wrong in (len(trace), -len(trace) - 1):
        with pytest.raises(cm.PromptError, match="The strip's token must lie in"):
            strip.token = wrong
    assert strip.token == len(trace) - 1
    with pytest.raises(cm.PromptError, match=r"must be one from cm\.trace_answer"):
        AnswerStrip(None)


def test_a_page_of_it_holds_its_state(trace, tmp_path):
    strip = AnswerStrip(trace, token=1)
    page = strip.write_html(tmp_path / "strip.html").read_text("utf-8")
    assert state_of(page)["token"] == 1
    assert state_of(page)["data"]["tokens"] == strip.data["tokens"]
    assert "AnswerTrace" in strip._repr_mimebundle_()[0]["text/html"]


# In the workbench.


def test_the_tab_offers_what_speaks_for_each_token(mllm, bench, scene):
    bench.run()
    bench.answer.read()
    bench.answer._when.value, bench.answer._maps.value = "after", "grad_cam"
    assert "from before the last change" in bench.answer._stale.value
    found = bench.answer.read().trace
    expected = cm.trace_answer(
        mllm, bench._prompt, bench.trace, regions=scene.region("box"), answer=bench.answers[1], maps="grad_cam"
    )
    assert (found.of, found.words) == ("Grad-CAM", expected.words)
    assert np.allclose(found.maps, expected.maps, atol=1e-6)
    bench.answer._maps.value = "attention"
    assert "from before the last change" in bench.answer._stale.value


def test_the_tab_offers_no_map_that_the_model_cannot_give(bench):
    names = [name for name, _ in bench.answer._maps.options]
    assert names == ["attention", "activation (TAM)", "Grad-CAM"]
    beside = cm.widgets.Workbench(cm.load(TINY["mllama"]()), noise((50, 40)), "what is the red object ?")
    assert [name for name, _ in beside.answer._maps.options] == ["attention", "Grad-CAM"]
    beside.close()


def test_read_before_and_after_steering(mllm, bench, scene):
    assert "step through the answer" in bench.answer._box.children[0].value
    strip = bench.answer.read()
    assert str(strip.trace.answer) == mllm.generate(bench._prompt)
    assert bench.answer._box.children == (strip,)
    layers = bench.settings.latent_method.layers
    assert strip.trace.layers == tuple(range(*layers))
    bench.answer._when.value = "after"
    bench.answer._read.click()
    assert "press Steer first" in bench.answer._message.value
    bench.run()
    assert "from before the last change" in bench.answer._stale.value
    after = bench.answer.read()
    assert after.trace.answer.ids == bench.trace.steps[-1].answer.ids
    expected = cm.trace_answer(
        mllm, bench._prompt, bench.trace, regions=scene.region("box"), answer=bench.answers[1], layers=range(*layers)
    )
    np.testing.assert_allclose(after.trace.maps, expected.maps, atol=1e-6)
    assert bench.answer._stale.value == ""


def test_maps_of_other_layers_and_heads_are_of_the_past(bench):
    bench.answer.read()
    stale, method = bench.answer._stale, bench.method
    bench.settings.steps.value += 1
    assert stale.value == ""
    bench.answer._when.value = "after"
    assert "press Read" in stale.value
    bench.answer._when.value = "before steering"
    assert stale.value == ""
    for other in ({"layers": (2, 3)}, {"heads": (4,)}):
        bench.method = replace(method, **other)
        assert "press Read" in stale.value
        # Half typed: what it was before counts.
        bench.settings.steps.value = -1
        assert "press Read" in stale.value
        bench.method = method
        assert stale.value == ""
    bench.settings.steps.value = -1
    assert stale.value == ""
    bench.method = replace(method, layers=(2, 3))
    bench.answer.read()
    assert stale.value == ""


def test_after_a_method_that_takes_no_steps(mllm, bench):
    for method in (cm.methods.AttentionEdit(3.0), cm.methods.Crop()):
        bench.method = method
        bench.run()
        bench.answer._when.value = "after"
        strip = bench.answer.read()
        assert strip.trace.answer == bench.outcome.answer
        assert strip.trace.image.size == bench.outcome.sent.size
    bench.question = "what is it ?"
    with pytest.raises(cm.SettingsError, match="press Steer first"):
        bench.answer.read()


def test_look_first_shows_the_tokens_that_will_be_steered(mllm, bench):
    async def looked():
        return await bench.look()

    trace = asyncio.run(looked())
    assert (len(trace), trace.stopped, bench.answers) == (1, "unsteered", (mllm.generate(bench._prompt), None))
    assert "after" not in bench._answers.value
    assert bench._status.value.startswith("unsteered")
    # It is the first step of the run, and no run that one could look after.
    bench.layers._when.value = "after"
    with pytest.raises(cm.SettingsError, match="press Steer first"):
        bench.layers.look()
    np.testing.assert_array_equal(trace.steps[0].maps, bench.run().steps[0].maps)
    assert bench.answers[1] is not None


def test_look_first_of_a_method_that_takes_no_steps(mllm, bench):
    bench.method = cm.methods.Crop()
    assert bench.run(look=True).stopped == "unsteered"
    assert bench.answers == (mllm.generate(bench._prompt), None)
    bench.picker.regions = ()
    with pytest.raises(cm.RegionError, match="Draw at least one region"):
        bench.run(look=True)
