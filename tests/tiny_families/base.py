"""A small random model and processor for each family, built offline from their configs.

A family is one function: it makes the processor from a tokenizer with the family's special tokens, and the model from the
smallest config that still has the family's features (grouped key heads, windows, several tiles).
"""

from collections.abc import Callable

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.utils import is_torchvision_available

from cmllm_tools.models.processors import VIDEO, without_video
from training.embedded.language import vocabulary

Words = PreTrainedTokenizerFast
Built = tuple[torch.nn.Module, object]
TINY: dict[str, Callable[[], Built]] = {}
# Families that need torchvision: for their image processor, or for timm, which has their encoder and imports it.
TORCHVISION_ONLY: list[str] = []

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SIGLIP = CLIP | {"model_type": "siglip_vision_model"}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def tiny(family: str, torchvision_only: bool = False) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
    """Registers the function below as the builder of a family's tiny model."""

    def register(build: Callable[[], Built]) -> Callable[[], Built]:
        TINY[family] = build
        if torchvision_only:
            TORCHVISION_ONLY.append(family)
        return build

    return register


def tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """Word-level tokenizer of the embedded model's words, with special tokens; named ones become attributes too."""
    words = [word for word in vocabulary() if not word.startswith("<")]
    tokens = ["<unk>", "<s>", "</s>", "<pad>", *special, *named.values()]
    table = {word: number for number, word in enumerate(dict.fromkeys([*tokens, *words]))}
    core = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens=named,
    )
    words.add_special_tokens({"extra_special_tokens": [*special, *named.values()]})
    return words


def text(words: PreTrainedTokenizerFast, model_type: str = "llama", **more: object) -> dict:
    """Config of a two-layer language model with grouped key heads."""
    return {
        "model_type": model_type,
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        **more,
    }


def model(model_type: str, attending: str = "", **config: object) -> torch.nn.Module:
    """The family's random model.

    Weights of the part that attends to visual states (`attending`, or the Q-Former or decoder) are large, so that attention
    is far from uniform; those of the vision encoder are small, so that its residual stream keeps tokens local, as training
    does.
    """
    torch.manual_seed(0)
    built = AutoModelForImageTextToText.from_config(AutoConfig.for_model(model_type, **config)).eval()
    part = built.get_submodule(attending) if attending else getattr(built, "qformer", built.get_decoder())
    large_ones = {id(parameter) for parameter in part.parameters()}
    for parameter in built.parameters():
        if parameter.dim() >= 2:
            large = min(1.0, 1.5 * parameter[0].numel() ** -0.5)
            torch.nn.init.normal_(parameter, std=large if id(parameter) in large_ones else 0.02)
    built.generation_config.update(max_new_tokens=4, do_sample=False)
    return built


def images(name: str, **settings: object) -> object:
    """transformers' PIL image processor of that name, or the one on torchvision where that is at hand."""
    return getattr(transformers, name.removesuffix("Pil") if is_torchvision_available() else name)(**settings)


def processor(name: str, parts: list[object], video: str, frames: dict | None = None, **settings: object) -> object:
    """transformers' processor of that name from its parts, and from its video part where torchvision is at hand.

    Args:
        frames: settings of the video part.
    """
    cls = getattr(transformers, name)
    if VIDEO not in cls.get_attributes():
        return cls(*parts, **settings)
    if not is_torchvision_available():
        return without_video(cls).from_args_and_dict(parts, settings)
    whole = list(parts)
    whole.insert(cls.get_attributes().index(VIDEO), getattr(transformers, video)(**frames or {}))
    return cls.from_args_and_dict(whole, settings)


def squared(name: str, side: int = 32, **settings: object) -> object:
    """An image processor that stretches every image to a square of `side` px."""
    return images(name, size={"height": side, "width": side}, **settings)
