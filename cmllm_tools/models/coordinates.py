"""How families were taught to write places in an image: facts of models, by `model_type`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import UnsupportedModelError

if TYPE_CHECKING:
    from PIL import Image

    from .mllm import Mllm

Unit = Literal["share", "thousandth", "pixel", "processed", "bin"]


@dataclass(frozen=True)
class Coordinates:
    """One way to write a place.

    Args:
        unit: shares of width and height with two digits, thousandths of them, pixels of the image, pixels of the image as
            the processor has scaled it, or numbers of 1024 bins.
        box: text of a box, with {x0}, {y0}, {x1} and {y1}.
        point: text of a point, with {x0} and {y0}.
    """

    unit: Unit = "share"
    box: str = "[{x0}, {y0}, {x1}, {y1}]"
    point: str = "[{x0}, {y0}]"

    def written(
        self, bounds: tuple[float, float, float, float], size: tuple[int, int], processed: tuple[int, int] | None = None
    ) -> str:
        """A place as text; of a box without extent its point.

        Args:
            bounds: corners x0, y0, x1, y1 in pixels of the image; what is outside it is drawn in.
            size: (width, height) of the image.
            processed: the same of the scaled image, where the unit asks for it.
        """
        x0, y0, x1, y1 = bounds
        shares = {
            name: min(max(value / side, 0), 1)
            for name, value, side in zip(("x0", "y0", "x1", "y1"), (x0, y0, x1, y1), size * 2, strict=True)
        }
        given = {name: self._number(share, (processed or size)["y" in name]) for name, share in shares.items()}
        return (self.point if (x0, y0) == (x1, y1) else self.box).format(**given)

    def _number(self, share: float, side: int) -> str:
        if self.unit == "share":
            return f"{share:.2f}"
        if self.unit == "bin":
            return f"{round(share * 1023):04d}"
        return str(round(share * (1000 if self.unit == "thousandth" else side)))


# Model cards and processors of the families; others were taught none, or theirs is not known here.
OWN: dict[str, Coordinates] = {
    "llava": Coordinates("share"),
    "vipllava": Coordinates("share"),
    "paligemma": Coordinates("bin", "<loc{y0}><loc{x0}><loc{y1}><loc{x1}>", "<loc{y0}><loc{x0}>"),
    "fuyu": Coordinates("pixel", "<box>{y0}, {x0}, {y1}, {x1}</box>", "<point>{y0}, {x0}</point>"),
    "qwen2_vl": Coordinates(
        "thousandth", "<|box_start|>({x0},{y0}),({x1},{y1})<|box_end|>", "<|box_start|>({x0},{y0})<|box_end|>"
    ),
    "qwen2_5_vl": Coordinates("processed"),
    "qwen3_vl": Coordinates("thousandth"),
    "qwen3_vl_moe": Coordinates("thousandth"),
    "internvl": Coordinates("thousandth", "<box>[[{x0}, {y0}, {x1}, {y1}]]</box>", "<point>[[{x0}, {y0}]]</point>"),
}


def own_coordinates(mllm: "Mllm") -> Coordinates:
    """The way of a model's family.

    Raises:
        UnsupportedModelError: for a family of which none is known.
    """
    found = OWN.get(mllm.family.name)
    if found is None:
        raise UnsupportedModelError(
            f"A family's own coordinates are known of {', '.join(OWN)}; got {mllm.family.name}. Give another unit: share, "
            "thousandth or pixel."
        )
    return found


def processed_size(mllm: "Mllm", image: "Image.Image") -> tuple[int, int]:
    """(width, height) of an image as the processor scales it, in pixels, where this says how many patches it has.

    Raises:
        UnsupportedModelError: for a processor that does not.
    """
    processor = mllm.processor.image_processor
    grid = processor(images=[image], return_tensors="pt").get("image_grid_thw")
    if grid is None:
        raise UnsupportedModelError(f"The size of the scaled image is not known of {mllm.family.name}. Give another unit.")
    _, rows, columns = grid[0].tolist()
    return int(columns * processor.patch_size), int(rows * processor.patch_size)
