"""Videos: how they are read, their layout, regions in frames, what is done with them, and what refuses.

How families see them is in test_video_families.py, as their processors need torchvision; here the frames are shown to the
embedded model as images, and laid out as a video.
"""

import base64
import sys
from dataclasses import replace
from io import BytesIO
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import GifImagePlugin, Image
from tests_support import noise
from tiny_families import TINY

import cmllm_tools as cm
from cmllm_tools.analysis.region_shares import moved_over
from cmllm_tools.inputs.conversation import Timing, read_messages
from cmllm_tools.inputs.regions import Repeated, region_from_json
from cmllm_tools.layout.grid_rules import pooled, square_grid
from cmllm_tools.layout.placement import LayoutInputs
from cmllm_tools.layout.sheet import SheetLayout, own_region, region_on_sheet, sheet_corners, sheet_of, sheet_size
from cmllm_tools.layout.video import VideoLayout
from cmllm_tools.layout.visual_tokens import VisualTokenLayout, grid_boxes
from cmllm_tools.models.conversation_text import conversation_text
from cmllm_tools.models.prepare import candidates
from cmllm_tools.models.processors import VIDEO
from cmllm_tools.models.video import check_takes_video
from cmllm_tools.referring.target import Target
from cmllm_tools.referring.trace_file import _layout, saved_regions

ASK = "describe the object."
SIZE = (80, 60)
FRAMES = [Image.fromarray(np.roll(np.asarray(noise(SIZE)), 7 * number, 1)) for number in range(6)]


def grid(columns=4, rows=3):
    return VisualTokenLayout(SIZE, grid_boxes((0, 0, *SIZE), (rows, columns)), (rows, columns), "fixed grid")


# Reading.


def test_a_list_of_frames_is_read_in_every_form():
    arrays = [np.asarray(frame) for frame in FRAMES]
    forms = [FRAMES, tuple(arrays), np.stack(arrays), torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)]
    for form in forms:
        video = cm.read_video(form, fps=2)
        assert [frame.size for frame in video.frames] == [SIZE] * 6
        assert all(np.array_equal(frame, own) for frame, own in zip(video.frames, FRAMES, strict=True))
        assert video.timing.seconds == (0, 0.5, 1, 1.5, 2, 2.5)
    assert repr(cm.read_video(FRAMES)) == "Video(6 frames, 80 x 60 px, at 0.0, 1.0, 2.0, 3.0, 4.0, 5.0 s)"


def test_some_of_the_frames_are_taken_evenly():
    video = cm.read_video(FRAMES, take=3, fps=10)
    assert video.timing == Timing(10, (0, 2, 5), 6)
    assert np.array_equal(video.frames[2], FRAMES[5])
    assert len(cm.read_video(FRAMES, take=60).frames) == 6
    assert cm.read_video([FRAMES[0]] * 2000, take=3).timing.numbers == (0, 1000, 1999)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_an_animated_image_is_a_video(tmp_path, ending):
    path = tmp_path / f"clip.{ending}"
    FRAMES[0].save(path, save_all=True, append_images=FRAMES[1:], duration=200, lossless=True)
    video = cm.read_video(path, take=3)
    assert video.timing == Timing(5, (0, 2, 5), 6)
    assert np.abs(np.asarray(video.frames[1], int) - np.asarray(FRAMES[2])).mean() < 20
    assert len(cm.read_video(str(path)).frames) == 6


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_transparent_frames_are_laid_on_white(tmp_path, ending):
    """As `read_image` lays an image: what moves is alone on its ground, in the first frame and in those after it."""
    drawn = []
    for left in (5, 20, 35):
        drawn.append(Image.new("RGBA", (60, 40)))
        drawn[-1].paste((200, 0, 0, 255), (left, 10, left + 15, 30))
    path = tmp_path / f"clip.{ending}"
    drawn[0].save(
        path, save_all=True, append_images=drawn[1:], duration=200, lossless=True, disposal=2 if ending == "gif" else 1
    )
    with pytest.warns(UserWarning, match="transparent pixels; they are laid on white"):
        video = cm.read_video(path)
    for frame, left in zip(video.frames, (5, 20, 35), strict=True):
        expected = np.full((40, 60, 3), 255)
        expected[10:30, left : left + 15] = (200, 0, 0)
        np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_an_animated_image_that_is_cut_is_refused(tmp_path, ending):
    """Wherever it ends: nothing is raised but the reader's own error, and no frame is given a time that is not its own."""
    path = tmp_path / f"clip.{ending}"
    FRAMES[0].save(path, save_all=True, append_images=FRAMES[1:], duration=200, lossless=True)
    whole, refused = path.read_bytes(), 0
    for share in np.linspace(0.03, 0.97, 25):
        path.write_bytes(whole[: int(share * len(whole))])
        try:
            video = cm.read_video(path)
        except (cm.ImageError, ModuleNotFoundError):
            refused += 1
        else:
            assert len(video.frames) == len(video.timing.numbers) >= 2
    assert refused > 5


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), Image.DecompressionBombError("too many pixels"), IndexError("cut")]
)
def test_what_pillow_raises_is_an_error_of_the_video(tmp_path, monkeypatch, error):
    path = tmp_path / "clip.gif"
    FRAMES[0].save(path, save_all=True, append_images=FRAMES[1:])

    def fail(*_):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(cm.ImageError, match=rf"clip.gif cannot be read as a video: .*{error.args[-1]}"):
        cm.read_video(path)


