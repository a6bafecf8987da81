"""Videos in every family that takes them, on tiny random models: the layout in space and time is what probing finds.

transformers' video processors work on torchvision alone, so that these run in the second run of `make test`.
"""

import re
import runpy
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_same, snapshot
from PIL import Image
from test_families import assert_boxes_alike, assert_equals_eager, own_logits
from tiny_families import TINY
from transformers.utils import is_torchvision_available

import cmllm_tools as cm
from cmllm_tools.inputs.conversation import Timing
from cmllm_tools.layout.probe import probe
from cmllm_tools.models.families import FAMILIES
from cmllm_tools.models.family import PROJECTOR, TILES

pytestmark = pytest.mark.slow
QUESTION = "describe the object ."
SIZE = (120, 80)
FRAMES = 5
METHOD = cm.ControlMLLMPlus(steps=4, layers=(), step_size=0.1, relative=True)
TAKE_VIDEOS = [family.name for family in FAMILIES.values() if family.video is not None]


def frame(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), np.uint8))


VIDEO = [frame(seed) for seed in range(FRAMES)]


def asked(mllm, frames):
    return mllm.prepare(cm.read_video(frames, fps=2), QUESTION)


def states_of(mllm, number, picture):
    """The visual states with one frame's picture replaced."""
    changed = asked(mllm, [*VIDEO[:number], picture, *VIDEO[number + 1 :]])
    return changed.call.visual_states.float().numpy()


@pytest.fixture(scope="module", params=TAKE_VIDEOS if is_torchvision_available() else [])
def watched(request, tmp_path_factory):
    """(mllm, prompt of a video) of one family, saved and loaded back."""
    folder = tmp_path_factory.mktemp(request.param)
    model, processor = TINY[request.param]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    mllm = cm.load(folder)
    prompt = asked(mllm, VIDEO)
    own_logits(mllm, prompt)
    before = snapshot(mllm)
    yield mllm, prompt
    assert_same(before, snapshot(mllm))


def test_a_frame_moves_the_tokens_whose_span_it_is_in(watched):
    mllm, prompt = watched
    layout = prompt.layout
    spans = layout.spans
    assert spans.min() == 0
    assert spans.max() == FRAMES - 1
    before = prompt.call.visual_states.float().numpy()
    for number in range(FRAMES):
        moved = np.linalg.norm(states_of(mllm, number, frame(99)) - before, axis=1) > 1e-4 * np.linalg.norm(before, axis=1)
        expected = (spans[:, 0] <= number) & (number <= spans[:, 1])
        assert moved[expected].mean() > 0.9
        assert not moved[~expected].any()
        assert expected.nonzero()[0].tolist() == list(range(len(layout)))[layout.tokens_of(number)]


@pytest.mark.parametrize("number", [0, 3])
def test_boxes_in_a_frame_are_those_that_probing_finds(watched, number):
    mllm, prompt = watched
    found = probe(lambda picture: states_of(mllm, number, picture), SIZE, pieces=1)
    seen = np.flatnonzero(found.placed(SIZE))
    own = np.arange(len(prompt.layout))[prompt.layout.tokens_of(number)]
    probed = {prompt.visual[at]: found.boxes[at] for at in seen}
    layout = prompt.layouts[number]
    assert_boxes_alike({prompt.visual[at]: box for at, box in zip(own, layout.boxes, strict=True)}, probed, layout)


