"""The workbench's tab of layers: what it looks into, and what it hands to the settings."""

import pytest
import torch
from conftest import PLUS

import cmllm_tools as cm
from cmllm_tools.analysis import Choice, Sweep
from cmllm_tools.widgets.subject import AFTER, BEFORE


def test_it_looks_at_what_the_panel_shows(mllm, bench, scene):
    explorer = bench.layers.look()
    prompt = mllm.prepare(scene.image, "describe the object.")
    expected = cm.capture_attention(mllm, prompt, queries="text").values
    torch.testing.assert_close(explorer.attention.values[:, :, : expected.shape[2]], expected)
    assert explorer.regions == tuple(bench.picker.regions)
    assert explorer.answer == mllm.generate(prompt)
    bench.question = "what is at the left ?"
    assert bench.layers.look().prompt.question == "what is at the left ?"
    # The method's layers, some of all, are named where the mean of all is shown.
    assert "the settings have layers 0..2 (3)" in bench.layers._note.children[0].value
    assert bench.layers._box.children == (bench.layers.explorer,)


def test_it_opens_with_the_tokens_layer_and_head_of_the_settings_and_follows_the_tokens(mllm, bench):
    bench.method = cm.ControlMLLMPlus(steps=1, layers=(2, 3), heads=(4,), queries="last")
    explorer = bench.layers.look()
    last = explorer.prompt.positions("last")
    assert (explorer.queries, explorer.layer, explorer.head) == (last, 2, 4)
    bench.settings.queries.value = "object"
    assert explorer.queries == explorer.prompt.positions("object")
    explorer.queries = last
    bench.settings.steps.value = 2
    assert explorer.queries == last
    bench.settings.queries.value = "zebra"
    assert explorer.queries == last
    bench.settings.queries.value = "last"
    bench.settings.layers.value = (0, 2)
    explorer = bench.layers.look()
    assert (explorer.layer, explorer.head) == (None, 4)


def test_another_question_makes_a_look_one_of_the_past(bench):
    stale, question = bench.layers._stale, bench.question
    bench.question = "what is at the left ?"
    assert stale.value == ""
    queries = bench.layers.look().queries
    bench.question = question
    assert "from before the last change" in stale.value
    assert "press Look" in stale.value
    bench.question = "what is at the left ?"
    assert stale.value == ""
    # Nor is a look before steering one after it.
    bench.layers._when.value = AFTER
    assert "press Look" in stale.value
    bench.layers._when.value = BEFORE
    assert stale.value == ""
    bench.question = question
    # Tokens of another question are not chosen in it.
    bench.settings.queries.value = "last"
    assert bench.layers.explorer.queries == queries
    bench.question = "what is at the left ?"
    assert stale.value == ""
    assert bench.layers.explorer.queries == bench.layers.explorer.prompt.positions("last")


@pytest.mark.slow
def test_what_is_of_the_past_is_said_to_be(bench, scene):
    stale = bench.layers._stale
    bench.run()
    assert not stale.value
    bench.layers.look()
    for change in (
        lambda: setattr(bench, "question", "what is at the left ?"),
        lambda: setattr(bench.picker, "regions", scene.region("point")),
        lambda: setattr(bench, "image", scene.image.rotate(90)),
    ):
        assert not stale.value
        change()
        assert "press Look" in stale.value
        bench.layers.look()
    bench.picker.regions = scene.region("box")
    bench.layers.look()
    bench.run()
    assert not stale.value
    bench.layers._when.value = AFTER
    bench.layers.look()
    assert not stale.value
    bench.run()
    assert "press Look" in stale.value


def test_after_a_run_it_looks_with_the_latent(mllm, bench):
    bench.layers._when.value = AFTER
    with pytest.raises(cm.SettingsError, match="press Steer first"):
        bench.layers.look()
    trace = bench.run()
    explorer = bench.layers.look()
    steered = cm.capture_attention(mllm, explorer.prompt, queries="text", latent=trace.latent).values
    torch.testing.assert_close(explorer.attention.values[:, :, : steered.shape[2]], steered)
    assert explorer.answer == trace.steps[-1].answer
    # The share of the run's own layers and queries is the trace's.
    low, high = trace.method.layers
    explorer.queries = trace.method.queries
    layers = explorer._target.to(explorer.attention.values).share(explorer._means()[1 + low : 1 + high, 0])
    assert layers.max() > trace.steps[0].share
    bench.question = "what is at the left ?"
    with pytest.raises(cm.SettingsError, match="press Steer first"):
        bench.layers.look()
    bench.layers._when.value = BEFORE
    assert bench.layers.look().answer


def test_a_failure_is_shown_in_the_panel(bench):
    bench.layers._when.value = AFTER
    bench.layers._look.click()
    assert "press Steer first" in bench.layers._message.value
    assert isinstance(bench.error, cm.SettingsError)


def test_what_is_chosen_can_be_steered_with(bench):
    with pytest.raises(cm.SettingsError, match="press Look first"):
        bench.layers.use()
    explorer = bench.layers.look()
    explorer.queries, explorer.layer, explorer.head = "last", 2, 4
    bench.layers._use.click()
    assert (bench.method.queries, bench.method.layers, bench.method.heads) == ("last", (2, 3), (4,))
    assert bench.run().method.heads == (4,)
    explorer.layer = explorer.head = None
    explorer.queries = ["object"]
    bench.layers.use()
    assert (bench.method.queries, bench.method.layers, bench.method.heads) == (explorer.queries, (2, 3), None)
    explorer.queries = [explorer.attention.queries[-1]]
    with pytest.raises(cm.SettingsError, match="Tokens of the answer"):
        bench.layers.use()


def test_copied_code_follows_a_head_that_is_chosen(bench):
    bench.method = cm.ControlMLLMPlus(steps=1, layers=(2, 3), queries="text")
    bench._copy.click()
    explorer = bench.layers.look()
    explorer.layer, explorer.head = 2, 4
    bench.layers.use()
    assert "heads=(4,)" in bench._code.code


def test_tokens_of_another_question_are_not_steered_with(bench):
    bench.layers.look().queries = ["object"]
    method, bench.question = bench.method, "what is at the left ?"
    bench.layers._use.click()
    assert "press Look" in bench.layers._message.value
    assert bench.method == method


def test_a_choice_that_the_model_does_not_have_is_told_in_the_panel(bench):
    sweep = Sweep.empty("another", PLUS, [Choice((0, 40), "text")], ["a"])
    sweep.values[:] = 1.0
    bench.layers.sweep = sweep
    bench.layers._found.children[0].value = sweep.choices[0]
    assert "layers must be a window" in bench.layers._message.value


def test_a_sweeps_choices_can_be_taken_over(bench):
    choices = [Choice((0, 2), "text"), Choice((1, 4), "last")]
    sweep = Sweep.empty("embedded", PLUS, choices, ["a"])
    sweep.values[:] = [[[1.0], [2.0]]]
    bench.layers.sweep = sweep
    dropdown, page = bench.layers._found.children
    assert [option[1] for option in dropdown.options] == [None, choices[1], choices[0]]
    assert "layers 1..3 (3), last" in page.value
    dropdown.value = choices[1]
    assert (bench.method.layers, bench.method.queries, bench.method.heads) == ((1, 4), "last", None)
    bench.layers.sweep = None
    assert bench.layers._found.children == ()