def test_frames_that_a_file_announces_and_lacks_are_missed(tmp_path, monkeypatch):
    path = tmp_path / "clip.gif"
    FRAMES[0].save(path, save_all=True, append_images=FRAMES[1:])
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "n_frames", 9)
    with pytest.raises(cm.ImageError, match=r"clip.gif cannot be read as a video: it ends before the last of its 9 frames"):
        cm.read_video(path)


def stand_in(frames, rate=25, side_data=()):
    """PyAV, as far as it is used: a file of these frames."""
    av = ModuleType("av")
    av.FFmpegError = OSError

    class Container:
        def __init__(self):
            self.streams = SimpleNamespace(video=[SimpleNamespace(average_rate=rate)] if frames else [])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def decode(self, stream):
            return iter([SimpleNamespace(to_image=lambda frame=frame: frame, side_data=side_data) for frame in frames])

    av.open = lambda path: Container()
    return av


def test_other_files_are_decoded_by_pyav(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"clip.mp4\) is read by PyAV.* pip install 'cmllm_tools\[video\]'"):
        cm.read_video(path)
    monkeypatch.setitem(sys.modules, "av", stand_in(FRAMES))
    assert cm.read_video(path, take=3).timing == Timing(25, (0, 2, 5), 6)
    monkeypatch.setitem(sys.modules, "av", stand_in(FRAMES[:1]))
    with pytest.raises(cm.ImageError, match=r"at least two frames; clip.mp4 has 1"):
        cm.read_video(path)
    monkeypatch.setitem(sys.modules, "av", stand_in([]))
    with pytest.raises(cm.ImageError, match="has no video in it"):
        cm.read_video(path)


class SideData(np.ndarray):
    type = SimpleNamespace(name="DISPLAYMATRIX")


