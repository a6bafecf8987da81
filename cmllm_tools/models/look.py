"""An image seen once: what the vision encoder made of it, and the prefix, for several questions about it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn

from ..errors import PromptError
from ..inputs.images import ImageSource, read_image
from ..shown import Fact, Shown
from .answer import Answer
from .origin import Origin, looked_once
from .prepare import prepare
from .prompt import Prompt
from .template import STAND_IN
from .together import answers_together
from .undisturbed import locked, undisturbed

if TYPE_CHECKING:
    from .mllm import Mllm

# Of an image's prompts so many are kept: each has the states of all its tokens.
MOST_PROMPTS = 16


@dataclass(frozen=True, eq=False, repr=False)
class Look(Shown):
    """An image that a model has looked at, from which questions about it are prepared: `mllm.prepare(look, question)`.

    The vision encoder has run. System prompt and image are run through the language model once, when the first answer or
    step needs it and where the model's text can continue from them; prompts share this as long as the model stays as it is.

    Args:
        prompt: the image with a stand-in for the question.
        before: what the modules before the language model gave, call by call.
        origin: the model, and its state then.
        options: for the processor.

    Examples:
        >>> look = mllm.look(scene.image)
        >>> [str(mllm.generate(mllm.prepare(look, question))) for question in ("describe the object.", scene.question)]
        ['blue zero at the center', 'blue zero at the center']
    """

    prompt: Prompt
    before: Mapping[nn.Module, list[Any]] = field(repr=False)
    origin: Origin
    options: dict[str, Any]

    @property
    def image(self) -> Image.Image:
        """Upright RGB image as the user gave it."""
        return self.prompt.image

    def __deepcopy__(self, memo: dict[int, Any]) -> "Look":
        """Itself: it is not changed, and a copy of the modules would be another model's."""
        return self

    def facts(self) -> list[Fact]:
        return [
            ("image", f"{self.image.width} x {self.image.height} px"),
            ("visual", f"{len(self.prompt.visual)} tokens"),
            ("layout", repr(self.prompt.layout)),
        ]

    def check(self, mllm: "Mllm") -> None:
        """Refuse another model than the one that looked.

        Raises:
            PromptError: for another model.
        """
        if self.origin.model() is not mllm.model:
            raise PromptError(
                f"A look must be used with the model that looked; {mllm.name} is another one. Look again with this model."
            )

    def serves(self, mllm: "Mllm") -> bool:
        """Whether the model is as it was, so that what it gave then is what it would give now."""
        # What comes before the call is known not to hang on the question where the conformance suite has tried it.
        return mllm.family.tested and self.prompt.call.module is mllm.decoder and self.origin.unchanged(mllm)

    def fits(self, inputs: Mapping[str, Any]) -> bool:
        """Whether a prompt's tensors are those of this image, and begin with the same tokens."""
        own, end = self.prompt.inputs, self.prompt.image_end
        shapes = [each["input_ids"].shape for each in (own, inputs)]
        if own.keys() != inputs.keys() or shapes[1][1] < end:
            return False
        for name, value in own.items():
            other = inputs[name]
            if not torch.is_tensor(value):
                if value is not other and value != other:
                    return False
            elif name.startswith("qformer_"):
                continue
            elif value.shape[:2] == shapes[0] and other.shape[:2] == shapes[1]:
                if not torch.equal(value[:, :end], other[:, :end]):
                    return False
            elif not torch.equal(value, other):
                return False
        return True


def look(mllm: "Mllm", image: ImageSource, options: dict[str, Any], question: str = STAND_IN) -> Look:
    """See `Mllm.look`.

    Args:
        question: the first one, where it is known: its prompt stands for all, and nothing is run for a stand-in.
    """
    prompt = prepare(mllm, image, question, options, keep_before=True)
    embedding = mllm.model.get_input_embeddings()
    before = {module: given for module, given in prompt.call.before.items() if module is not embedding}
    return Look(prompt, before, Origin.of(mllm), options)


class Seen:
    """An image for several questions and methods in a row: looked at with the first question, and not again.

    Nothing is run before a prompt is asked for. It is for uses between which processor and model stay as they are.

    Args:
        mllm: the model.
        image: all that `read_image` takes.

    Raises:
        ImageError: for an image that cannot be read.
    """

    def __init__(self, mllm: "Mllm", image: ImageSource):
        self.mllm, self.image = mllm, read_image(image)
        self._look: Look | None = None
        # Of the last questions; answers with the seconds that each took.
        self._prompts: dict[str, Prompt] = {}
        self._answers: dict[tuple[str, int], tuple[Answer, float]] = {}

    def prompt(self, question: str) -> Prompt:
        """The image with a question, as `Mllm.prepare` has it.

        Raises:
            ImageError, PromptError, UnsupportedModelError: as `Mllm.prepare`.
        """
        if question not in self._prompts:
            self._prompts[question] = self._prepared(question)
            if len(self._prompts) > MOST_PROMPTS:
                del self._prompts[next(iter(self._prompts))]
        return self._prompts[question]

    def answer(self, prompt: Prompt, max_new_tokens: int) -> tuple[Answer, float]:
        """The plain answer to a prompt of this image, and the seconds that were spent on it before."""
        if (known := self._answers.get((prompt.question, max_new_tokens))) is not None:
            return known
        return self.mllm.generate(prompt, max_new_tokens=max_new_tokens), 0.0

    def _prepared(self, question: str) -> Prompt:
        if self._look is not None:
            return self.mllm.prepare(self._look, question)
        with undisturbed(self.mllm.model), locked(self.mllm.processor.tokenizer), looked_once():
            self._look = look(self.mllm, self.image, {}, question)
            shared = self._look if self._look.serves(self.mllm) else None
        return replace(self._look.prompt, look=shared)


def answer_together(asked: Sequence[tuple[Seen, str]], max_new_tokens: int) -> None:
    """Answer questions about one image or several at once, for `Seen.answer` to have them; see `answers_together`.

    Raises:
        ImageError, PromptError, UnsupportedModelError, NotFiniteError: as `Mllm.prepare` and `Mllm.generate`.
    """
    several = list(dict.fromkeys(asked))
    prompts = [seen.prompt(question) for seen, question in several]
    started = time.perf_counter()
    found = answers_together(several[0][0].mllm, prompts, max_new_tokens)
    seconds = (time.perf_counter() - started) / len(several)
    for (seen, question), answer in zip(several, found, strict=True):
        seen._answers[question, max_new_tokens] = answer, seconds
