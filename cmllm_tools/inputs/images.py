"""Reading the user's image: a file, PIL image, array or tensor becomes upright RGB, or a clear error."""

import base64
import binascii
import re
import struct
import warnings
import zlib
from io import BytesIO
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image, ImageOps

from ..errors import ImageError
from ..files import reason
from ..strict import shown

# Beyond this ratio of sides the short side holds no content after any model's resize.
MAX_ASPECT = 200
# Fractions that a filter has carried beyond 1 are below it; of 0..255 they would be an image that is all but black.
_OVERSHOT = 2
# One step of 8 bits in 16.
_SIXTEEN = 257
# Characters of a path in a message.
_PATH = 76
# What Pillow raises for files that are cut, damaged or made to mislead.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# What `read_image` reads.
ImageSource = str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | np.ndarray | Any


def read_image(image: ImageSource) -> Image.Image:
    """An upright RGB image from a file, a PIL image, an array or a tensor.

    EXIF rotation is applied, grey values are repeated over the channels, transparent pixels are laid on white, 16 bits
    become 8, and of several frames the first is taken.

    Args:
        image: path (`~` is the home folder), a file's bytes, a file opened for reading bytes, a `data:` URI, or a PIL
            image; or an array or tensor of shape (height, width), (height, width, 1, 3 or 4) or (1 or 3, height, width),
            of whole numbers in 0..255, uint16, booleans, or fractions in 0..1.

    Raises:
        ImageError: when it cannot be read, its values have no clear meaning, or it has no area or an extreme shape.

    Examples:
        >>> import numpy as np
        >>> cm.read_image(np.zeros((40, 60), np.uint8)).size
        (60, 40)
    """
    image = _with_area(open_image(image))
    try:
        return _laid_on_white(image).convert("RGB")
    except ImageError:
        raise
    except UNREADABLE as error:
        raise ImageError(
            f"An image in {image.mode} mode cannot be turned into RGB: {error}. Convert it first: image.convert('RGB')."
        ) from error


def open_image(image: ImageSource) -> Image.Image:
    """What `read_image` takes, as a PIL image that is loaded and upright, in whatever mode it is stored.

    Raises:
        ImageError: when it cannot be read.
    """
    if isinstance(image, np.ndarray) or hasattr(image, "is_floating_point"):
        return _from_array(image)
    name = "The image"
    try:
        if isinstance(image, Image.Image):
            return _upright(image, name)
        name, opened = _opened(image)
        # Pillow itself keeps a file open that could have further frames.
        with Image.open(opened) as file:
            return _upright(file, name)
    except ImageError:
        raise
    except UNREADABLE as error:
        raise ImageError(f"{name} cannot be read as an image: {reason(error)}") from error


def _upright(image: Image.Image, name: str) -> Image.Image:
    """A copy of the first frame, loaded and turned as its EXIF says."""
    frames = getattr(image, "n_frames", 1)
    # The further frames of a camera's JPEG are no pictures of their own.
    if frames > 1 and image.tell() == 0 and image.format != "MPO":
        warnings.warn(f"{name} has {frames} frames; the first is taken.", stacklevel=4)
    # Before the pixels are loaded: an image without any cannot be.
    if 0 in image.size:
        _with_area(image)
    image.load()
    return ImageOps.exif_transpose(image)


def array_of(tensor: Any) -> np.ndarray:
    """A tensor's values; raises what torch does for a tensor without any, or that numpy has no form of."""
    tensor = tensor.detach().cpu()
    result: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return result


def grey_values(image: Image.Image) -> np.ndarray:
    """(height, width) values of an image of one channel, as they are stored: uint16, int32 or float32.

    Raises:
        ImageError: for values that are not finite.
    """
    if image.mode.startswith("I;16"):
        order = ">" if image.mode.endswith("B") else "<"
        return np.frombuffer(image.tobytes(), f"{order}u2").astype(np.uint16).reshape(image.size[::-1])
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("An image must have finite values; got NaN or infinity.")
    return values.astype(np.uint16) if values.dtype == np.uint8 else values


def _with_area(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"An image must have at least one pixel; got {width} x {height} px.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"The sides of an image must be within {MAX_ASPECT}:1 of each other; got {width} x {height} px. "
            "Crop or pad it first."
        )
    return image


