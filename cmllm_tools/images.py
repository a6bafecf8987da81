"""Reading the user's image: any file or PIL image becomes upright RGB, or a clear error."""

import warnings
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError

# Beyond this ratio of sides the short side holds no content after any model's resize.
MAX_ASPECT = 200

# What `read_image` reads.
ImageSource = str | PathLike | Image.Image | np.ndarray


def read_image(image: ImageSource) -> Image.Image:
    """An upright RGB image from a file, a PIL image or an array.

    EXIF rotation is applied, grey values are repeated over the channels, and transparent pixels are laid on white.

    Args:
        image: path, PIL image, or uint8 array of shape (height, width), (height, width, 3) or (height, width, 4).

    Raises:
        ImageError: when the file cannot be read or the image has no area or an extreme shape.
    """
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    elif isinstance(image, str | PathLike):
        image = _from_file(Path(image))
    elif not isinstance(image, Image.Image):
        raise ImageError(f"An image must be a path, a PIL image or a uint8 array; got {type(image).__name__}.")
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"An image must have at least one pixel; got {width} x {height} px.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"The sides of an image must be within {MAX_ASPECT}:1 of each other; got {width} x {height} px. "
            "Crop or pad it first."
        )
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            warnings.warn("The image has transparent pixels; they are laid on white.", stacklevel=3)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _from_file(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise ImageError(f"There is no image at {path}.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from error
    return image


def _from_array(values: np.ndarray) -> Image.Image:
    channels = values.shape[2:]
    if values.dtype != np.uint8 or values.ndim < 2 or channels not in ((), (3,), (4,)):
        raise ImageError(
            "An image array must be uint8 of shape (height, width), (height, width, 3) or (height, width, 4); "
            f"got {values.dtype} of shape {values.shape}."
        )
    if 0 in values.shape:
        raise ImageError(f"An image must have at least one pixel; got an array of shape {values.shape}.")
    return Image.fromarray(values)
