"""What referring to a region came to: the answer, what was sent and done for it, and what it took."""

import hashlib
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import PromptError
from ..inputs.conversation import Conversation
from ..inputs.regions import Region
from ..layout.sheet import cut_up
from ..models.answer import Answer
from ..models.interventions import Intervention
from ..models.mllm import Mllm, require
from ..models.prompt import Prompt
from ..shown import Fact, Shown
from .answer_file import answer_data
from .method import Method
from .outcome_file import contents_of, read_outcome, restored, within, write_outcome
from .provenance import Provenance
from .trace import Trace
from .trace_file import COPY_SIZE, trace_attributes


@dataclass(frozen=True, eq=False)
class Sent:
    """What the model was really given.

    Args:
        image: upright RGB image; reopened from a file it is a copy of at most COPY_SIZE px a side.
        question: the user's words, or those that a method made of them.
        text: what the processor was given, template and placeholder included.
        size: (width, height) of the image that was sent.
        regions: where the regions are in it, in its pixels.
        image_hash: SHA-256 of its RGB pixels.
        conversation: whose images stand on a sheet, which is the image; None of one image and one question.
    """

    image: Image.Image = field(repr=False)
    question: str
    text: str
    size: tuple[int, int]
    regions: tuple[Region, ...]
    image_hash: str
    conversation: Conversation | None = None

    @classmethod
    def of(
        cls,
        image: Image.Image,
        question: str,
        text: str,
        regions: tuple[Region, ...],
        conversation: Conversation | None = None,
    ) -> "Sent":
        """Of an image that is at hand."""
        digest = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
        return cls(image, question, text, image.size, regions, digest, conversation)


@dataclass(frozen=True, eq=False, repr=False)
class Outcome(Shown):
    """An answer about regions, with all that belongs to it; `mllm.generate(prompt, outcome.intervention)` gives it again.

    Args:
        answer: the text, which knows its tokens (`answer.ids`).
        method: with every setting filled in.
        regions: in pixels of the user's image.
        question: the user's words.
        size: (width, height) of the user's image.
        sent: what the model was given; see `prompt`.
        intervention: what was done to the model while it answered; None where nothing was.
        trace: of the steps that led there; None for a method that takes none.
        seconds: from image and question to the answer.
        peak_memory: the most that was in use meanwhile above what was before, in bytes; see `cost.Cost`.
        provenance: model, versions and seed.

    Examples:
        >>> outcome = cm.refer(mllm, scene.image, "describe the object.", box, cm.methods.AttentionEdit(3))
        >>> print(outcome.answer)
        red cross at the right
        >>> path = outcome.save("outcome.safetensors")
        >>> print(mllm.generate(prompt, cm.Outcome.load(path)))
        red cross at the right
    """

    answer: Answer
    method: Method
    regions: tuple[Region, ...]
    question: str
    size: tuple[int, int]
    sent: Sent
    intervention: Intervention | None
    trace: Trace | None
    seconds: float
    peak_memory: int
    provenance: Provenance

    @property
    def interrupted(self) -> bool:
        """Whether the steps were cut short: the answer is there, but an evaluation may not count it."""
        return self.trace is not None and self.trace.stopped == "interrupted"

    def prompt(self, mllm: Mllm) -> Prompt:
        """What was sent, prepared again.

        Raises:
            PromptError: for an outcome that was reopened, whose file has a smaller copy of the image.
        """
        require(mllm)
        if self.sent.image.size != self.sent.size:
            raise PromptError(
                f"An outcome's image must be whole to be sent again, {self.sent.size}; its file kept a copy of "
                f"{self.sent.image.size} px. Prepare the image itself."
            )
        if self.sent.conversation is not None:
            return mllm.prepare(self.sent.conversation)
        return mllm.prepare(self.sent.image, self.sent.question)

    def facts(self) -> list[Fact]:
        facts: list[Fact] = [
            ("", repr(str(self.answer))),
            ("model", str(self.provenance.model["name"])),
            ("method", self.method.called()),
            ("question", repr(self.question)),
        ]
        if self.sent.question != self.question:
            facts.append(("sent", repr(self.sent.question)))
        facts.append(("regions", ", ".join(map(repr, self.regions))))
        if self.intervention is not None:
            facts.append(("intervention", type(self.intervention).__name__))
        if self.trace is not None:
            facts.append(("run", f"{len(self.trace) - 1} updates, {self.trace.stopped}"))
        return [*facts, ("took", f"{self.seconds:.2f} s"), ("and", f"{self.peak_memory / 2**20:.0f} MiB")]

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it as safetensors with JSON metadata and a hash of all bytes, the trace included.

        Raises:
            OutputError: when the file cannot be written.
            DataError: for an intervention that is not one of the package's, or numbers that are not finite.
        """
        return write_outcome(path, *self.contents())

    def contents(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What is saved: tensors and plain data."""
        copy = self.sent.image.copy()
        copy.thumbnail((COPY_SIZE, COPY_SIZE))
        tensors = {"image": torch.from_numpy(np.array(copy))}
        data: dict[str, Any] = {
            "answer": answer_data(self.answer),
            "method": self.method.to_json(),
            "regions": [region.to_json() for region in self.regions],
            "question": self.question,
            "size": list(self.size),
            "sent": {
                "regions": [region.to_json() for region in self.sent.regions],
                **{name: getattr(self.sent, name) for name in ("question", "text", "size", "image_hash")},
                "conversation": None if self.sent.conversation is None else self.sent.conversation.to_json(),
            },
            "seconds": self.seconds,
            "peak_memory": self.peak_memory,
            "provenance": asdict(self.provenance),
            "intervention": None,
            "trace": None,
        }
        if self.trace is not None:
            # The trace has the intervention too.
            of_trace, data["trace"] = self.trace.contents()
            tensors |= {f"trace.{name}": tensor for name, tensor in of_trace.items()}
        elif self.intervention is not None:
            parts, data["intervention"] = contents_of(self.intervention)
            tensors |= {f"intervention.{name}": tensor for name, tensor in parts.items()}
        return tensors, data

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Outcome":
        """Reopen a saved outcome; needs no model. What the file holds is checked.

        Raises:
            DataError: for a file that is missing, damaged, or no outcome.
        """
        data, tensors = read_outcome(path)
        trace = None if data["trace"] is None else Trace.restored(trace_attributes(data["trace"], within(tensors, "trace")))
        intervention: Intervention | None = trace.intervention if trace is not None else None
        if data["intervention"] is not None:
            intervention = restored(data["intervention"], within(tensors, "intervention"))
        image = Image.fromarray(tensors["image"].numpy())
        if (talk := data["sent"]["conversation"]) is not None and image.size == data["sent"]["size"]:
            data["sent"]["conversation"] = talk.showing(cut_up(image, talk.sizes))
        return cls(
            answer=data["answer"],
            method=data["method"],
            regions=data["regions"],
            question=data["question"],
            size=data["size"],
            sent=Sent(image, **data["sent"]),
            intervention=intervention,
            trace=trace,
            seconds=data["seconds"],
            peak_memory=data["peak_memory"],
            provenance=Provenance(**data["provenance"]),
        )
