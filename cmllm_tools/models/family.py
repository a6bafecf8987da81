"""One family of multimodal models, as data: where text meets visual states, and where each of these looks."""

import re
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ..errors import UnsupportedModelError
from ..layout.placement import LayoutRule
from .replay import CallSite

IN_SEQUENCE = CallSite()
SELF_ATTENTION = r"(?:.*\.)?layers\.(\d+)\.self_attn"

# Ways in.
PROJECTOR = "projector in the sequence"
TILES = "tiles"
CODES = "discrete codes in the sequence"
Q_FORMER = "Q-Former"
RESAMPLER = "perceiver resampler"
CROSS_ATTENTION = "gated cross-attention"
NO_ENCODER = "no encoder"
CONVOLUTION = "convolutional encoder"
UNKNOWN = "not in the table"

# Of what changes or reads something inside, the parts that not all families can do.
KNOCKOUT = "knockout among words"
PATCHING = "patching of layers' states"
LENS = "lens"
ACTIVATION = "token activation map"
CAM = "Grad-CAM after layers"


@dataclass(frozen=True)
class Family:
    """One family of models.

    Args:
        name: `model_type` of the config.
        way_in: how visual states reach the text.
        layout: rule that finds each visual token's box; None stands for probing.
        site: where the call is recorded and replayed, and which of its arguments holds the visual states.
        attends: pattern of the paths, within the replayed module, of the attention modules that look at visual states;
            its group is the layer's number.
        heads: attribute of those modules' config that counts query heads.
        learned: path in the model's config to the number of learned queries, where these look at the image in the text's
            place (Q-Former, perceiver).
        template: prompt for processors without a chat template, with `{image}`, where the processor does not add that by
            itself, and `{question}`.
        image: what stands for the image in a prompt.
        excluded: paths to settings in the model's config that rule a model out when on, with the reason.
        least: how many visual tokens an image must fill, as transformers' model fails on fewer.
        batch: whether several prompts run as one batch, copies of one or those of different images.
        contrast: whether contrastive decoding, which needs such a batch, is possible.
        one_image: why two images in one batch are not kept apart; "" where they are.
        several: why a prompt holds one image; "" where it may hold several.
        video: rule that finds the box of each visual token among those that see the same frames of a video; None where
            videos are not laid out. How many frames a token sees is the processor's `temporal_patch_size`.
        processors: whether its `generate` heeds a `logits_processor`.
        beams: whether transformers can search with beams when there is an image.
        prefix: why an answer cannot continue from the cached keys of its image; "" where it can.
        head: why what follows the layers is no head that reads each state by itself; "" where it is.
        stream: why what a layer gives is not a state for each token; "" where it is.
        answer_type: token type of an answer's tokens, where prompts have token types.
        notes: what a user should know.
        tested: whether the conformance suite of this package's tests covers it.
    """

    name: str
    way_in: str
    layout: LayoutRule | None
    site: CallSite = IN_SEQUENCE
    attends: str = SELF_ATTENTION
    heads: str = "num_attention_heads"
    learned: str = ""
    template: str = "USER: {image}\n{question} ASSISTANT:"
    image: str = "<image>"
    excluded: tuple[tuple[str, str], ...] = ()
    least: int = 1
    batch: bool = True
    contrast: bool = True
    one_image: str = ""
    several: str = ""
    video: LayoutRule | None = None
    processors: bool = True
    beams: bool = True
    prefix: str = ""
    head: str = ""
    stream: str = ""
    answer_type: int = 0
    notes: str = ""
    tested: bool = True

    @property
    def beside(self) -> bool:
        """Whether visual states stand beside the text's sequence, and text or learned queries attend to them there."""
        return not self.site.in_sequence or bool(self.learned)

    @property
    def no_prefix(self) -> str:
        """Why what comes before the question cannot be run once and continued from; "" where it can."""
        if self.beside:
            return "its visual states are no tokens of the text's own sequence"
        return self.prefix if self.site.states else "its visual states are added to the text's inside the language model"

    @property
    def no_keys(self) -> str:
        """Why keys of visual tokens cannot be moved by themselves; "" where they can: cached, or beside the text."""
        return "" if self.beside else self.no_prefix

    @property
    def lacking(self) -> tuple[str, ...]:
        """Which of the ways to look for causes, and of the maps of what states hold, are refused, by name."""
        lens = bool(self.learned or self.head or self.stream)
        found = {
            KNOCKOUT: self.beside,
            PATCHING: bool(self.stream),
            LENS: lens,
            ACTIVATION: self.beside,
            CAM: bool(self.beside or self.stream),
        }
        return tuple(name for name, refused in found.items() if refused)

    @property
    def content(self) -> str:
        """The template from the image to the question: what a user says, for chat templates that take one text."""
        start, end = self.template.find("{image}"), self.template.index("{question}")
        return self.template[start if start >= 0 else end : end] + "{question}"

    def check(self, config: Any) -> None:
        """Refuse a config with a setting that the row does not cover.

        Raises:
            UnsupportedModelError: naming the setting and the reason.
        """
        for setting, reason in self.excluded:
            if attrgetter(setting)(config):
                raise UnsupportedModelError(f"A {self.name} model must not have {setting} set: {reason}.")

    def attention_modules(self, model: Any) -> dict[Any, int]:
        """The attention modules that look at visual states, with their layers' numbers.

        Raises:
            UnsupportedModelError: when the model has none.
        """
        inner = model.get_submodule(self.site.call)
        found = {
            module: int(match.group(1))
            for path, module in inner.named_modules()
            if (match := re.fullmatch(self.attends, path))
        }
        if not found:
            raise UnsupportedModelError(
                f"A {self.name} model must have attention modules {self.attends!r} in {self.site.call!r}; "
                f"{type(model).__name__} has none."
            )
        return found

    def layer_modules(self, model: Any) -> list[Any]:
        """The modules, in order, of which the replayed call runs one after another: layers that attend, and others."""
        inner = model.get_submodule(self.site.call)
        paths = (re.fullmatch(self.attends, path) for path, _ in inner.named_modules())
        match = next(match for match in paths if match)
        return list(inner.get_submodule(match.string[: match.start(1) - 1]))