@pytest.mark.parametrize("turn", [(1, 0, 0, 1), (0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1), (0, 1, 1, 0)])
def test_frames_are_turned_as_the_file_says(tmp_path, monkeypatch, turn):
    """Each pixel goes where the display matrix has it: x' = a x + c y, y' = b x + d y, then into view."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    a, b, c, d = turn
    matrix = (np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14], np.int32) << 16).view(SideData)
    monkeypatch.setitem(sys.modules, "av", stand_in(FRAMES[:2], side_data=[matrix]))
    own = np.asarray(FRAMES[0])
    y, x = np.indices(own.shape[:2])
    right, down = a * x + c * y, b * x + d * y
    expected = np.zeros((np.ptp(down) + 1, np.ptp(right) + 1, 3), np.uint8)
    expected[down - down.min(), right - right.min()] = own
    np.testing.assert_array_equal(cm.read_video(path).frames[0], expected)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (FRAMES[:1], {}, "must have at least two frames; got 1. One frame is an image"),
        ([FRAMES[0]] * 1025, {}, r"At most 1024 frames of a video must be taken; got 1025. Say how many, as take=8"),
        (FRAMES[0], {}, r"must be a list of frames, an array \(frame, height, width, 3\), or a path"),
        (None, {}, "must be a list of frames"),
        ([FRAMES[0], noise((40, 40))], {}, "must have one size; got"),
        ([FRAMES[0], "nowhere.png"], {}, "There is no image at nowhere.png"),
        ("nowhere.mp4", {}, "There is no video at nowhere.mp4"),
        (
            "~nobody_of_this_name/clip.gif",
            {},
            "There is no video at ~nobody_of_this_name/clip.gif: Could not determine home",
        ),
        (".", {}, r"cannot be read as a video: it is no regular file"),
        (FRAMES, {"take": 1}, "The number of frames to take must be"),
        (FRAMES, {"fps": 0}, "fps must be"),
    ],
)
def test_what_is_no_video(given, options, message):
    with pytest.raises(cm.ImageError, match=message):
        cm.read_video(given, **options)


def test_one_image_in_a_file_is_no_video(tmp_path):
    FRAMES[0].save(tmp_path / "one.png")
    with pytest.raises(cm.ImageError, match=r"at least two frames; one.png is one image"):
        cm.read_video(tmp_path / "one.png")


# Families.


def test_other_families_refuse_by_name(mllm):
    video = cm.read_video(FRAMES)
    for ask in (lambda: mllm.prepare(video, ASK), lambda: cm.refer(mllm, video, ASK, cm.Box(1, 1, 9, 9, frames=(0, 2)))):
        with pytest.raises(cm.UnsupportedModelError, match=r"in time too \(internvl, .*qwen2_vl.*\); llava is none"):
            ask()
    with pytest.raises(cm.PromptError, match="must have a question, as prepare"):
        mllm.prepare(video)
    with pytest.raises(cm.PromptError, match="must be given with an image or a list of images"):
        mllm.prepare(video, ASK, text="<image> describe the object.")


def test_a_processor_without_its_video_part_is_named(mllm):
    class Lacking:
        family = replace(mllm.family, video=square_grid)
        processor = mllm.processor

    assert getattr(mllm.processor, VIDEO, None) is None
    with pytest.raises(cm.UnsupportedModelError, match=r"video part of LlavaProcessor, .* Install torchvision"):
        check_takes_video(Lacking())


def test_a_pooled_grid_leaves_out_what_fills_no_square():
    model = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(patch_size=8), model_type="llava"))
    inputs = {"pixel_values": torch.zeros(1, 3, 40, 40)}
    found = pooled(square_grid)(LayoutInputs(model, None, (100, 50), inputs, 4))
    np.testing.assert_allclose(found.boxes, grid_boxes((0, 0, 80, 40), (2, 2)))


def test_words_do_not_stand_for_what_is_shown():
    """A video's token in words about an image: refused in a question, and a word as any other in a prompt made already."""
    mllm = cm.load(TINY["qwen2_vl"]())
    with pytest.raises(cm.PromptError, match=r"A question must not contain the video placeholder '<\|video_pad\|>'"):
        mllm.prepare(FRAMES[0], "what is <|video_pad|> ?")
    for words, kind in (("<|video_pad|>", "video"), ("<|image_pad|>", "image"), ("<image>", "image")):
        talk = read_messages([{"role": "user", "content": [FRAMES[0], f"what is {words} ?"]}])
        for said in (talk, replace(talk, timing=Timing(1.0, (0,), 1))):
            with pytest.raises(cm.PromptError, match=rf"What is said must not contain the {kind} placeholder"):
                conversation_text(mllm, said)
    prompt = mllm.prepare(FRAMES[0], ASK)
    inputs = dict(prompt.inputs)
    ids = inputs["input_ids"].clone()
    # Of the words before the image.
    ids[0, 0] = mllm.video_token_id
    found, end, _ = candidates(mllm, inputs | {"input_ids": ids})
    assert found.tolist() == list(prompt.visual)
    assert end == prompt.image_end
    assert candidates(mllm, inputs | {"input_ids": ids}, video=True)[0].tolist() == [0]


# The layout, and regions.


