"""Loading a model, and what can be done with it: prepare prompts, answer them."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from ..errors import PromptError, UnsupportedModelError
from ..images import read_image
from . import decoding
from .embedded import EMBEDDED_MODEL
from .families import Family, family_of
from .prompt import Prompt
from .replay import record


class Mllm:
    """A multimodal language model with its processor; neither is changed by anything this package does.

    Args:
        model: a transformers model of a supported family.
        processor: its processor.
        name: what the model is called in traces; its `name_or_path` when left out.
        revision: of the checkpoint, for traces.
    """

    def __init__(self, model: Any, processor: Any, name: str | None = None, revision: str | None = None):
        self.family: Family = family_of(model)
        self.model = model
        self.processor = processor
        self.name = name or str(getattr(model.config, "name_or_path", "")) or type(model).__name__
        self.revision = revision or getattr(model.config, "_commit_hash", None)

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return (
            f"Mllm({self.name}: {type(self.model).__name__}, {count / 1e6:.1f} M parameters, {self.layers} layers x "
            f"{self.heads} heads, {self.model.dtype}, {self.device}, {self.family.way_in})"
        )

    @property
    def decoder(self) -> Any:
        """The language model whose call is recorded and replayed."""
        return self.family.find_decoder(self.model)

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return int(self.decoder.config.num_hidden_layers)

    @property
    def heads(self) -> int:
        """Number of query heads per layer."""
        return int(self.decoder.config.num_attention_heads)

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    def prepare(self, image: str | PathLike | Image.Image | np.ndarray, question: str) -> Prompt:
        """Image and question as the model reads them; runs the vision encoder once.

        Args:
            image: path, PIL image or uint8 array.
            question: the user's words, without the image placeholder or the template around them.

        Raises:
            ImageError: for an image that cannot be read.
            PromptError: for an empty question, or one that contains the image placeholder.
            UnsupportedModelError: when no visual tokens, or another number than the layout's, reach the language model.
        """
        image = read_image(image)
        text = self._prompt_text(question)
        batch = self.processor(images=image, text=text, return_tensors="pt")
        inputs = {
            name: tensor.to(self.device, self.model.dtype if tensor.is_floating_point() else None)
            for name, tensor in batch.items()
        }
        ids = inputs["input_ids"][0].tolist()
        image_id = self.model.config.image_token_id
        visual = tuple(position for position, token in enumerate(ids) if token == image_id)
        if not visual:
            raise UnsupportedModelError(
                f"A prompt must hold visual tokens (token id {image_id}); {self.name} was given none. "
                "Check that processor and model belong together."
            )
        layout = self.family.layout(self.model, self.processor, image.size, len(visual))
        return Prompt(
            image=image,
            question=question,
            text=text,
            inputs=inputs,
            tokens=tuple(_readable(token) for token in self.processor.tokenizer.convert_ids_to_tokens(ids)),
            visual=visual,
            text_span=self._text_span(text, question, ids),
            layout=layout,
            call=record(self.model, self.decoder, inputs, torch.tensor(visual, device=self.device)),
        )

    def generate(
        self,
        prompt: Prompt,
        latent: torch.Tensor | None = None,
        contrast: decoding.Contrast | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> str:
        """The model's answer, with `latent` on the visual tokens.

        Args:
            prompt: from `prepare` of this model.
            latent: (visual token, width); None answers unsteered.
            contrast: decode against the answer without the latent (ControlMLLM++); needs a latent to have an effect.
            max_new_tokens: upper bound on the answer's length.
            **options: for `model.generate` (num_beams, do_sample, ...).

        Raises:
            CaptureError: for a latent of another prompt's shape.
            SettingsError: for a contrast together with beams or sampling.
        """
        options = {"max_new_tokens": max_new_tokens} | options
        return decoding.generate(self.model, self.processor, prompt, latent, contrast, **options)

    def _prompt_text(self, question: str) -> str:
        if not isinstance(question, str) or not question.strip():
            raise PromptError(f"A question must be a text with at least one word; got {question!r}.")
        placeholders = {self.family.image_token, str(getattr(self.processor, "image_token", self.family.image_token))}
        for placeholder in sorted(placeholders):
            if placeholder in question:
                raise PromptError(
                    f"A question must not contain the image placeholder {placeholder!r}, which the template adds; "
                    f"got {question!r}."
                )
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": question}]
            return self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        return self.family.template.format(question=question)

    def _text_span(self, text: str, question: str, ids: list[int]) -> tuple[int, ...]:
        """Positions of the question's tokens, counted from the end: only the placeholder before them is expanded."""
        tokenizer = self.processor.tokenizer
        if not tokenizer.is_fast:
            raise UnsupportedModelError(
                f"{self.name} must have a fast tokenizer, to know which tokens are the question's; "
                f"got {type(tokenizer).__name__}."
            )
        encoded = tokenizer(text, return_offsets_mapping=True)
        start = text.rfind(question.strip())
        end = start + len(question.strip())
        raw = encoded["input_ids"]
        chosen = [i for i, (low, high) in enumerate(encoded["offset_mapping"]) if low < end and high > start and high > low]
        if start < 0 or not chosen or raw[chosen[0] :] != ids[chosen[0] - len(raw) :]:
            raise UnsupportedModelError(
                f"The question must stand after the image and unchanged in the prompt of {self.name}; got {text!r}."
            )
        return tuple(len(ids) - len(raw) + i for i in chosen)


def load(
    model: str | PathLike | tuple[Any, Any] | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Mllm:
    """Load a model: the embedded one, a checkpoint, or one you already hold.

    Args:
        model: None for the embedded model; a hub id or a local folder; or a pair (model, processor).
        revision: of a hub checkpoint.
        trust_remote_code: run code that comes with a checkpoint; off unless you turn it on.
        **options: for `from_pretrained` (dtype, device_map, quantization_config, attn_implementation, ...).

    Raises:
        UnsupportedModelError: for a checkpoint that is missing or cannot be loaded, or a family this package does not know.
    """
    if isinstance(model, tuple):
        if len(model) != 2 or options or revision:
            raise UnsupportedModelError(
                "A model in hand must be given as (model, processor), without loading options; "
                f"got {len(model)} parts and options {sorted(options)}."
            )
        return Mllm(*model)
    if model is None:
        options = {"dtype": torch.float32} | options
    source = EMBEDDED_MODEL if model is None else Path(model).expanduser() if Path(model).expanduser().is_dir() else model
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        loaded = AutoModelForImageTextToText.from_pretrained(source, **common, **options)
        family_of(loaded)
        processor = AutoProcessor.from_pretrained(source, **common)
    except (OSError, ValueError) as error:
        if isinstance(error, UnsupportedModelError):
            raise
        raise UnsupportedModelError(
            f"A model must be a hub id or a folder with an image-text-to-text checkpoint and its processor; "
            f"{source} cannot be loaded: {error}"
        ) from error
    return Mllm(loaded, processor, name="embedded" if model is None else str(model), revision=revision)


def _readable(token: str) -> str:
    """A token without its tokenizer's marks for spaces and line breaks."""
    return token.replace("\u2581", " ").replace("\u0120", " ").replace("\u010a", "\n").strip(" ") or token
