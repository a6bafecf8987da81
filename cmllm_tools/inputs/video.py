"""Reading the user's video: a list of frames, or a file of which some are taken, becomes upright RGB frames with times."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from ..errors import ImageError
from ..files import reason
from ..shown import Fact, Shown
from ..strict import number, shown, whole_number
from .conversation import Conversation, Timing, Turn
from .images import UNREADABLE, ImageSource, read_image, regular_file

# Of a file so many frames are taken, evenly, where it is not said how many.
TAKEN = 8
# Taking more is a mistyped number: each has the tokens of an image.
MOST_FRAMES = 1024

VideoSource = str | PathLike[str] | Sequence[ImageSource] | np.ndarray | Any


@dataclass(frozen=True, eq=False, repr=False)
class Video(Shown):
    """Frames of one size with their times: `mllm.prepare(video, question)`, `refer(mllm, video, question, regions)`.

    Args:
        frames: upright RGB images of one size, two or more; the model sees all of them.
        timing: when they are.

    Examples:
        >>> cm.read_video([scene.image, scene.image], fps=2)
        Video(2 frames, 192 x 192 px, at 0.0, 0.5 s)
    """

    frames: tuple[Image.Image, ...] = field(repr=False)
    timing: Timing

    def facts(self) -> list[Fact]:
        width, height = self.frames[0].size
        times = ", ".join(f"{seconds:.1f}" for seconds in self.timing.seconds)
        return [("", f"{len(self.frames)} frames"), ("", f"{width} x {height} px"), ("at", f"{times} s")]

    def asked(self, question: str) -> Conversation:
        """The turn of one user who shows the video and asks."""
        return Conversation((Turn("user", (*range(len(self.frames)), question)),), self.frames, timing=self.timing)


def read_video(video: VideoSource, *, take: int | None = None, fps: float | None = None) -> Video:
    """A video from a list of frames, or from a file.

    Args:
        video: frames in their order, each all that `read_image` takes, or an array (frame, height, width, 3); or a path. An
            animated image (GIF, WebP, PNG) is read by Pillow, any other file by PyAV.
        take: how many frames to take, evenly from the first to the last; when None all of a list, and TAKEN of a file, or
            all where it has fewer.
        fps: frames in a second: of a list, where 1 is taken when None; a file says its own.

    Raises:
        ImageError: for what cannot be read, fewer than two frames, or more than MOST_FRAMES, and several sizes.
        ModuleNotFoundError: for a file that needs PyAV where that is not installed.

    Examples:
        >>> video = cm.read_video([scene.image.rotate(angle) for angle in (0, 10, 20, 30)], fps=2)
        >>> video
        Video(4 frames, 192 x 192 px, at 0.0, 0.5, 1.0, 1.5 s)
        >>> cm.read_video(video.frames, take=2, fps=2)
        Video(2 frames, 192 x 192 px, at 0.0, 1.5 s)
    """
    if take is not None:
        take = whole_number(take, "The number of frames to take", 2, MOST_FRAMES, ImageError)
    fps = None if fps is None else number(fps, "fps", above=0, error=ImageError)
    if isinstance(video, str | PathLike):
        return _from_file(regular_file(fspath(video), "video")[1], take or TAKEN, fps)
    several = _listed(video, take)
    chosen = _even(len(several), take or len(several))
    return _video([read_image(several[each]) for each in chosen], Timing(fps or 1.0, tuple(chosen), len(several)))


def _listed(video: Any, take: int | None) -> list[Any]:
    """The frames of a list, or of an array or tensor of four axes."""
    if not isinstance(video, list | tuple) and getattr(video, "ndim", 0) != 4:
        raise ImageError(
            f"A video must be a list of frames, an array (frame, height, width, 3), or a path; got {shown(video)}."
        )
    if len(video) < 2:
        raise ImageError(f"A video must have at least two frames; got {len(video)}. One frame is an image.")
    if take is None and len(video) > MOST_FRAMES:
        raise ImageError(
            f"At most {MOST_FRAMES} frames of a video must be taken; got {len(video)}. Say how many, as take={TAKEN}."
        )
    return list(video)


def _video(frames: Sequence[Image.Image], timing: Timing) -> Video:
    if len(sizes := {frame.size for frame in frames}) > 1:
        raise ImageError(f"The frames of a video must have one size; got {', '.join(f'{w} x {h} px' for w, h in sizes)}.")
    return Video(tuple(frames), timing)


def _even(count: int, take: int) -> list[int]:
    """Numbers of frames from the first to the last of `count`, evenly apart, each once."""
    found: list[int] = np.unique(np.linspace(0, count - 1, min(take, count)).round().astype(int)).tolist()
    return found


def _from_file(path: Path, take: int, fps: float | None) -> Video:
    try:
        with suppress(UnidentifiedImageError), Image.open(path) as image:
            return _animated(image, path, take, fps)
    except ImageError:
        raise
    except UNREADABLE as error:
        raise ImageError(f"{path.name} cannot be read as a video: {reason(error)}") from error
    return _decoded(path, take, fps)


def _animated(image: Image.Image, path: Path, take: int, fps: float | None) -> Video:
    count = int(getattr(image, "n_frames", 1))
    if count < 2:
        raise ImageError(f"A video must have at least two frames; {path.name} is one image. Give it to prepare as such.")
    chosen, found, milliseconds = _even(count, take), [], 0.0
    for at, frame in enumerate(ImageSequence.Iterator(image)):
        # A WebP's duration is known when its pixels are.
        frame.load()
        milliseconds += float(frame.info.get("duration", 0) or 0)
        if at in chosen:
            # A copy is that frame alone.
            found.append(read_image(frame.copy()))
    own = 1000 * count / milliseconds if milliseconds else 10.0
    return _whole(found, Timing(fps or own, tuple(chosen), count), path)


def _whole(frames: Sequence[Image.Image], timing: Timing, path: Path) -> Video:
    """Of a file of which all frames that were chosen are there."""
    if len(frames) != len(timing.numbers):
        raise ImageError(f"{path.name} cannot be read as a video: it ends before the last of its {timing.total} frames.")
    return _video(frames, timing)


def _decoded(path: Path, take: int, fps: float | None) -> Video:
    """Of a file of any video format, by PyAV."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"A video file ({path.name}) is read by PyAV, which is not installed here. Run: pip install "
            "'cmllm_tools[video]'; or give a list of frames, or a GIF."
        ) from error
    try:
        with av.open(str(path)) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise ImageError(f"{path.name} has no video in it.")
            own = float(stream.average_rate or 0) or 24.0
            # What the file says of their number may be wrong, or missing.
            count = sum(1 for _ in container.decode(stream))
        if count < 2:
            raise ImageError(f"A video must have at least two frames; {path.name} has {count}.")
        chosen = _even(count, take)
        with av.open(str(path)) as container:
            found = [read_image(_upright(frame)) for at, frame in enumerate(_all(container)) if at in chosen]
    except av.FFmpegError as error:
        raise ImageError(f"{path.name} cannot be read as a video: {error}") from error
    return _whole(found, Timing(fps or own, tuple(chosen), count), path)


def _all(container: Any) -> Iterator[Any]:
    return iter(container.decode(container.streams.video[0]))


def _upright(frame: Any) -> Image.Image:
    """A frame as it is to be seen: a camera that is held sideways writes so, and beside it how to turn its pixels."""
    picture: Image.Image = frame.to_image()
    matrix = next((np.frombuffer(data, "=i4") for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return picture
    # x' = a x + c y, y' = b x + d y. PyAV's `rotation` of it takes a mirrored frame for one that is upside down.
    a, b, _, c, d, *_ = matrix.tolist()
    if abs(b) > abs(a):
        picture, a, d = picture.transpose(Image.Transpose.TRANSPOSE), c, b
    if a < 0:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if d < 0 else picture
