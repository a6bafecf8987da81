"""Scenes of everyday things, drawn by torch on whatever device trains: pictures on backgrounds, many scenes at a time.

A scene is drawn at `SIDE` px, as the model sees it. Each thing has a size, turn, shear, warp and light of its own; scenes
for training vary colours far beyond what an artist would draw, so that shapes are learnt and not a style.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from cmllm_tools.models.smol import CELLS, SIDE

MOST = 4
# A thing's longer side, as a share of the scene's, by the number of things.
SIZES = {1: (0.45, 0.85), 2: (0.42, 0.62), 3: (0.38, 0.52), 4: (0.36, 0.48)}
# Visual tokens of which a thing covers this share carry its word; below `BARE` of all things they are background.
COVERED, BARE = 0.5, 0.1
BACKGROUND, UNSURE = 0, -100
# Random filters drawn at a time.
FILTERS = 32


@dataclass(frozen=True)
class Variation:
    """How far scenes vary; probabilities of each thing, and amplitudes.

    Args:
        turn: degrees.
        warp: displacement, as a share of the picture.
        light: brightness, contrast and saturation, as factors 1 +- light.
        hue: radians.
        filtered: colours and edges through a random filter.
        posterised: few levels of each colour.
        outlined: dark lines where the picture changes.
        grey: without colour.
        erased: a rectangle of it is missing.
        mixed: two styles of the same thing, one over the other.
        noise: of the scene, standard deviation.
        blurred: the scene seen out of focus.
    """

    turn: float = 12
    warp: float = 0.0
    light: float = 0.15
    hue: float = 0.0
    filtered: float = 0.0
    posterised: float = 0.0
    outlined: float = 0.0
    grey: float = 0.0
    erased: float = 0.0
    mixed: float = 0.0
    noise: float = 0.01
    blurred: float = 0.0


PLAIN = Variation()
STRONG = Variation(
    turn=25,
    warp=0.07,
    light=0.4,
    hue=0.6,
    filtered=0.35,
    posterised=0.2,
    outlined=0.2,
    grey=0.12,
    erased=0.2,
    mixed=0.15,
    noise=0.04,
    blurred=0.3,
)


@dataclass(frozen=True)
class Scenes:
    """Some scenes.

    Args:
        images: (scene, 3, side, side) in 0..1.
        words: (scene, CELLS, CELLS): 1 + number of the thing that covers a visual token, `BACKGROUND` or `UNSURE`.
        things: (scene, MOST): numbers of the things, -1 where there are fewer.
        masks: (scene, MOST, side, side): opacity of each thing.
    """

    images: Tensor
    words: Tensor
    things: Tensor
    masks: Tensor


class Painter:
    """Draws scenes.

    Args:
        pictures: (style, picture, 4, height, width) uint8, with straight opacity; all transparent where a style has none.
        owners: (picture,): number of the thing that each picture shows.
        photographs: (photograph, 3, height, width) in 0..1, for backgrounds.
        generator: on the device of all the rest.
    """

    def __init__(self, pictures: Tensor, owners: Tensor, photographs: Tensor, generator: torch.Generator):
        # With margins, so that what is outside a picture is transparent; colours below nothing would bleed in otherwise.
        faded = pictures.float() / 255
        self._pictures = F.pad(torch.cat([faded[:, :, :3] * faded[:, :, 3:], faded[:, :, 3:]], 2), (2, 2, 2, 2))
        self._owners, self._photographs, self._generator = owners, photographs, generator
        count = int(owners.max()) + 1
        shown = [(owners == thing).nonzero()[:, 0] for thing in range(count)]
        most = max(map(len, shown))
        self._shown = torch.stack([F.pad(each, (0, most - len(each)), value=-1) for each in shown])
        self._choices = (self._shown >= 0).sum(1)
        drawn = pictures[:, :, 3].flatten(2).any(-1).T
        # Of each picture, the styles that have it come first.
        self._styles, self._drawn = (~drawn).int().sort(stable=True).indices, drawn.sum(1)

    @property
    def device(self) -> torch.device:
        return self._owners.device

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=self._generator, device=self.device) * (high - low) + low

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device)

    def draw(self, count: int, varied: Variation, *, side: int = SIDE, numbers: tuple[int, ...] = (1, 2, 3, 4)) -> Scenes:
        """Draw scenes of as many things as `numbers` has, each as likely.

        Args:
            count: of scenes.
            varied: how far they vary.
            side: in pixels.
            numbers: of things in a scene; fewer where there was no room.
        """
        wanted = torch.tensor(numbers, device=self.device)[(self._uniform(count) * len(numbers)).long()]
        ranks = torch.rand((count, len(self._choices)), generator=self._generator, device=self.device)
        things = ranks.argsort(1)[:, :MOST]
        centres, sizes, there = self._places(wanted)
        there &= torch.arange(MOST, device=self.device) < wanted[:, None]
        layers = self._layers(things, centres, sizes, varied, side) * there[:, :, None, None, None]
        image = self._backgrounds(count, side)
        masks = layers[:, :, 3]
        for number in range(MOST):
            image = image * (1 - masks[:, number, None]) + layers[:, number, :3]
        return Scenes(self._seen(image, varied), words(masks, things), things.masked_fill(~there, -1), masks)

    def _places(self, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centres (scene, MOST, 2), longer sides (scene, MOST), as shares of a scene, and whether there was room."""
        count, tries = len(wanted), 24
        low, high = (
            torch.tensor([0.0, *(SIZES[n][end] for n in (1, 2, 3, 4))], device=self.device)[wanted] for end in (0, 1)
        )
        centres = torch.full((count, MOST, 2), 9.0, device=self.device)
        sizes = torch.zeros((count, MOST), device=self.device)
        there = torch.zeros((count, MOST), dtype=torch.bool, device=self.device)
        rows = torch.arange(count, device=self.device)
        for number in range(MOST):
            size = low[:, None] + (high - low)[:, None] * self._uniform(count, tries)
            # Over the edge by a tenth at most.
            centre = 0.4 * size[..., None] + (1 - 0.8 * size[..., None]) * self._uniform(count, tries, 2)
            apart = (centre[:, :, None] - centres[:, None]).abs().amax(-1)
            free = (apart > 0.47 * (size[:, :, None] + sizes[:, None])).all(-1)
            first = free.float().argmax(1)
            there[:, number] = free.any(1)
            centres[:, number] = torch.where(there[:, number, None], centre[rows, first], centres[:, number])
            sizes[:, number] = size[rows, first] * there[:, number]
        return centres, sizes, there

    def _layers(self, things: Tensor, centres: Tensor, sizes: Tensor, varied: Variation, side: int) -> Tensor:
        """Each thing alone, (scene, MOST, 4, side, side), colours times opacity."""
        count = things.numel()
        flat = things.flatten()
        chosen = self._shown[flat, (self._uniform(count) * self._choices[flat]).long()]
        styles = self._styles[chosen, (self._uniform(2, count) * self._drawn[chosen]).long()]
        picture = self._pictures[styles[0], chosen]
        share = self._uniform(count, low=0.3, high=0.7) * (self._uniform(count) < varied.mixed)
        picture = torch.lerp(picture, self._pictures[styles[1], chosen], share[:, None, None, None])
        picture = self._recoloured(picture, varied)
        angle = self._uniform(count, low=-1, high=1) * math.radians(varied.turn)
        aspect = torch.exp(self._uniform(count, low=-0.15, high=0.15))
        flip = torch.where(self._uniform(count) < 0.5, 1.0, -1.0)
        scale = 1 / sizes.flatten().clamp_min(1e-3)
        lean = self._uniform(count, low=-0.15, high=0.15) * (varied.warp > 0)
        matrix = torch.stack(
            [
                torch.stack([flip * aspect * scale * angle.cos(), flip * scale * (angle.sin() + lean)], -1),
                torch.stack([-scale * angle.sin() / aspect, scale * angle.cos() / aspect], -1),
            ],
            1,
        )
        middle = 2 * centres.flatten(0, 1) - 1
        theta = torch.cat([matrix, -(matrix @ middle[:, :, None])], 2)
        grid = F.affine_grid(theta, [count, 4, side, side], align_corners=False)
        if varied.warp:
            bend = F.interpolate(self._normal(count, 2, 4, 4), (side, side), mode="bicubic").permute(0, 2, 3, 1)
            grid = grid + varied.warp * bend
        layers = F.grid_sample(picture, grid, align_corners=False)
        if varied.erased:
            at = torch.linspace(-1, 1, side, device=self.device)
            corner, span = self._uniform(2, count, low=-0.5, high=0.5), self._uniform(2, count, low=0.1, high=0.25)
            across, down = ((at[None] - (middle[:, axis] + corner[axis] / scale)[:, None]).abs() for axis in (0, 1))
            gone = (across < (span[0] / scale)[:, None])[:, None, :] & (down < (span[1] / scale)[:, None])[:, :, None]
            gone &= (self._uniform(count) < varied.erased)[:, None, None]
            layers = layers * ~gone[:, None]
        found: Tensor = layers.unflatten(0, things.shape).clamp(0, 1)
        return found

    def _recoloured(self, picture: Tensor, varied: Variation) -> Tensor:
        count = len(picture)
        opacity = picture[:, 3:]
        color = picture[:, :3] / opacity.clamp_min(1e-3)

        def chosen(share: float) -> Tensor:
            return (self._uniform(count) < share)[:, None, None, None]

        def around(width: float) -> Tensor:
            return 1 + self._uniform(count, low=-width, high=width)[:, None, None, None]

        if varied.outlined:
            grey = F.pad((color * opacity).mean(1, keepdim=True) + opacity, (1, 1, 1, 1), mode="replicate")
            edge = (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]).abs() + (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]).abs()
            color = torch.where(chosen(varied.outlined), color * (1 - 2 * edge).clamp(0, 1), color)
        if varied.filtered:
            size, some = 5, math.gcd(count, FILTERS)
            weights = self._normal(some * 3, 3, size, size) / math.sqrt(3 * size * size)
            beside = color.reshape(count // some, some * 3, *color.shape[2:])
            filtered = F.conv2d(beside, weights, padding=size // 2, groups=some).view_as(color)
            filtered = (filtered * 1.5 + 0.5).clamp(0, 1)
            share = self._uniform(count, low=0.3, high=1.0)[:, None, None, None]
            color = torch.where(chosen(varied.filtered), torch.lerp(color, filtered, share), color)
        if varied.posterised:
            levels = self._uniform(count, low=2, high=6).round()[:, None, None, None]
            color = torch.where(chosen(varied.posterised), (color * levels).round() / levels, color)
        if varied.hue:
            color = (self._turned(count, varied.hue) @ color.flatten(2)).view_as(color)
        grey = color.mean(1, keepdim=True)
        color = torch.where(chosen(varied.grey), grey.expand_as(color), grey + (color - grey) * around(varied.light))
        middle = (color * opacity).sum((1, 2, 3), keepdim=True) / (3 * opacity.sum((1, 2, 3), keepdim=True) + 1e-3)
        color = (middle + (color - middle) * around(varied.light)) * around(varied.light)
        return torch.cat([color.clamp(0, 1) * opacity, opacity], 1)

    def _turned(self, count: int, most: float) -> Tensor:
        """Turns of colours about the axis of greys, (count, 3, 3)."""
        angle = self._normal(count) * most
        cos, sin = angle.cos(), angle.sin() / math.sqrt(3)
        one, third = torch.eye(3, device=self.device), torch.full((3, 3), 1 / 3, device=self.device)
        cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=self.device)
        return cos[:, None, None] * (one - third) + third + sin[:, None, None] * cross

    def _backgrounds(self, count: int, side: int) -> Tensor:
        """Gradients, clouds, stripes and photographs out of focus, (scene, 3, side, side)."""
        first, second = self._uniform(2, count, 3, 1, 1)
        second = torch.lerp(first, second, self._uniform(count, 1, 1, 1))
        at = torch.linspace(-0.5, 0.5, side, device=self.device)
        angle = self._uniform(count, high=2 * math.pi)[:, None, None]
        along = at[None, None, :] * angle.cos() + at[None, :, None] * angle.sin()
        waves = 0.5 + 0.5 * torch.sin(along * self._uniform(count, low=6, high=60)[:, None, None])
        clouds = torch.zeros((count, 1, side, side), device=self.device)
        for octave in (3, 6, 12, 24, 48):
            noise = self._uniform(count, 1, octave, octave)
            clouds = clouds + F.interpolate(noise, (side, side), mode="bilinear") * octave**-0.7
        clouds = (clouds - clouds.amin((2, 3), keepdim=True)) / (
            clouds.amax((2, 3), keepdim=True) - clouds.amin((2, 3), keepdim=True)
        )
        kind = (self._uniform(count) * 5).long()[:, None, None, None]
        blend = torch.where(kind == 0, along[:, None] + 0.5, torch.where(kind == 1, waves[:, None], clouds))
        flat = kind == 2
        image = torch.lerp(first, second, blend.clamp(0, 1) * ~flat)
        if len(self._photographs):
            chosen = self._photographs[(self._uniform(count) * len(self._photographs)).long()]
            scale = self._uniform(count, low=0.25, high=0.9)
            shift = (self._uniform(count, 2, low=-1, high=1)) * (1 - scale)[:, None]
            theta = torch.zeros((count, 2, 3), device=self.device)
            theta[:, 0, 0] = theta[:, 1, 1] = scale
            theta[:, :, 2] = shift
            photograph = F.grid_sample(
                chosen,
                F.affine_grid(theta, [count, 3, side, side], align_corners=False),
                align_corners=False,
                padding_mode="reflection",
            )
            image = torch.where(kind == 4, photograph, image)
        return image

    def _seen(self, image: Tensor, varied: Variation) -> Tensor:
        """The scene as a camera sees it: its light, focus and noise."""
        count, side = len(image), image.shape[-1]
        at = torch.linspace(-0.5, 0.5, side, device=self.device)
        fall = self._uniform(2, count, low=-1, high=1)[..., None] * at * varied.light
        light = 1 + fall[0][:, None, None, :] + fall[1][:, None, :, None]
        light = light * (1 + 0.5 * varied.light * self._uniform(count, 3, 1, 1, low=-1, high=1))
        image = image * light
        if varied.blurred:
            soft = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
            softer = F.avg_pool2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, 1)
            focus = self._uniform(count)[:, None, None, None]
            image = torch.where(focus < varied.blurred, torch.where(focus < varied.blurred / 2, softer, soft), image)
        noise = varied.noise * self._normal(*image.shape) * self._uniform(count, 1, 1, 1)
        return (image + noise).clamp(0, 1)


def words(masks: Tensor, things: Tensor) -> Tensor:
    """What each visual token shows: see `Scenes`."""
    covered = F.adaptive_avg_pool2d(masks, CELLS)
    most, which = covered.max(1)
    named = 1 + things.gather(1, which.flatten(1)).view_as(which)
    bare = covered.sum(1) < BARE
    return torch.where(most >= COVERED, named, torch.where(bare, BACKGROUND, UNSURE))


def gentler(varied: Variation, share: float) -> Variation:
    """A variation whose probabilities are this share of another's."""
    names = ("filtered", "posterised", "outlined", "grey", "erased", "mixed")
    return replace(varied, **{name: share * getattr(varied, name) for name in names})
