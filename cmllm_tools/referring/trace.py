"""What a run leaves behind: every step's figures and maps on the CPU, saved and reopened without the model."""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import TraceError
from ..inputs.regions import Region, short, where_text
from ..layout.visual_tokens import VisualTokenLayout
from ..models.interventions import Intervention
from ..notation import layers_text, text_table, updates_text
from ..shown import Fact, Shown, in_words
from .answer_file import answer_data
from .latent_method import LatentMethod
from .provenance import Provenance
from .target import Target
from .trace_file import read_trace, write_trace

# Heads of a table of steps.
STEP_COLUMNS = ("step", "energy", "share", "|latent|", "|gradient|", "seconds", "answer")


@dataclass(eq=False, repr=False)
class Step(Shown):
    """One forward of the run, before the update that follows it; step 0 is unsteered.

    Args:
        number: how many updates the latent has had.
        energy: of the context-token map.
        share: of the map that lies in the regions, 0..1.
        maps: (layer, visual token), mean over queries and heads; see `layer_maps`. Their mean is the map that was scored.
        latent_norm: Euclidean norm of the latent.
        gradient_norm: of the energy's gradient at the latent; None for the last step, which needs none.
        seconds: for forward and backward.
        answer: the model's `Answer` with this step's latent, where it was asked for.

    Examples:
        >>> step = trace.steps[0]
        >>> step.number, f"{step.energy:.2f}", f"{step.share:.0%}"
        (0, '0.84', '8%')
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
        return f"{type(self).__name__}({self.number}: {in_words(self.facts())})"

    def facts(self) -> list[Fact]:
        _, energy, share, latent, gradient, seconds, _ = self.cells
        facts = [("energy", energy), ("share", share), ("latent", latent)]
        facts += [("gradient", gradient)] if self.gradient_norm is not None else []
        return [*facts, ("", f"{seconds} s"), *([("", repr(self.answer))] if self.answer is not None else [])]

    @property
    def cells(self) -> tuple[str, ...]:
        """The step's row in any table of steps, a text to each of STEP_COLUMNS."""
        return (
            f"{self.number}",
            f"{self.energy:.4f}",
            f"{self.share:.1%}",
            f"{self.latent_norm:.3g}",
            "-" if self.gradient_norm is None else f"{self.gradient_norm:.3g}",
            f"{self.seconds:.3f}",
            self.answer or "",
        )


@dataclass(eq=False, repr=False)
class Trace(Shown):
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
        image: RGB copy of the image, (height, width, 3) uint8, at most COPY_SIZE px a side, or VIDEO_COPY_SIZE of
            a video's frames side by side.
        image_hash: SHA-256 of the image's RGB pixels.
        provenance: model, versions and seed.

    Examples:
        >>> path = trace.save("run.safetensors")
        >>> again = cm.Trace.load(path)
        >>> len(again.steps), again.question
        (4, 'describe the object.')
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

    def frame(self) -> Any:
        """The steps as a pandas DataFrame, a row each: step, energy, share, norms, seconds, answer.

        Raises:
            ModuleNotFoundError: without pandas.
        """
        try:
            from pandas import DataFrame
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Trace.frame needs pandas, which is not installed here. Run: pip install 'cmllm_tools[paper]'"
            ) from error
        names = ("energy", "share", "latent_norm", "gradient_norm", "seconds", "answer")
        return DataFrame([{"step": step.number} | {name: getattr(step, name) for name in names} for step in self.steps])

    @property
    def intervention(self) -> Intervention:
        """The last step's latent, with the method's way of decoding."""
        return self.method.done(self.latent)

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
            f"  answers {self._answers()})"
        )

    def facts(self) -> list[Fact]:
        facts = [
            ("model", str(self.model["name"])),
            ("question", repr(self.question)),
            ("method", type(self.method).__name__),
            ("regions", ", ".join(repr(region) for region in self.regions)),
            ("steps", f"{updates_text(len(self) - 1)}, {self.stopped}" if self.steps else f"no steps, {self.stopped}"),
        ]
        if not self.steps:
            return facts
        first, last = self.steps[0], self.steps[-1]
        words = self._words()
        return [
            *facts,
            ("energy", f"{first.energy:.4f} -> {last.energy:.4f}{', it rose' if self.rose else ''}"),
            ("share", f"{first.share:.1%} -> {last.share:.1%} {where_text(self.regions)}"),
            ("maps", f"{layers_text(self.layers)} x {len(self.layout)} visual tokens, queries {words!r}"),
            ("answers", self._answers()),
        ]

    def _answers(self) -> str:
        first, last = self.steps[0].answer, self.steps[-1].answer
        return "not asked for (callbacks=[Answers()])" if first is last is None else f"{first!r} -> {last!r}"

    def _words(self) -> str:
        """The query tokens; those of learned queries, which are no tokens of the text, may lie beyond it."""
        return " ".join(self.tokens[at] if at < len(self.tokens) else f"query {at}" for at in self.queries)

    @property
    def whole(self) -> bool:
        """Whether the run ended by itself or by a callback's wish: it neither goes on, nor was interrupted, nor failed."""
        return (
            bool(self.steps) and self.stopped not in ("running", "interrupted") and not self.stopped.startswith("failed:")
        )

    @property
    def rose(self) -> bool:
        """Whether the energy is higher at the last step than it was before any."""
        return len(self.steps) > 1 and self.steps[-1].energy > self.steps[0].energy

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
        return text_table([STEP_COLUMNS, *(step.cells for step in self.steps)], ">>>>>><", (4, 7, 6, 8, 10, 7))

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
        plain = [_plain(step) for step in self.steps]
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


_PLAIN = ("layers", "queries", "tokens", "question", "text", "image_hash", "model", "versions", "seed")


def _plain(step: Step) -> dict[str, Any]:
    """A step's fields but its maps."""
    found = {name: getattr(step, name) for name in Step.__dataclass_fields__ if name != "maps"}
    return found | {"answer": None if step.answer is None else answer_data(step.answer)}