@pytest.mark.parametrize(("frame_count", "frames_per_token"), [(6, 1), (6, 2), (5, 2), (2, 2), (9, 4)])
def test_a_token_has_a_box_and_a_span_of_frames(frame_count, frames_per_token):
    layout = VideoLayout.of_video(grid(), frame_count, frames_per_token)
    steps = -(-frame_count // frames_per_token)
    assert len(layout) == 12 * steps
    assert layout.sizes == (SIZE,) * frame_count
    assert layout.spans[::12].tolist() == [
        [first, min(first + frames_per_token, frame_count) - 1] for first in range(0, frame_count, frames_per_token)
    ]
    corners = sheet_corners(layout.sizes)
    for number in range(frame_count):
        own = layout.tokens_of(number)
        assert (layout.spans[own, 0] <= number).all()
        assert (number <= layout.spans[own, 1]).all()
        left, top = corners[number // frames_per_token * frames_per_token]
        np.testing.assert_allclose(layout.boxes[own], grid().boxes + np.array([left, top, left, top]))
    again = VisualTokenLayout.from_json(layout.to_json())
    assert repr(again) == repr(layout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("frames"), "these differ: frames"),
        (lambda data: data.update(frames=1 << 40), r"A stored layout's frames must .*1024"),
        (lambda data: data.update(frames=1), "The number of a video's frames must"),
        (lambda data: data.update(frames_per_token=7), "The number of frames that a token sees must"),
        (lambda data: data.update(video=dict(data)), "these differ: .*video"),
        (lambda data: data["video"].update(grid=[1 << 19, 1 << 19]), "not many times more cells"),
        (lambda data: data["video"]["boxes"][0].__setitem__(0, 1e12), "must be x0 <= x1 and y0 <= y1, in pixels"),
        (lambda data: data["video"]["boxes"][0].__setitem__(0, "x"), "must be finite numbers of shape"),
        (lambda data: data["video"].pop("boxes"), "these differ: boxes"),
        (lambda data: (data.update(images=[data["video"]]), data.pop("video")), "these differ"),
    ],
)
def test_a_stored_layout_that_cannot_be(change, message):
    """Read alone or in a trace: the one reader refuses it."""
    data = VideoLayout.of_video(grid(), 6, 2).to_json()
    change(data)
    with pytest.raises(cm.UnsupportedModelError, match=message):
        VisualTokenLayout.from_json(data)
    with pytest.raises(cm.TraceError, match=rf"The layout cannot be read: .*{message}"):
        _layout(data, "The layout")


def test_a_map_is_spread_over_the_frames_that_each_token_sees():
    layout = VideoLayout.of_video(grid(), 6, 2)
    values = np.arange(36, dtype=np.float32)
    raster = layout.raster(values)
    assert raster.shape == layout.grid == (7, 19)
    assert raster.sum() == pytest.approx(values.sum(), rel=1e-5)
    for number in range(6):
        row, column = number // 4 * 4, number % 4 * 5
        np.testing.assert_allclose(
            raster[row : row + 3, column : column + 4], values[layout.tokens_of(number)].reshape(3, 4) / 2
        )
    assert layout.cells[0, 0].tolist() == grid().boxes[0].tolist()
    assert layout.cells[-1, -1, 2:].tolist() == list(sheet_size(layout.sizes))
    assert layout.seen == (0, 0, *sheet_size(layout.sizes))


def test_frames_stand_four_in_a_row():
    assert [corner[1] for corner in sheet_corners([SIZE] * 6)] == [0] * 4 + [62] * 2
    assert sheet_of(FRAMES).size == sheet_size([SIZE] * 6) == (4 * 80 + 3 * 2, 2 * 60 + 2)
    assert sheet_size([SIZE] * 3) == (3 * 80 + 2 * 2, 60)


BOX = cm.Box(10, 5, 50, 45)
REGIONS = [
    BOX,
    cm.Point(20, 30),
    cm.Scribble([(5, 5), (30, 40)]),
    cm.Mask(np.pad(np.ones((20, 30), bool), ((10, 30), (20, 30)))),
]


def on_corners(*frames):
    return Repeated(BOX, [sheet_corners([SIZE] * 6)[number] for number in frames], SIZE)