def _laid_on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _eight_bits(image)
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            warnings.warn("The image has transparent pixels; they are laid on white.", stacklevel=3)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits or more as 8: Pillow's own conversion cuts off what is above 255, or below 1."""
    values = grey_values(image)
    low, high = float(values.min()), float(values.max())
    # A PNG of 16 bits comes in mode I from older Pillows.
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if sixteen and low >= 0 and high <= 65535:
        scaled = values / _SIXTEEN
    elif values.dtype.kind == "f" and low >= 0 and high <= 1:
        scaled = values * 255.0
    elif low >= 0 and high <= 255 and not (values.dtype.kind == "f" and high < _OVERSHOT):
        scaled = values
    else:
        raise ImageError(
            f"Grey values must lie in 0..255, in 0..1 as fractions, or be stored in 16 bits; got an image in {image.mode} "
            f"mode with {low:g}..{high:g}. Scale them first."
        )
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _opened(source: Any) -> tuple[str, Any]:
    """A name for messages, and what Pillow opens."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "The image", BytesIO(source)
    if hasattr(source, "read"):
        return "The image", _rewound(source)
    if not isinstance(source, str | PathLike):
        raise ImageError(
            f"An image must be a path, a PIL image or a uint8 array; got {type(source).__name__}. "
            "A file's bytes, an open file, a data: URI and a tensor will do too."
        )
    text = fspath(source)
    if isinstance(text, bytes):
        raise ImageError(f"A path must be text; got {shown(text)}.")
    if text[:20].lstrip().lower().startswith("data:"):
        return "The data: URI", BytesIO(_data_uri(text))
    if text.lower().startswith("file:"):
        address = urlsplit(text)
        # Another machine's name would be fetched from.
        if address.netloc in ("", "localhost"):
            return regular_file(url2pathname(address.path), "image")
    if isinstance(source, str) and (scheme := re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+)://", text)):
        raise ImageError(
            f"An image must be on this machine, as nothing is fetched from the net; got a {scheme[1]} address, "
            f"{shown(text)}. Download it, and give the file or its bytes."
        )
    return regular_file(text, "image")


def regular_file(text: str, kind: str) -> tuple[str, Path]:
    """A name for messages, and the path of a file that is there.

    Raises:
        ImageError: for anything else; `kind` says what is looked for.
    """
    # Of a long path the end, where the name is.
    named = shown(text if len(text) <= _PATH else f"..{text[-_PATH:]}")[1:-1]
    try:
        path = Path(text).expanduser()
        if not path.exists():
            raise ImageError(f"There is no {kind} at {named}.")
        # A pipe would be waited for.
        regular = path.is_file()
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise (
            error if isinstance(error, ImageError) else ImageError(f"There is no {kind} at {named}: {reason(error)}")
        ) from None
    if not regular:
        raise ImageError(
            f"{named} cannot be read as {'an image' if kind == 'image' else 'a video'}: it is no regular file."
        )
    return named, path


def _rewound(file: Any) -> Any:
    if not hasattr(file, "seek") or (hasattr(file, "seekable") and not file.seekable()):
        file = BytesIO(file.read())
    return file


def _data_uri(text: str) -> bytes:
    kind, _, data = text.partition(",")
    if not kind.endswith(";base64"):
        raise ImageError(f"A data: URI must hold base64; got {shown(kind)}.")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"A data: URI must hold base64; it cannot be decoded: {error}.") from None


def _from_array(values: Any) -> Image.Image:
    tensor = hasattr(values, "is_floating_point")
    if tensor:
        try:
            values = array_of(values)
        except (RuntimeError, TypeError) as error:
            raise ImageError(f"An image tensor must hold values that can be read; got {shown(values)}.") from error
    kind = f"{values.dtype} of shape {values.shape}"
    given = values
    if values.ndim == 3:
        last, first = values.shape[2] in (1, 3, 4), values.shape[0] in (1, 3)
        if tensor and first and last:
            raise ImageError(
                f"An image tensor must tell its channels from its sides; got {kind}. "
                "Give an array (height, width, channels) or a PIL image."
            )
        values = values if last or not first else values.transpose(1, 2, 0)
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (1,), (3,), (4,)) or values.dtype.kind not in "buif":
        raise ImageError(_MEANING.format(kind))
    if 0 in given.shape:
        raise ImageError(f"An image must have at least one pixel; got an array of shape {given.shape}.")
    if values.shape[2:] == (1,):
        values = values[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(_bytes_of(values, kind)))


_MEANING = (
    "An image array must be uint8 of shape (height, width), (height, width, 1), (height, width, 3) or (height, width, 4), "
    "or hold uint16, booleans, or fractions in 0..1; got {}."
)


def _bytes_of(values: np.ndarray, kind: str) -> np.ndarray:
    """The array as uint8, where its type and range leave one meaning only."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    low, high = values.min(), values.max()
    if values.dtype == np.uint16:
        return np.rint(values / _SIXTEEN).astype(np.uint8)
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(values * 255.0).astype(np.uint8)
    if values.dtype.kind in "ui" and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    raise ImageError(_MEANING.format(f"{kind} with {low:g}..{high:g}"))
