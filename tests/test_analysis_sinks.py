import numpy as np
import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.analysis.sinks import sinks_in

QUESTIONS = ["describe the object .", "what is at the left ?", "what color is the object ?"]


@pytest.fixture(scope="module")
def maps(prompt):
    """Maps of three questions: token 7 always far above the rest, token 20 for the first two only."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.001, 0.002, (3, 64)).astype(np.float32)
    values[:, 7] = 0.05, 0.03, 0.04
    values[:2, 20] = 0.05
    return [cm.ContextMap(torch.from_numpy(row), prompt.layout, (word,)) for row, word in zip(values, "abc", strict=True)]


def test_a_sink_is_above_the_median_for_every_question(maps):
    found = sinks_in(maps)
    assert found.tokens == tuple(found) == (7,)
    assert len(found) == 1
    values = maps[1].values.numpy()
    assert found.excess[1, 7] == pytest.approx(values[7] / np.median(values))
    assert found.least[20] < 2
    assert sinks_in(maps[:2]).tokens == (20, 7)
    assert sinks_in(maps, factor=100).tokens == ()
    assert found.questions == ("a", "b", "c")


def test_sinks_of_a_model_are_left_out_of_map_and_energy(mllm, prompt, box):
    found = cm.analysis.sinks(mllm, prompt.image, QUESTIONS, factor=1.2)
    assert found.questions == (*QUESTIONS, ".")
    assert found.excess.shape == (4, 64)
    again = mllm.prepare(prompt.image, QUESTIONS[1])
    values = cm.capture_attention(mllm, again).values.mean((0, 1, 2)).numpy()
    assert np.allclose(found.excess[1], values / np.median(values), rtol=1e-5)
    assert 0 < len(found) < 20
    cmap = cm.context_map(cm.capture_attention(mllm, prompt), without=found)
    assert (cmap.values[list(found)] == 0).all()
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1, without=found.tokens))
    assert (trace.maps[..., list(found)] == 0).all()


def test_the_embedded_model_has_no_strong_sinks(mllm, prompt):
    """Nothing on an image of the embedded model gets five times the median whatever is asked: a fact of this model."""
    assert len(cm.analysis.sinks(mllm, prompt.image, QUESTIONS)) == 0


def test_sinks_show_themselves(maps):
    page = sinks_in(maps)._repr_html_()
    assert page.count("<img") == 1
    assert "least attention over all questions" in page
    assert "1 of 64 visual tokens" in repr(sinks_in(maps))
    assert "0 of 64 visual tokens, with 0.0%" in sinks_in(maps, 100)._repr_html_()


def test_the_question_that_asks_nothing_is_not_counted_with_the_others(mllm, prompt):
    found = cm.analysis.sinks(mllm, prompt.image, QUESTIONS)
    assert f"for each of {len(QUESTIONS)} questions, and for '.', which asks nothing" in repr(found)
    without = cm.analysis.sinks(mllm, prompt.image, QUESTIONS, blank="")
    assert f"for each of {len(QUESTIONS)} questions, highest" in repr(without)


def test_bad_input_is_refused(mllm, prompt, maps):
    with pytest.raises(cm.SettingsError, match="at least two questions about one image; got 1"):
        sinks_in(maps[:1])
    with pytest.raises(cm.SettingsError, match="at least two questions"):
        cm.analysis.sinks(mllm, prompt.image, QUESTIONS[:1], blank="")
    with pytest.raises(cm.SettingsError, match="a sequence of texts; got 'red"):
        cm.analysis.sinks(mllm, prompt.image, "red ?")
    with pytest.raises(cm.SettingsError, match="factor must be a finite number above 1; got 1"):
        sinks_in(maps, 1)
    other = cm.VisualTokenLayout((96, 96), prompt.layout.boxes / 2, (8, 8), "half")
    with pytest.raises(cm.SettingsError, match="about one image"):
        sinks_in([maps[0], cm.ContextMap(maps[1].values, other, ("b",))])