def test_a_region_weighs_space_and_time():
    layout, share = VideoLayout.of_video(grid(), 6, 2), grid().inside(BOX)
    np.testing.assert_allclose(layout.inside(BOX.during((2, 3))), [*(0 * share), *share, *(0 * share)])
    np.testing.assert_allclose(layout.inside(BOX.during((1, 2))), np.concatenate([share / 2, share / 2, 0 * share]))
    np.testing.assert_allclose(layout.inside(BOX.during(5)), np.concatenate([0 * share, 0 * share, share / 2]))
    np.testing.assert_array_equal(layout.inside(BOX.during(3)), layout.inside(BOX.on(3)))
    odd = VideoLayout.of_video(grid(), 5, 2)
    np.testing.assert_allclose(odd.inside(BOX.during(4)), np.concatenate([0 * share, 0 * share, share]))
    whole = cm.Box(0, 0, *SIZE, frames=(0, 5))
    np.testing.assert_allclose(layout.inside(whole), 1)


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: type(region).__name__)
def test_a_region_on_frames_goes_to_the_sheet_and_back(region):
    layout = VideoLayout.of_video(grid(), 6, 1)
    given = region.during((2, 4))
    (shown,) = layout.on_sheet(given)
    assert isinstance(shown, Repeated)
    assert shown.soft == region.soft
    assert repr(shown) == repr(given)
    assert own_region(shown, layout.sizes) == own_region(given, layout.sizes) == region
    assert region_on_sheet(shown, layout.sizes) is shown
    measure = layout.distance if region.soft else layout.inside
    np.testing.assert_array_equal(measure(shown), measure(given))
    again = region_from_json(shown.to_json(), sheet_size(layout.sizes))
    assert (again, again.soft, hash(again)) == (shown, region.soft, hash(shown))
    assert saved_regions([shown.to_json()], sheet_size(layout.sizes)) == (shown,)
    # Its area is that of the region on each of the frames.
    width, height = sheet_size(layout.sizes)
    area = shown.areas(np.array([0.0, width]), np.array([0.0, height]), (width, height))[1, 1]
    assert area == pytest.approx(3 * region.areas(np.array([0.0, 80]), np.array([0.0, 60]), SIZE)[1, 1])
    assert shown.cover(width, height).sum() == pytest.approx(3 * region.cover(*SIZE).sum())
    assert len(shown.outline()) == 3 * len(region.outline())
    assert shown.moved(1, 1).region == given.moved(1, 1)
    x0, y0, x1, y1 = shown.bounds
    assert (x0, y0) >= (0, 0)
    assert (max(x1, width), max(y1, height)) == (width, height)


def test_a_soft_region_counts_in_its_frames_alone():
    layout = VideoLayout.of_video(grid(), 6, 2)
    weights = Target.of(layout, cm.Point(20, 30, frames=(2, 3)), 0.4).weights()
    alone = Target.of(grid(), cm.Point(20, 30), 0.4).weights()
    torch.testing.assert_close(weights, torch.cat([0 * alone, alone, 0 * alone]))
    # Whole where one of a token's two frames is among them, as the documents say.
    weights = Target.of(layout, cm.Point(20, 30, frames=(1, 2)), 0.4).weights()
    torch.testing.assert_close(weights, torch.cat([alone, alone, 0 * alone]))


def test_a_region_keeps_its_frames():
    box = BOX.during((2, 5))
    assert repr(box) == "Box(x0=10, y0=5, x1=50, y1=45, frames=(2, 5))"
    assert box == cm.Box(10, 5, 50, 45, frames=(2, 5)) != BOX
    for region in (each.during((2, 5)) for each in REGIONS):
        assert region.moved(1, 1).frames == (2, 5)
        assert region.on(3).frames is None
        again = region_from_json(region.to_json())
        assert (again, again.frames) == (region, (2, 5))
    assert cm.Point(1, 2, image=1).moved(1, 1).image == 1
    assert BOX.during(3).frames == (3, 3)
    assert BOX.during(3).during(None) == BOX


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cm.Box(1, 1, 9, 9, frames=(5, 2)), "the last before the first"),
        (lambda: cm.Box(1, 1, 9, 9, frames=(1, 2, 3)), "first and the last of them, from 0, or one; got"),
        (lambda: cm.Box(1, 1, 9, 9, frames="all"), "The number of a frame must be"),
        (lambda: cm.Point(1, 1, frames=(-1, 2)), "The number of a frame must be"),
        (lambda: cm.Scribble([(1, 1)], frames=2, image=1), "on an image or on frames of a video; got image=1 and frames=2"),
        (
            lambda: VideoLayout.of_video(grid(), 6, 2).inside(BOX.during((4, 6))),
            "must be of the video's 6, numbered from 0",
        ),
        (lambda: grid().inside(BOX.during((0, 1))), "those of a video, which this prompt does not have"),
        (lambda: grid().on_sheet(BOX.during((0, 1))), "those of a video, which this prompt does not have"),
        (
            lambda: own_region(on_corners(1, 4), [SIZE] * 6),
            r"that follow one another; got .* on frames 1, 4. Give a region of",
        ),
        (
            lambda: VideoLayout.of_video(grid(), 6, 1).inside(on_corners(3, 2)),
            "that follow one another; got .* on frames 3, 2",
        ),
        (
            lambda: VideoLayout.of_video(grid(), 6, 1).inside(on_corners(2, 2)),
            "that follow one another; got .* on frames 2, 2",
        ),
        (lambda: Repeated(BOX, [], SIZE), "must have the corner of each on the sheet"),
        (lambda: Repeated(cm.Box(1, 1, 99, 9), [(0, 0)], SIZE), "must lie within the image of 80 x 60 px"),
        (lambda: Repeated(Repeated(BOX, [(0, 0)], SIZE), [(0, 0)], SIZE), "not on several itself"),
        (lambda: Repeated(BOX, [(0, 0), (90, 0)], SIZE).check(100, 60), "within the sheet of 100 x 60 px"),
    ],
)
def test_regions_on_frames_that_cannot_be(make, message):
    with pytest.raises(cm.RegionError, match=message):
        make()


