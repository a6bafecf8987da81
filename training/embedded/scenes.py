"""Generated scenes for the embedded model: coloured shapes and handwritten digits, some with a visual mark.

Scenes are drawn at `SIZE` pixels and seen by the model at half of that. Colours and kinds do not repeat within a
scene, so that "the red object" and "the circle" each refer to one object.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from cmllm_tools.inputs.marks import marked as drawn_on
from cmllm_tools.inputs.overlays import OVERLAYS

SIZE = 192

COLORS = {
    "red": (215, 35, 40),
    "green": (40, 165, 60),
    "blue": (45, 75, 225),
    "yellow": (240, 220, 45),
    "cyan": (70, 220, 225),
    "magenta": (230, 60, 215),
    "orange": (245, 140, 25),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "diamond", "crescent")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KINDS = SHAPES + DIGITS
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")

MARK_PROBABILITY = 0.5
SIZES = {"shape": (48, 84), "digit": (68, 98)}
# Degrees, and sideways shift as a share of the height.
TURNS = {"shape": 12, "digit": 8}
DIGIT_SHEAR = 0.12
DIGIT_PROBABILITY = 0.4


@dataclass(frozen=True)
class SceneObject:
    """One object: its colour, kind and (SIZE, SIZE) boolean mask of visible pixels."""

    color: str
    kind: str
    mask: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Corners (x0, y0, x1, y1) in scene pixels, right and bottom exclusive."""
        ys, xs = np.nonzero(self.mask)
        return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1

    @property
    def place(self) -> str:
        x0, y0, x1, y1 = self.box
        column, row = (min(int(3 * (low + high) / 2 / SIZE), 2) for low, high in ((x0, x1), (y0, y1)))
        return PLACES[3 * row + column]


@dataclass(frozen=True)
class Scene:
    """An RGB image of SIZE x SIZE pixels, its objects, and the index of the marked one (or None)."""

    image: Image.Image
    objects: tuple[SceneObject, ...]
    marked: int | None = None
    overlay: str | None = None


def load_digits(split: str) -> dict[str, np.ndarray]:
    """Handwritten digits of the UCI set that scikit-learn carries, `{word: (count, 8, 8) uint8}`.

    Every fifth sample is held out; "train" and "heldout" share none.
    """
    from sklearn.datasets import load_digits as load_uci

    data = load_uci()
    held_out = np.arange(len(data.target)) % 5 == 0
    chosen = held_out if split == "heldout" else ~held_out
    images = (data.images[chosen] / 16 * 255).astype(np.uint8)
    return {word: images[data.target[chosen] == digit] for digit, word in enumerate(DIGITS)}


def make_scene(rng: np.random.Generator, digits: dict[str, np.ndarray], *, marked: bool | None = None) -> Scene:
    """Draw one scene of 2 to 4 objects.

    Args:
        rng: source of all randomness.
        digits: from `load_digits`.
        marked: whether one object carries an overlay; None draws it with `MARK_PROBABILITY`.
    """
    count = int(rng.integers(2, 5))
    image = _background(rng)
    colors = rng.permutation(list(COLORS))[:count]
    digit_count = int(rng.binomial(count, DIGIT_PROBABILITY))
    kinds = [*rng.permutation(DIGITS)[:digit_count], *rng.permutation(SHAPES)[: count - digit_count]]
    free = np.ones((SIZE, SIZE), bool)
    objects = []
    for color, kind in zip(colors, kinds, strict=True):
        mask = _place(image, str(color), str(kind), free, digits, rng)
        if mask is not None:
            objects.append(SceneObject(str(color), str(kind), mask))
    if len(objects) < 2:
        return make_scene(rng, digits, marked=marked)
    objects = [objects[i] for i in rng.permutation(len(objects))]
    scene = Scene(image, tuple(objects))
    if marked if marked is not None else rng.random() < MARK_PROBABILITY:
        scene = mark(scene, int(rng.integers(len(objects))), str(rng.choice(OVERLAYS)), rng)
    return scene


def mark(scene: Scene, index: int, overlay: str, rng: np.random.Generator) -> Scene:
    """The scene with one of the eight overlays drawn on object `index`."""
    image = drawn_on(scene.image, scene.objects[index].mask, overlay, rng)
    return Scene(image, scene.objects, index, overlay)


def _background(rng: np.random.Generator) -> Image.Image:
    """A dull background: flat, a gradient, stripes or blocks of two near tones."""
    first = rng.uniform(15, 105) + rng.uniform(-13, 13, 3)
    second = np.clip(first + rng.uniform(-35, 35) + rng.uniform(-8, 8, 3), 0, 150)
    ys, xs = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    angle = rng.uniform(0, 2 * math.pi)
    along = xs * math.cos(angle) + ys * math.sin(angle)
    style = rng.integers(4)
    if style == 0:
        blend = np.zeros_like(xs)
    elif style == 1:
        blend = (along - along.min()) / np.ptp(along)
    elif style == 2:
        blend = (along * rng.integers(3, 9) % 1 > 0.5).astype(float)
    else:
        across = ys * math.cos(angle) - xs * math.sin(angle)
        blocks = rng.integers(2, 6)
        blend = ((np.floor(along * blocks) + np.floor(across * blocks)) % 2).astype(float)
    tones = first + blend[..., None] * (second - first)
    return Image.fromarray(np.clip(tones, 0, 255).astype(np.uint8))