def test_a_region_counts_in_its_frames_alone(watched):
    layout = watched[1].layout
    x0, y0, x1, y1 = layout.layouts[0].seen
    box = cm.Box(x0, y0, (x0 + x1) / 2, (y0 + y1) / 2)
    share, spans = layout.layouts[0].inside(box), layout.spans
    for first, last in ((2, 2), (0, 3), (1, 4)):
        weights = layout.inside(box.during((first, last)))
        # The share of what a token sees: of its box, and of its frames.
        times = [sum(first <= each <= last for each in range(a, b + 1)) / (b - a + 1) for a, b in spans]
        np.testing.assert_allclose(weights, np.tile(share, len(layout) // len(share)) * times, atol=1e-6)
    np.testing.assert_array_equal(layout.inside(box.on(2)), layout.inside(box.during(2)))


def test_attention_equals_eager_attention(watched):
    assert_equals_eager(*watched, 1e-5)


def test_the_replayed_call_gives_the_models_own_logits_and_a_map_all_of_the_attention(watched):
    mllm, prompt = watched
    hidden = prompt.call.replay().last_hidden_state[0]
    with torch.no_grad():
        torch.testing.assert_close(mllm.model.lm_head(hidden).float(), own_logits(mllm, prompt), atol=1e-4, rtol=1e-4)
    cmap = cm.context_map(cm.capture_attention(mllm, prompt))
    assert cmap.grid.sum() == pytest.approx(cmap.values.sum().item(), rel=1e-4)


def test_steering_looks_into_the_frames_and_the_answer_follows(watched, tmp_path):
    mllm, prompt = watched
    x0, y0, x1, y1 = prompt.layouts[0].seen
    box = cm.Box(x0, y0, (x0 + x1) / 2, (y0 + y1) / 2, frames=(2, 3))
    outcome = cm.refer(mllm, cm.read_video(VIDEO, fps=2), QUESTION, box, METHOD)
    steps = outcome.trace.steps
    assert steps[-1].share > steps[0].share
    assert outcome.regions[0].region == box
    again = cm.Outcome.load(outcome.save(tmp_path / "outcome.safetensors"))
    np.testing.assert_array_equal(again.trace.target.weights(), outcome.trace.target.weights())
    assert again.sent.conversation.to_json() == outcome.sent.conversation.to_json()
    assert repr(again.trace.layout) == repr(prompt.layout)


def test_text_goes_on_from_the_cached_video(watched):
    """Before any step the keys' maps, of text that goes on from cached keys, are those of the whole prompt."""
    mllm, prompt = watched
    if mllm.family.no_prefix:
        with pytest.raises(cm.UnsupportedModelError, match="must be able to continue from a cached image"):
            cm.optimize(mllm, prompt, cm.Box(20, 10, 60, 40, frames=(1, 2)), cm.methods.KeySteering(steps=1))
        return
    trace = cm.optimize(mllm, prompt, cm.Box(20, 10, 60, 40, frames=(1, 2)), cm.methods.KeySteering(steps=1))
    attention = cm.capture_attention(mllm, prompt, queries=list(trace.queries), layers=trace.layers)
    expected = attention.values.mean((1, 2))
    torch.testing.assert_close(trace.steps[0].maps, expected, atol=1e-5, rtol=1e-3)


def test_a_method_draws_in_each_frame_of_the_region(watched):
    mllm, _ = watched
    outcome = cm.refer(
        mllm, cm.read_video(VIDEO, fps=2), QUESTION, cm.Box(20, 10, 60, 40, frames=(1, 2)), cm.methods.RedCircle()
    )
    sent = outcome.sent.conversation.images
    changed = [not np.array_equal(image, own) for image, own in zip(sent, VIDEO, strict=True)]
    assert changed == [False, True, True, False, False]
    assert outcome.prompt(mllm).text == outcome.sent.text
    with pytest.raises(cm.ImageError, match="frames of a video must have one size"):
        cm.refer(mllm, cm.read_video(VIDEO), QUESTION, cm.Box(20, 10, 60, 40, frames=(1, 2)), cm.methods.Crop())


def test_a_video_file_is_decoded(tmp_path):
    """By PyAV itself, which lies beside torchvision."""
    if not is_torchvision_available():
        return
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = (80, 60)
        for number in range(20):
            shade = Image.new("RGB", (80, 60), (12 * number, 0, 0))
            container.mux(stream.encode(av.VideoFrame.from_image(shade)))
        container.mux(stream.encode())
    video = cm.read_video(path, take=4)
    assert video.timing == Timing(10, (0, 6, 13, 19), 20)
    reds = [np.asarray(frame)[..., 0].mean() for frame in video.frames]
    np.testing.assert_allclose(reds, [0, 72, 156, 228], atol=8)
    written = path.read_bytes()
    path.write_bytes(written[:200])
    with pytest.raises(cm.ImageError, match=r"clip.mp4 cannot be read as a video"):
        cm.read_video(path)


def test_a_video_file_that_was_filmed_sideways_is_turned(tmp_path):
    """By the matrix in its track's header, which PyAV hands on and does not apply."""
    if not is_torchvision_available():
        return
    import av

    path, picture = tmp_path / "clip.mp4", Image.new("RGB", (96, 64))
    picture.paste("red", (0, 0, 48, 32))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = picture.size
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    written = path.read_bytes()
    at = written.index(b"tkhd") + 44
    clockwise, mirrored = (0, 1, 0, -1, 0, 0, 0, 0, 1 << 14), (-1, 0, 0, 0, 1, 0, 0, 0, 1 << 14)
    for matrix, size, corner in ((clockwise, (64, 96), (32, 0)), (mirrored, (96, 64), (48, 0))):
        turned = struct.pack(">9i", *(value << 16 for value in matrix))
        path.write_bytes(written[:at] + turned + written[at + 36 :])
        expected = Image.new("RGB", size)
        expected.paste("red", (*corner, *(start + side // 2 for start, side in zip(corner, size, strict=True))))
        (frame, _) = cm.read_video(path).frames
        assert frame.size == size
        assert np.abs(np.asarray(frame, int) - np.asarray(expected)).mean() < 8


def test_the_page_on_videos_runs_as_it_stands(tmp_path, monkeypatch):
    """With a tiny model in the place of the published one; what needs no model is run by test_docs.py."""
    if not is_torchvision_available():
        return
    model, processor = TINY["qwen2_vl"]()
    model.save_pretrained(tmp_path / "qwen")
    processor.save_pretrained(tmp_path / "qwen")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs/howto/video.md").read_text(encoding="utf-8")
    names = runpy.run_path(str(Path(__file__).parents[1] / "docs/given.py"))
    blocks = re.findall(r"^```py(?:thon)?\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block.replace("Qwen/Qwen2-VL-2B-Instruct", "qwen"), "video.md", "exec"), names)  # noqa: S102
    assert len(names["outcome"].trace) == 4


def test_the_families_that_take_videos_are_those_whose_processor_does():
    assert len(TAKE_VIDEOS) >= 4
    assert {FAMILIES[name].way_in for name in TAKE_VIDEOS} == {PROJECTOR, TILES}


def test_a_processor_without_torchvision_is_refused_by_name():
    if is_torchvision_available():
        return
    mllm = cm.load(TINY["qwen2_vl"]())
    with pytest.raises(cm.UnsupportedModelError, match=r"video part of Qwen2VLProcessor, .* Install torchvision"):
        asked(mllm, VIDEO)
