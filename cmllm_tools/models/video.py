"""Videos: which models take them, what their processors are given, and where the visual tokens look in space and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import PromptError, UnsupportedModelError
from ..inputs.conversation import Timing
from ..inputs.regions import Size
from ..layout.placement import LayoutInputs
from ..layout.video import VideoLayout
from .families import FAMILIES
from .processors import VIDEO

if TYPE_CHECKING:
    from .mllm import Mllm


def check_takes_video(mllm: Mllm) -> None:
    """Refuse a model of which it is not known where it looks in a video, and a processor without its video part.

    Raises:
        UnsupportedModelError: naming the family and those that can, or what is missing.
    """
    if mllm.family.video is None:
        can = ", ".join(sorted(family.name for family in FAMILIES.values() if family.video is not None))
        raise UnsupportedModelError(
            f"A video needs a family whose layout is known in time too ({can}); {mllm.family.name} is none. Give some of "
            "its frames as images of a conversation."
        )
    if getattr(mllm.processor, VIDEO, None) is None:
        raise UnsupportedModelError(
            f"A video needs the video part of {type(mllm.processor).__name__}, which transformers has on torchvision "
            "alone; this one was loaded without. Install torchvision, and load the model again."
        )


def video_arguments(frames: list[Image.Image], timing: Timing) -> dict[str, Any]:
    """What a processor is given: all frames are seen, at their own times."""
    width, height = frames[0].size
    metadata = {
        "total_num_frames": timing.total,
        "fps": timing.fps,
        "frames_indices": list(timing.numbers),
        "width": width,
        "height": height,
        "duration": timing.total / timing.fps,
    }
    pixels = np.stack([np.asarray(frame) for frame in frames])
    return {"videos": [pixels], "video_metadata": [metadata], "do_sample_frames": False}


def frame_token_id(mllm: Mllm, inputs: dict[str, Any]) -> int:
    """Token that stands for frames in a video's prompt: some families have one for them, others write them as images."""
    own = mllm.video_token_id
    return own if bool((inputs["input_ids"] == own).any()) else mllm.image_token_id


def video_laid_out(
    mllm: Mllm, size: Size, frame_count: int, inputs: dict[str, Any], count: int
) -> tuple[np.ndarray, VideoLayout]:
    """Numbers of the visual tokens among the states that may be visual, ascending, and their layout.

    Args:
        size: (width, height) of a frame.
        frame_count: how many frames there are.
        inputs: the processor's tensors.
        count: how many states may be visual.

    Raises:
        PromptError: for fewer frames than one token sees.
        UnsupportedModelError: where the family's rule does not fit the states.
    """
    rule = mllm.family.video
    if rule is None:
        raise UnsupportedModelError(f"A {mllm.family.name} model has no rule for videos.")
    per_token = int(getattr(getattr(mllm.processor, VIDEO), "temporal_patch_size", 1))
    if frame_count < per_token:
        raise PromptError(f"A video for {mllm.name} must have at least {per_token} frames; got {frame_count}.")
    steps = -(-frame_count // per_token)
    # What does not fill another step stands at the end, and looks nowhere (the end of a line).
    each = count // steps
    placement = rule(LayoutInputs(mllm.model, mllm.processor, size, _of_one_step(inputs), each, VIDEO))
    if len(placement.boxes) != each:
        raise UnsupportedModelError(
            f"The video rule of {mllm.family.name} must give a box for each of the {each} states of a step in time; it "
            f"gave {len(placement.boxes)} ({placement.rule}). Check that processor and model belong together."
        )
    placed = np.flatnonzero(placement.placed(size))
    chosen = (np.arange(steps)[:, None] * each + placed).ravel()
    return chosen, VideoLayout.of_video(placement.layout(size), frame_count, per_token)


def _of_one_step(inputs: dict[str, Any]) -> dict[str, Any]:
    """The tensors as a rule for images reads them, of the first frames alone."""
    found = {name.replace("video_grid", "image_grid").removesuffix("_videos"): value for name, value in inputs.items()}
    pixels = found["pixel_values"]
    # (frame, channel, height, width), with or without an axis of videos; patches in a row have no such axes.
    return found | ({"pixel_values": pixels.flatten(0, -4)[:1]} if pixels.dim() > 3 else {})
