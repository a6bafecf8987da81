"""Image and question of a panel as a prompt, which is prepared anew when it must be, and only then."""

from collections.abc import Callable
from typing import Any

from ..errors import CaptureError, PromptError
from ..inputs.images import ImageSource
from ..models.mllm import Mllm
from ..models.prompt import Prompt


class CurrentPrompt:
    """What a panel asks a model.

    Args:
        mllm: the model.
        image: as for `Mllm.prepare`.
        question: the user's words.

    Attributes:
        source: the image as it was given.
        prompt: of image and question, for the model as it was when they were last prepared.

    Raises:
        ImageError: for an image that cannot be read.
        PromptError: for a question that cannot be asked.
    """

    def __init__(self, mllm: Mllm, image: ImageSource, question: str):
        self._mllm, self.source = mllm, image
        self.prompt: Prompt
        self._equal: list[Prompt]
        self._take(mllm.prepare(image, question))

    def ask(self, question: str) -> None:
        """Ask something else about the image; raises like `Mllm.prepare`."""
        if question != self.prompt.question:
            self._take(self._mllm.prepare(self.prompt.image, question))

    def again(self, use: Callable[[], Any]) -> Any:
        """What `use` does with the prompt; where that is refused, as the model has changed since, with the prompt anew.

        A model may be given another attention implementation, dtype or device in another cell.
        """
        try:
            return use()
        except (CaptureError, PromptError):
            # Something else may have been refused: a mistyped word, for example.
            if self._fits():
                raise
            self.prompt = self._mllm.prepare(*self.prompt.showing(self.prompt.image))
            self._equal.append(self.prompt)
            return use()

    def has(self, prompt: Prompt) -> bool:
        """Whether a prompt was of this image and question, so that its latent belongs to the same tokens."""
        return any(prompt is one for one in self._equal)

    def _fits(self) -> bool:
        try:
            self.prompt.check(self._mllm, replayed=True)
        except (CaptureError, PromptError):
            return False
        return True

    def _take(self, prompt: Prompt) -> None:
        self.prompt, self._equal = prompt, [prompt]
