"""A multimodal language model and what can be done with it: prepare prompts, answer them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch

from ..errors import PromptError, SettingsError, UnsupportedModelError
from ..inputs.conversation import Conversation, Messages, is_messages, read_messages
from ..inputs.images import ImageSource
from ..inputs.video import Video
from ..layout.placement import Placement
from ..strict import kind_of, one_of, shown, whole_numbers
from . import decoding
from .answer import Answer
from .contrast import Contrast
from .family import Family
from .interventions import Intervention
from .latent import Latent, read_intervention
from .look import Look, look
from .lookup import family_of, probed_family
from .options import LAST_ID
from .origin import looked_once
from .prepare import prepare
from .processors import fitted
from .prompt import Prompt
from .ready_made import ready_made
from .spelling import spelled
from .undisturbed import locked, undisturbed
from .wrappers import unwrapped

_NONE = object()


def require(mllm: object, prompt: object = _NONE) -> None:
    """Refuse what is no model, or no prompt, at the door of a function that takes them.

    Raises:
        UnsupportedModelError: for a transformers model without its processor, or anything else that is no `Mllm`.
        PromptError: for what is no `Prompt`.
    """
    kind_of(mllm, Mllm, "A model must be an Mllm, as cmllm_tools.load(model) gives it", UnsupportedModelError)
    if prompt is not _NONE:
        kind_of(prompt, Prompt, "A prompt must be one from Mllm.prepare(image, question)", PromptError)


class Mllm:
    """A multimodal language model with its processor; neither is changed by anything this package does.

    Args:
        model: a transformers model of a supported family.
        processor: its processor; settings that old checkpoints leave out are taken from the model, on a copy.
        name: what the model is called in traces; its `name_or_path` when left out.
        revision: of the checkpoint, for traces.
        layout: "table" lays visual tokens out by the family's row; "probe" finds out where each of them looks by moving a
            band over probe images, for a family without a row too.

    Attributes:
        gradient_checkpointing: compute layers again in the backward pass of a step, for less memory and more time; off
            unless you turn it on.

    Raises:
        UnsupportedModelError: for a family without a row, unless it is to be probed, a model compiled in place, and a name,
            revision or layout that is none.

    Examples:
        >>> mllm
        Mllm(embedded: LlavaForConditionalGeneration, 3.5 M parameters, 6 layers x 6 heads, torch.float32, cpu,
        projector in the sequence)
        >>> mllm.layers, mllm.heads
        (6, 6)
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str | None = None,
        revision: str | None = None,
        layout: Literal["table", "probe"] = "table",
    ):
        one_of(layout, "layout", ("table", "probe"), UnsupportedModelError)
        for what, text in (("A model's name", name), ("A revision", revision)):
            if text is not None:
                kind_of(text, str, f"{what} must be a text", UnsupportedModelError)
        model = unwrapped(model)
        self.family: Family = family_of(model) if layout == "table" else probed_family(model)
        self.model = model
        self.processor = fitted(processor, model)
        self.name = name or str(getattr(model.config, "name_or_path", "")) or type(model).__name__
        self.revision = revision or getattr(model.config, "_commit_hash", None)
        self.gradient_checkpointing = False
        self.probed: dict[tuple[Any, ...], Placement] = {}

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return (
            f"Mllm({self.name}: {type(self.model).__name__}, {count / 1e6:.1f} M parameters, {self.layers} layers x "
            f"{self.heads} heads, {self.model.dtype}, {self.device}, {self.family.way_in})"
        )

    @property
    def decoder(self) -> Any:
        """The module whose call is recorded and replayed: the language model, or the one that cross-attends."""
        return self.model.get_submodule(self.family.site.call)

    @cached_property
    def attention_modules(self) -> dict[Any, int]:
        """The attention modules that look at visual states, with their layers' numbers."""
        return self.family.attention_modules(self.model)

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """Numbers of the layers that look at visual states, ascending."""
        return tuple(sorted(self.attention_modules.values()))

    @property
    def layers(self) -> int:
        """Number of layers, counted to the last one that looks at visual states."""
        return self.attention_layers[-1] + 1

    @property
    def heads(self) -> int:
        """Number of query heads per layer."""
        return int(getattr(next(iter(self.attention_modules)).config, self.family.heads))

    @property
    def image_token_id(self) -> int:
        """Token that stands for the image in the prompt; -1 where the family has none."""
        return self._token_id("image_token_id")

    @property
    def video_token_id(self) -> int:
        """Token that stands for a video in the prompt; -1 where the family has none, or writes its frames as images."""
        return self._token_id("video_token_id")

    def _token_id(self, name: str) -> int:
        named = (getattr(part, name, None) for part in (self.model.config, self.processor))
        return next((token for token in named if token is not None), -1)

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        embeddings = self.model.get_input_embeddings()
        # Weights that accelerate brings in when they are needed are nowhere until then.
        hook = getattr(embeddings, "_hf_hook", None) if embeddings.weight.is_meta else None
        return embeddings.weight.device if hook is None else torch.device(hook.execution_device)

    def look(self, image: ImageSource, **processor_options: Any) -> Look:
        """See an image once, for several questions about it: `prepare(look, question)`, or `refer(mllm, look, ...)`.

        The vision encoder runs here, and not for the questions and answers. Where the model's text can continue from a
        cached image, system prompt and image run through the language model once too, when they are first needed: plain
        answers, those of `KeySteering` and its steps go on from there, and are what they would be without, but for
        rounding. After the model's weights, dtype or device have changed, prompts are prepared anew. A look holds the
        encoder's outputs and the image's keys and values on the model's device.

        Args:
            image, **processor_options: as for `prepare`.

        Raises:
            ImageError, PromptError, UnsupportedModelError: as `prepare` does.
        """
        with undisturbed(self.model), locked(getattr(self.processor, "tokenizer", self.processor)), looked_once():
            return look(self, image, processor_options)

    def prepare(
        self,
        image: ImageSource | Sequence[ImageSource] | Look | Video | Conversation | Messages,
        question: str | None = None,
        *,
        images: Sequence[ImageSource] | None = None,
        chat_template: str | None = None,
        text: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        **processor_options: Any,
    ) -> Prompt:
        """Image and question as the model reads them; runs the vision encoder once, or not for an image looked at before.

        Args:
            image: all that `read_image` takes, of at least 4 px a side; a `Look` of this model; or a `Video`, from
                `read_video`, where a region says on which frames it is: `Box(..., frames=(2, 5))`. Or a conversation, which
                has its question: messages of transformers' chat format, or a `Conversation`, as a prompt keeps it. The
                question is then the last text of its last turn, and a region's `image` the number of the one that it is on.
            question: the user's words, without the image placeholder or the template around them; None of a conversation.
            images: of a conversation, those that its messages leave out, in their order.
            chat_template: of a conversation: in the place of the processor's and the tokenizer's.
            text: the whole prompt in its template, with the placeholder of each image and the question in it, as the
                processor takes it; no template is used then. `image` may be a list of images.
            inputs: what the model's own processor has made of the image, or a list of images, and a text with the question
                in it: one prompt, `return_tensors="pt"`. They are given to the model as they are, on its device; the image
                is for its size and for pictures. Methods that draw into the image cannot have them.
            **processor_options: for the processor: padding on the left, for example. Settings of its image part are set on
                `processor.image_processor`, where layout rules read them.

        Raises:
            ImageError: for an image that cannot be read, is too small for the model, or that the processor cannot take.
            PromptError: for an empty question, one that contains the image placeholder or stands before the image, padding
                on the right, options that the processor would ignore, settings of the image processor, a prompt that would
                be cut or is longer than the model's positions, a look of another model, options beside a look, messages
                that are none, several images of a family that takes one, and a template that changes what was said; for
                a text or inputs without the question or the image, of several prompts, or that the model does not take.
            UnsupportedModelError: when no visual tokens, or another number than the layout's, reach the language model; for
                a video of a family whose layout in time is not known, and without torchvision.
        """
        if isinstance(image, Video) and question is not None and text is None and inputs is None:
            image, question = image.asked(question), None
        talk = image if isinstance(image, Conversation) else None
        if text is not None or inputs is not None:
            talk, question = self._ready_made(image, question, text, inputs, processor_options), None
        if is_messages(image):
            talk = read_messages(image, images, chat_template)
        elif images is not None or chat_template is not None:
            raise PromptError("images and chat_template must be left out but for a conversation in messages; this is none.")
        if (talk is None) == (question is None):
            raise PromptError(
                "A prompt must have a question, as prepare(image, question), or be a conversation, whose last turn asks "
                f"it; got {shown(question)}."
            )
        asked = "" if question is None else question
        # The whole of it is one thread's, as fast tokenizers keep settings of one call that another would use.
        with undisturbed(self.model), locked(getattr(self.processor, "tokenizer", self.processor)), looked_once():
            if not isinstance(image, Look):
                return prepare(self, image if talk is None else talk, asked, processor_options, given=inputs)
            if processor_options:
                raise PromptError(
                    f"Options of the processor must be given to look(image, ...), which keeps them; got "
                    f"{shown(processor_options)} beside a look."
                )
            image.check(self)
            return prepare(self, image.image, asked, image.options, image)

    def _ready_made(self, image: Any, question: str | None, text: Any, inputs: Any, options: Any) -> Conversation:
        """A prompt that is made already, as the conversation that it is of."""
        if text is not None and inputs is not None:
            raise PromptError("A prompt that is made already must be given as text or as inputs; got both.")
        if isinstance(image, Look | Conversation | Video) or is_messages(image):
            raise PromptError(f"text and inputs must be given with an image or a list of images; got {shown(image)}.")
        if inputs is not None and options:
            raise PromptError(
                f"Options of the processor must be left out where its inputs are given; got {shown(options)}."
            )
        return ready_made(self, image, question, text)

    def words(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Token ids as strings, without the tokenizer's marks; of a character's several tokens the last one shows it."""
        ids = whole_numbers(ids, "Token ids", 0, LAST_ID, PromptError)
        with locked(self.processor.tokenizer):
            return spelled(self.processor.tokenizer, ids)

    def generate(
        self,
        prompt: Prompt,
        intervention: Intervention | Latent | None = None,
        contrast: Contrast | float | None = None,
        max_new_tokens: int = 64,
        *,
        latent: Latent | None = None,
        **options: Any,
    ) -> Answer:
        """The model's answer, with what an intervention does to it.

        Args:
            prompt: from `prepare` of this model.
            intervention: what is done to the model, with its way of decoding: an `Intervention`, or an `Outcome`, `Trace`
                or `Steering` that has one; or a latent (visual token, width), tensor or array, which is added to the visual
                tokens and decoded plainly unless `contrast` is given. None answers unsteered.
            contrast: decode against the answer without the intervention (ControlMLLM++): a `Contrast`, or its strength; 0
                decodes plainly; None leaves it to the intervention. Needs one to have an effect.
            max_new_tokens: upper bound on the answer's length.
            latent: the same as `intervention`, by the name that it had; one of the two.
            **options: for `model.generate` (num_beams, do_sample, streamer, logits_processor, ...). With a contrast,
                processors and streamers see one row, as without: processors the scores that the contrast has combined.

        Returns:
            The answer's text, which knows its tokens (`Answer.ids`), what each says and how likely the model found it
            (`Answer.pieces`), and why it ended. Beams take one more forward, for the likelihoods of the one that is kept.

        Raises:
            CaptureError: for a latent of another prompt's shape, or one that is not finite.
            PromptError: for several copies of a prompt, and a prompt of another model, or of another dtype or device.
            SettingsError: for an option that cannot be kept or is out of range, for a contrast together with beams or
                sampling, and for a family that cannot do it.
        """
        require(self, prompt)
        prompt.check(self)
        if latent is not None and intervention is not None:
            raise SettingsError("An answer is given with one intervention or latent; got both. Leave out latent.")
        found = read_intervention(intervention if latent is None else latent, prompt.call)
        return decoding.generate(self, prompt, found, contrast, {"max_new_tokens": max_new_tokens} | options)
