"""What a run leaves behind: every step's figures and maps on the CPU, saved and reopened without the model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..display import Fact, Html, bar, card, picture, table
from ..errors import TraceError
from ..inputs.regions import Region, short, where_text
from ..layout.visual_tokens import VisualTokenLayout
from ..models.latent import LatentAdded
from ..notation import layers_text, updates_text
from .latent_method import LatentMethod
from .provenance import Provenance
from .target import Target
from .trace_file import read_trace, write_trace

# A longer run shows this many of its steps in a notebook.
ROWS = 40


@dataclass(eq=False)
class Step:
    """One forward of the run, before the update that follows it; step 0 is unsteered.

    Args:
        number: how many updates the latent has had.
        energy: of the context-token map.
        share: of the map that lies in the regions, 0..1.
        maps: (layer, visual token), mean over queries and heads; see `layer_maps`. Their mean is the map that was scored.
        latent_norm: Euclidean norm of the latent.
        gradient_norm: of the energy's gradient at the latent; None for the last step, which needs none.
        seconds: for forward and backward.
        answer: the model's answer with this step's latent, where it was asked for.
    """

    number: int
    energy: float
    share: float
    maps: torch.Tensor
    latent_norm: float
    gradient_norm: float | None
    seconds: float
    answer: str | None = None

    def __repr__(self) -> str:
        gradient = "" if self.gradient_norm is None else f", gradient {self.gradient_norm:.3g}"
        answer = "" if self.answer is None else f", {self.answer!r}"
        return (
            f"Step({self.number}: energy {self.energy:.4f}, share {self.share:.1%}, "
            f"latent {self.latent_norm:.3g}{gradient}, {self.seconds:.3f} s{answer})"
        )

    def _repr_html_(self) -> str:
        return card(f"Step {self.number}", [], below=steps_table([self]))


@dataclass(eq=False)
class Trace:
    """A run of an optimisation.

    Args:
        steps: in order; grows while the run goes on.
        latent: (visual token, width) of the last step, float32.
        stopped: why the run ended: "finished", "interrupted", "failed: ..." after an error, or the reason a callback gave;
            "running" while it goes on.
        method: with every setting filled in.
        regions: in pixels of the image.
        layout: where each visual token looks.
        layers: layer numbers of the maps' first axis.
        queries: positions of the query tokens.
        tokens: every token of the prompt.
        question: the user's words.
        text: what the processor was given.
        image: RGB copy of the image, (height, width, 3) uint8, at most COPY_SIZE px a side.
        image_hash: SHA-256 of the image's RGB pixels.
        provenance: model, versions and seed.
    """

    steps: list[Step]
    latent: torch.Tensor
    stopped: str
    method: LatentMethod
    regions: tuple[Region, ...]
    layout: VisualTokenLayout
    layers: tuple[int, ...]
    queries: tuple[int, ...]
    tokens: tuple[str, ...]
    question: str
    text: str
    image: np.ndarray = field(repr=False)
    image_hash: str
    provenance: Provenance

    @property
    def model(self) -> dict[str, str | None]:
        """See `Provenance`."""
        return self.provenance.model

    @property
    def versions(self) -> dict[str, str]:
        """See `Provenance`."""
        return self.provenance.versions

    @property
    def seed(self) -> int:
        """See `Provenance`."""
        return self.provenance.seed

    @property
    def intervention(self) -> LatentAdded:
        """The last step's latent, with the method's way of decoding."""
        return LatentAdded(self.latent, contrast=self.method.contrast_decoding)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        if not self.steps:
            return f"Trace(no steps, {self.stopped}, {self.question!r})"
        first, last = self.steps[0], self.steps[-1]
        words = self._words()
        return (
            f"Trace({self.model['name']}, {self.question!r}, {type(self.method).__name__}\n"
            f"  {updates_text(len(self) - 1)}, {self.stopped}: energy {first.energy:.4f} -> {last.energy:.4f}, "
            f"share {short(where_text(self.regions))} {first.share:.1%} -> {last.share:.1%}\n"
            f"  maps {layers_text(self.layers)} x {len(self.layout)} visual tokens, queries {words!r}\n"
            f"  answers {first.answer!r} -> {last.answer!r})"
        )

    def _repr_html_(self) -> str:
        facts: list[Fact] = [
            ("model", str(self.model["name"])),
            ("question", repr(self.question)),
            ("method", type(self.method).__name__),
            ("regions", ", ".join(repr(region) for region in self.regions)),
            ("steps", f"{updates_text(len(self) - 1)}, {self.stopped}" if self.steps else f"no steps, {self.stopped}"),
        ]
        if not self.steps:
            return card("Trace", facts, self._picture(None, ""))
        first, last = self.steps[0], self.steps[-1]
        words = self._words()
        facts += [
            ("energy", f"{first.energy:.4f} -> {last.energy:.4f}"),
            ("share", f"{first.share:.1%} -> {last.share:.1%} {where_text(self.regions)}"),
            ("maps", f"{layers_text(self.layers)} x {len(self.layout)} visual tokens, queries {words!r}"),
            ("answers", f"{first.answer!r} -> {last.answer!r}"),
        ]
        grids = [self._grid(step) for step in (first, last)]
        top = max(*(float(grid.max()) for grid in grids), 1e-30)
        pictures = [
            self._picture(grid / top, f"step {step.number}: {step.share:.0%} {where_text(self.regions)}")
            for grid, step in zip(grids, (first, last), strict=True)
        ]
        return card("Trace", facts, *pictures, below=steps_table(self.steps))

    def _words(self) -> str:
        """The query tokens; those of learned queries, which are no tokens of the text, may lie beyond it."""
        return " ".join(self.tokens[at] if at < len(self.tokens) else f"query {at}" for at in self.queries)

    def _grid(self, step: Step) -> np.ndarray:
        """A step's mean map as (row, column), as a share of the attention on the image."""
        values = step.maps.mean(0).numpy()
        return self.layout.raster(values / max(float(values.sum()), 1e-30))

    def _picture(self, heat: np.ndarray | None, caption: str) -> Html:
        return picture(
            self.layout.image_size,
            self.image,
            cells=self.layout.cells,
            heat=heat,
            outlines=[region.drawing for region in self.regions],
            caption=caption,
        )

    @property
    def whole(self) -> bool:
        """Whether the run ended by itself or by a callback's wish: it neither goes on, nor was interrupted, nor failed."""
        return (
            bool(self.steps) and self.stopped not in ("running", "interrupted") and not self.stopped.startswith("failed:")
        )

    @property
    def maps(self) -> np.ndarray:
        """(step, layer, visual token) float32."""
        return torch.stack([step.maps for step in self.steps]).numpy()

    @property
    def target(self) -> Target:
        """The regions as the run's energies see them."""
        return self.method.target(self.layout, self.regions)

    def table(self) -> str:
        """The steps as a plain-text table."""
        lines = ["step   energy   share  |latent|  |gradient|  seconds  answer"]
        for step in self.steps:
            gradient = "-" if step.gradient_norm is None else f"{step.gradient_norm:.3g}"
            lines.append(
                f"{step.number:4d}  {step.energy:7.4f}  {step.share:6.1%}  {step.latent_norm:8.3g}  {gradient:>10}  "
                f"{step.seconds:7.3f}  {step.answer or ''}".rstrip()
            )
        return "\n".join(lines)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the trace as safetensors with JSON metadata and a hash of all bytes; see `files.write_whole`.

        Raises:
            OutputError: when the file cannot be written.
            TraceError: when there are no steps yet, or numbers are not finite.
        """
        return write_trace(path, *self.contents())

    def contents(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What is saved: tensors and plain data.

        Raises:
            TraceError: when there are no steps yet.
        """
        if not self.steps:
            raise TraceError("A trace needs at least one step to be saved; this one has none.")
        plain = [{key: value for key, value in _fields(step).items() if key != "maps"} for step in self.steps]
        data = {
            "steps": plain,
            "stopped": self.stopped,
            "method": self.method.to_json(),
            "regions": [region.to_json() for region in self.regions],
            "layout": self.layout.to_json(),
            **{name: getattr(self, name) for name in _PLAIN},
        }
        tensors = {
            "maps": torch.from_numpy(self.maps),
            "latent": self.latent.contiguous(),
            "image": torch.from_numpy(self.image.copy()),
        }
        return tensors, data

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Trace":
        """Reopen a saved trace; needs no model. What the file holds is checked, its hash too where it has one.

        Raises:
            TraceError: for a file that is missing, damaged, or not a trace.
        """
        return cls.restored(read_trace(path))

    @classmethod
    def restored(cls, found: dict[str, Any]) -> "Trace":
        """Of the attributes that a file holds."""
        provenance = Provenance(*(found.pop(name) for name in ("model", "versions", "seed")))
        return cls(**found | {"steps": [Step(**step) for step in found["steps"]], "provenance": provenance})


def steps_table(steps: Sequence[Step]) -> Html:
    """What `Trace.table` says, as HTML with bars for the share; the middle of a long run is left out."""
    left_out = max(len(steps) - ROWS, 0)
    rows: list[list[object]] = []
    for step in [*steps[: ROWS // 2], *steps[ROWS // 2 + left_out :]]:
        gradient = "-" if step.gradient_norm is None else f"{step.gradient_norm:.3g}"
        numbers = [f"{step.energy:.4f}", f"{step.share:.1%}", bar(step.share), f"{step.latent_norm:.3g}", gradient]
        rows.append([step.number, *numbers, f"{step.seconds:.3f}", step.answer or ""])
    if left_out:
        rows.insert(ROWS // 2, [*["..."] * 7, f"{left_out} more steps"])
    return table(["step", "energy", "share", Html(""), "|latent|", "|gradient|", "seconds", "answer"], rows)


_PLAIN = ("layers", "queries", "tokens", "question", "text", "image_hash", "model", "versions", "seed")


def _fields(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in Step.__dataclass_fields__}