def test_frames_of_images_are_refused(mllm):
    talk = [{"role": "user", "content": [FRAMES[0], FRAMES[1], ASK]}]
    box = cm.Box(1, 1, 30, 30, frames=(0, 1))
    for given, question in ((talk, None), (FRAMES[0], ASK)):
        with pytest.raises(cm.RegionError, match="those of a video, and what is shown is none"):
            cm.refer(mllm, given, question, box)
    with pytest.raises(cm.RegionError, match="those of a video, which this prompt does not have"):
        cm.optimize(mllm, mllm.prepare(talk), box, cm.ControlMLLMPlus(steps=1))


def test_a_video_that_was_tampered_with_is_refused():
    size = sheet_size([SIZE] * 6)
    data = Repeated(REGIONS[-1], [(0, 0)], SIZE).to_json()
    for change, message in (
        ({"size": [800, 600]}, "a frame must fit its sheet"),
        ({"region": data}, "not on several itself"),
        ({"region": data["region"] | {"size": [6000, 8000]}}, "masks must have the image's size"),
    ):
        with pytest.raises(cm.TraceError, match=message):
            saved_regions([data | change], size)


# What is done with a video.


@pytest.fixture(scope="module")
def watched(mllm):
    """A prompt whose images are laid out as the frames of a video, one frame to a token."""
    asked = [{"role": "user", "content": [*FRAMES, ASK]}]
    prompt = mllm.prepare(asked)
    talk = replace(prompt.conversation, timing=Timing(2.0, tuple(range(6)), 6))
    return replace(prompt, layout=VideoLayout.of_video(prompt.layouts[0], 6, 1), conversation=talk)


def test_what_is_shown_of_several_images_is_shown_of_a_video(mllm, watched, tmp_path):
    assert len(watched.images) == len(watched.layouts) == 6
    box = cm.Box(20, 15, 50, 45, frames=(2, 3))
    trace = cm.optimize(mllm, watched, box, cm.ControlMLLMPlus(steps=3))
    assert trace.steps[-1].share > trace.steps[0].share
    again = cm.Trace.load(trace.save(tmp_path / "run.safetensors"))
    assert again.regions == trace.regions
    assert isinstance(again.layout, VideoLayout)
    np.testing.assert_array_equal(again.target.weights(), trace.target.weights())
    assert "frames=(2, 3)" in repr(trace.facts())
    assert trace._repr_html_()
    cmap = cm.context_map(cm.capture_attention(mllm, watched))
    assert cmap._repr_html_()
    assert cm.figures.map_on_image(cmap, watched.image, box).to_json()
    assert cm.figures.map_on_image(cmap, watched.image, cm.Point(20, 30, image=3)).to_json()


def test_head_shares_are_compared_with_places_in_the_same_frames(mllm, watched):
    heads = cm.capture_attention(mllm, watched)
    for box in (cm.Box(20, 15, 30, 25, frames=(2, 3)), cm.Box(20, 15, 30, 25, image=2)):
        assert cm.analysis.head_shares(heads, box).values.max() > 0


