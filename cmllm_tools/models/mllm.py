"""A multimodal language model and what can be done with it: prepare prompts, answer them."""

from functools import cached_property
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ..errors import PromptError, SettingsError, UnsupportedModelError
from ..images import ImageSource, refusing_small_images
from . import decoding
from .family import Family
from .geometry import Placement, Seen
from .lookup import family_of, probed_family
from .probe import probe
from .prompt import Prompt
from .replay import LanguageCall, record
from .wrappers import unwrapped


class Mllm:
    """A multimodal language model with its processor; neither is changed by anything this package does.

    Args:
        model: a transformers model of a supported family.
        processor: its processor.
        name: what the model is called in traces; its `name_or_path` when left out.
        revision: of the checkpoint, for traces.
        layout: "table" lays visual tokens out by the family's row; "probe" finds out where each of them looks by moving a
            band over probe images, for a family without a row too.

    Attributes:
        gradient_checkpointing: compute layers again in the backward pass of a step, for less memory and more time; off
            unless you turn it on.

    Raises:
        UnsupportedModelError: for a family without a row, unless it is to be probed, and for a model compiled in place.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str | None = None,
        revision: str | None = None,
        layout: Literal["table", "probe"] = "table",
    ):
        if layout not in ("table", "probe"):
            raise UnsupportedModelError(f"layout must be 'table' or 'probe'; got {layout!r}.")
        model = unwrapped(model)
        self.family: Family = family_of(model) if layout == "table" else probed_family(model)
        self.model = model
        self.processor = processor
        self.name = name or str(getattr(model.config, "name_or_path", "")) or type(model).__name__
        self.revision = revision or getattr(model.config, "_commit_hash", None)
        self.gradient_checkpointing = False
        self._probed: dict[tuple, Placement] = {}

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
        named = (getattr(part, "image_token_id", None) for part in (self.model.config, self.processor))
        return next((token for token in named if token is not None), -1)

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        embeddings = self.model.get_input_embeddings()
        # Weights that accelerate brings in when they are needed are nowhere until then.
        hook = getattr(embeddings, "_hf_hook", None) if embeddings.weight.is_meta else None
        return embeddings.weight.device if hook is None else torch.device(hook.execution_device)

    @refusing_small_images
    def prepare(self, image: ImageSource, question: str, **processor_options: Any) -> Prompt:
        """Image and question as the model reads them; runs the vision encoder once.

        Args:
            image: all that `read_image` takes, of at least 4 px a side.
            question: the user's words, without the image placeholder or the template around them.
            **processor_options: for the processor: padding on the left, for example. Settings of its image part are set on
                `processor.image_processor`, where layout rules read them.

        Raises:
            ImageError: for an image that cannot be read, or is too small for the model.
            PromptError: for an empty question, one that contains the image placeholder, padding on the right, or settings
                of the image processor.
            UnsupportedModelError: when no visual tokens, or another number than the layout's, reach the language model.
        """
        text = self._prompt_text(question)
        inputs = self._inputs(image, text, processor_options)
        ids = inputs["input_ids"][0].tolist()
        padding = self._padding(inputs)
        candidates, image_end, call = self._candidates(inputs)
        placement = self._placement(image, text, inputs, len(candidates), processor_options)
        visual = candidates[torch.from_numpy(placement.placed(image.size))]
        call = call.at(visual) if call is not None else record(self.model, self.family.site, inputs, visual)
        return Prompt(
            image=image,
            question=question,
            text=text,
            inputs=inputs,
            tokens=self.words(ids),
            visual=tuple(visual.tolist()),
            image_end=image_end,
            text_span=tuple(padding + position for position in self._text_span(text, question, ids[padding:])),
            layout=placement.layout(image.size),
            call=call,
            learned=int(attrgetter(self.family.learned)(self.model.config)) if self.family.learned else 0,
        )

    def words(self, ids: list[int]) -> tuple[str, ...]:
        """Token ids as strings, without the tokenizer's marks for spaces and line breaks."""
        return tuple(_readable(token) for token in self.processor.tokenizer.convert_ids_to_tokens(ids))

    def _inputs(self, image: Image.Image, text: str, options: dict[str, Any]) -> dict[str, Any]:
        images = getattr(self.processor, "image_processor", None)
        named = {**options, **options.get("images_kwargs", {})}
        changed = [name for name, value in named.items() if hasattr(images, name) and getattr(images, name) != value]
        if changed and self.family.layout is not None:
            raise PromptError(
                f"Settings of the image processor must be set on it, where the layout rule reads them "
                f"(mllm.processor.image_processor.{changed[0]} = ...); got {sorted(changed)} for one prompt."
            )
        if "mm_token_type_ids" in getattr(self.processor, "model_input_names", ()):
            # Not every processor whose model needs them returns them of its own accord.
            options = {"return_mm_token_type_ids": True} | options
        batch = self.processor(images=image, text=text, return_tensors="pt", **options)
        return {
            name: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            if torch.is_tensor(value)
            else value
            for name, value in batch.items()
        }

    def _candidates(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, int, LanguageCall | None]:
        """Positions that may hold visual tokens, where the text goes on after the image, and the call if known by then."""
        ids, site = inputs["input_ids"][0], self.family.site
        image_id = self.image_token_id
        placeholders = (ids == image_id).nonzero()[:, 0].cpu()
        image_end = int(placeholders[-1]) + 1 if len(placeholders) else 0
        if not site.in_sequence:
            call = record(self.model, site, inputs, placeholders)
            return torch.arange(call.states.shape[:-1].numel()), image_end, call
        if not len(placeholders):
            raise UnsupportedModelError(
                f"A prompt must hold visual tokens (token id {image_id}); {self.name} was given none. "
                "Check that processor and model belong together."
            )
        return placeholders, image_end, None

    def _placement(
        self, image: Image.Image, text: str, inputs: dict[str, Any], count: int, options: dict[str, Any]
    ) -> Placement:
        if self.family.layout is not None:
            placement = self.family.layout(Seen(self.model, self.processor, image.size, inputs, count))
            if len(placement.boxes) != count:
                raise UnsupportedModelError(
                    f"The layout rule of {self.family.name} must give a box for each of the {count} states that may be "
                    f"visual; it gave {len(placement.boxes)} ({placement.rule}). Check that processor and model belong "
                    "together, and that the processor has its own settings."
                )
            return placement
        key = (image.size, count, repr(options))
        if key not in self._probed:

            def states(probe_image: Image.Image) -> np.ndarray:
                probed = self._inputs(probe_image, text, options)
                candidates, _, call = self._candidates(probed)
                call = call or record(self.model, self.family.site, probed, candidates)
                return call.at(candidates).visual_states.float().cpu().numpy()

            self._probed[key] = probe(states, image.size)
        return self._probed[key]

    def _padding(self, inputs: dict[str, Any]) -> int:
        """Number of padding tokens before the prompt."""
        mask = inputs.get("attention_mask")
        if mask is None or bool(mask.all()):
            return 0
        if not mask[0, -1]:
            raise PromptError("A prompt must be padded on the left, so that it ends with its last token; set padding_side.")
        return int((mask[0] == 0).sum())

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
        if contrast is not None and contrast.alpha > 0 and not self.family.contrast:
            raise SettingsError(
                f"Contrastive decoding needs two copies of a prompt in one batch, which {self.family.name} does not keep "
                "apart (see `cmllm families`); leave out the contrast (contrast=0)."
            )
        options = {"max_new_tokens": max_new_tokens} | options
        return decoding.generate(self.model, self.processor, prompt, latent, contrast, **options)

    def _prompt_text(self, question: str) -> str:
        if not isinstance(question, str) or not question.strip():
            raise PromptError(f"A question must be a text with at least one word; got {question!r}.")
        placeholders = {"<image>", str(getattr(self.processor, "image_token", "<image>"))}
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
        """Positions of the question's tokens: the placeholder before them is expanded, and tokens may be added after."""
        tokenizer = self.processor.tokenizer
        if not tokenizer.is_fast:
            raise UnsupportedModelError(
                f"{self.name} must have a fast tokenizer, to know which tokens are the question's; "
                f"got {type(tokenizer).__name__}."
            )
        # The template's own words may be those of the question: the place of a mark says which are meant.
        start = self._prompt_text(_MARK).find(_MARK)
        start = text.find(question.strip(), start) if start >= 0 else -1
        end = start + len(question.strip())
        encoded = tokenizer(text, return_offsets_mapping=True)
        raw = encoded["input_ids"]
        chosen = [i for i, (low, high) in enumerate(encoded["offset_mapping"]) if low < end and high > start and high > low]
        asked = [raw[i] for i in chosen]
        found = [i for i in range(len(ids) - len(asked) + 1) if ids[i : i + len(asked)] == asked]
        if start < 0 or not chosen or not found:
            raise UnsupportedModelError(
                f"The question must stand after the image and unchanged in the prompt of {self.name}; got {text!r}."
            )
        # What follows the question keeps its length, but for a token or two that a processor adds.
        expected = len(ids) - len(raw) + chosen[0]
        first = min(found, key=lambda i: abs(i - expected))
        return tuple(range(first, first + len(asked)))


# Stands for a question, in no template and no language.
_MARK = "\ufffc"


def _readable(token: str) -> str:
    """A token without its tokenizer's marks for spaces and line breaks."""
    return token.replace("\u2581", " ").replace("\u0120", " ").replace("\u010a", "\n").strip(" ") or token