def _place(
    image: Image.Image,
    color: str,
    kind: str,
    free: np.ndarray,
    digits: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Draw one object where there is room; returns its mask, or None when the scene is full."""
    for attempt in range(40):
        size = int(rng.uniform(*SIZES["digit" if kind in DIGITS else "shape"]) * (1 - 0.005 * attempt))
        # The centre may lie so near an edge that part of the object is cut off.
        reach = int(size * (0.42 if kind in DIGITS else 0.34))
        x, y = (int(value) - size // 2 for value in rng.integers(reach, SIZE - reach, 2))
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + size, SIZE), min(y + size, SIZE)
        if free[top:bottom, left:right].all():
            break
    else:
        return None
    free[max(top - 3, 0) : bottom + 3, max(left - 3, 0) : right + 3] = False
    stencil = _stencil(kind, size, digits, rng)
    tint = np.clip(np.array(COLORS[color]) + rng.uniform(-18, 18, 3), 0, 255).astype(int)
    image.paste(tuple(int(channel) for channel in tint), (x, y), stencil)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top:bottom, left:right] = (np.asarray(stencil) > 127)[top - y : bottom - y, left - x : right - x]
    return mask if mask.any() else None


def _stencil(kind: str, size: int, digits: dict[str, np.ndarray], rng: np.random.Generator) -> Image.Image:
    """Opacity of one object, an "L" image of (size, size)."""
    most = TURNS["digit" if kind in DIGITS else "shape"]
    turn = rng.uniform(-most, most)
    if kind in DIGITS:
        strokes = digits[kind][rng.integers(len(digits[kind]))]
        large = Image.fromarray(np.pad(strokes, 1)).resize((size, size), Image.Resampling.BICUBIC)
        shear = rng.uniform(-DIGIT_SHEAR, DIGIT_SHEAR)
        slanted = large.transform(
            large.size, Image.Transform.AFFINE, (1, shear, -shear * size / 2, 0, 1, 0), Image.Resampling.BICUBIC
        )
        return slanted.rotate(turn, Image.Resampling.BICUBIC).point(lambda value: max(0, min(255, (value - 70) * 3)))
    large = Image.new("L", (2 * size, 2 * size), 0)
    _draw_shape(ImageDraw.Draw(large), kind, 2 * size)
    return large.rotate(turn, Image.Resampling.NEAREST).resize((size, size), Image.Resampling.BOX)


def _draw_shape(draw: ImageDraw.ImageDraw, kind: str, side: int) -> None:
    middle, radius = side / 2, side * 0.46

    def ring(count: int, *radii: float, start: float = -90.0) -> list[tuple[float, float]]:
        return [
            (middle + r * math.cos(a), middle + r * math.sin(a))
            for i in range(count)
            for r, a in [(radii[i % len(radii)] * radius, math.radians(start + 360 * i / count))]
        ]

    def disc(x: float, y: float, r: float, fill: int = 255) -> None:
        draw.ellipse(
            (middle + (x - r) * radius, middle + (y - r) * radius, middle + (x + r) * radius, middle + (y + r) * radius),
            fill=fill,
        )

    if kind == "circle":
        disc(0, 0, 0.95)
    elif kind == "square":
        draw.polygon(ring(4, 1.12, start=-45), fill=255)
    elif kind == "triangle":
        draw.polygon(ring(3, 1.05), fill=255)
    elif kind == "star":
        draw.polygon(ring(10, 1.08, 0.45), fill=255)
    elif kind == "diamond":
        draw.polygon([(x * 0.72 + middle * 0.28, y) for x, y in ring(4, 1.05)], fill=255)
    elif kind == "cross":
        arm = 0.3 * radius
        draw.rectangle((middle - arm, middle - radius, middle + arm, middle + radius), fill=255)
        draw.rectangle((middle - radius, middle - arm, middle + radius, middle + arm), fill=255)
    elif kind == "heart":
        disc(-0.46, -0.3, 0.5)
        disc(0.46, -0.3, 0.5)
        points = [(-0.9, -0.08), (0, 0.98), (0.9, -0.08), (0, -0.4)]
        draw.polygon([(middle + x * radius, middle + y * radius) for x, y in points], fill=255)
    else:
        disc(0, 0, 1.0)
        disc(0.45, -0.1, 0.78, fill=0)