def test_each_of_several_regions_is_moved_on_its_own_frames(watched):
    several = [cm.Box(20, 15, 30, 25, frames=(2, 3)), cm.Box(30, 25, 40, 35, image=5)]
    places = moved_over(watched.layout, several)
    assert len(places) > 1
    for first, second in places:
        assert (first.frames, first.image, second.frames, second.image) == ((2, 3), None, None, 5)
        np.testing.assert_allclose(np.subtract(first.bounds, second.bounds), -10)


def test_regions_on_images_of_several_sizes_are_moved_where_all_of_them_are():
    small = VisualTokenLayout((40, 30), grid_boxes((0, 0, 40, 30), (3, 4)), (3, 4), "fixed grid")
    layout = SheetLayout.of([grid(), small])
    places = moved_over(layout, [cm.Box(1, 1, 9, 9, image=0), cm.Box(1, 1, 9, 9, image=1)])
    assert places
    for first, second in places:
        assert (first.image, second.image) == (0, 1)
        second.check(40, 30)


def test_frames_of_several_sizes_are_no_video(watched):
    with pytest.raises(cm.ImageError, match=r"one size; got 40 x 40 px, 80 x 60 px. A method that crops"):
        watched.conversation.showing([*FRAMES[:5], noise((40, 40))])


def test_a_picker_draws_on_one_frame(watched):
    picker = cm.widgets.RegionPicker(watched.image, cm.Box(20, 15, 50, 45, image=3), watched.layout)
    np.testing.assert_allclose(picker.weights(), watched.layout.inside(cm.Box(20, 15, 50, 45, image=3)))
    with pytest.raises(cm.RegionError, match="A picker's regions are each on one frame"):
        cm.widgets.RegionPicker(watched.image, cm.Box(20, 15, 50, 45, frames=(1, 3)), watched.layout)


# The player.


@pytest.mark.parametrize("frames_per_token", [1, 2])
def test_the_player_has_the_map_of_each_frame(mllm, watched, frames_per_token):
    box = cm.Box(20, 15, 50, 45, frames=(2, 3))
    trace = cm.optimize(mllm, watched, box, cm.ControlMLLMPlus(steps=1))
    layout = VideoLayout.of_video(watched.layouts[0], 6, frames_per_token)
    steps = [replace(step, maps=step.maps[:, : len(layout)]) for step in trace.steps]
    trace = replace(trace, layout=layout, steps=steps)
    player = cm.widgets.StepPlayer(trace)
    data = player.data
    cells = (len(data["xs"]) - 1) * (len(data["ys"]) - 1)
    assert data["size"] == list(SIZE)
    assert player.frame == 2
    for step, sent in zip(trace.steps, data["steps"], strict=True):
        raw = np.frombuffer(base64.b64decode(sent["maps"]), "<u2").reshape(len(trace.layers), -1) / 65535
        maps = raw * np.array(sent["peaks"])[:, None]
        for number, frame in enumerate(data["frames"]):
            own = step.maps.numpy()[:, layout.tokens_of(number)]
            np.testing.assert_allclose(maps[:, frame["begin"] : frame["begin"] + cells], own, atol=1e-5 * maps.max())
    pictures = [Image.open(BytesIO(base64.b64decode(frame["image"].split(",")[1]))) for frame in data["frames"]]
    for image, own in zip(pictures, FRAMES, strict=True):
        assert image.size == SIZE
        assert np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(own)).mean() < 20
    lines = [[[20, 15], [50, 15], [50, 45], [20, 45], [20, 15]]]
    assert [[each["lines"] for each in frame["outlines"]] for frame in data["frames"]] == [
        [lines] if number in (2, 3) else [] for number in range(6)
    ]
    assert "begin" in player.to_html()
    player.frame = 5
    for wrong in (6, -1):
        with pytest.raises(cm.TraceError, match=rf"frame must lie in 0\.\.5, of 6 in the trace; got {wrong}"):
            player.frame = wrong
    assert player.frame == 5


def test_the_player_of_an_image_has_no_frames(mllm, prompt, box):
    trace = cm.optimize(mllm, prompt, box, cm.ControlMLLMPlus(steps=1))
    assert "frames" not in cm.widgets.StepPlayer(trace).data
    with pytest.raises(cm.TraceError, match=r"frame must lie in 0\.\.0, of 1"):
        cm.widgets.StepPlayer(trace, frame=1)
    with pytest.raises(cm.TraceError, match="The player's frame must be a whole number"):
        cm.widgets.StepPlayer(trace, frame="first")
