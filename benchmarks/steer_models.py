"""The models that `benchmarks.steer` measures: random weights, made where they run, without a download; and smol."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig, LlavaConfig, PreTrainedTokenizerFast
from transformers import Qwen2_5_VLConfig as QwenConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import cmllm_tools as cm
from benchmarks.capture import random_llava
from cmllm_tools.models.processors import processor_class, without_video
from cmllm_tools.models.smol import CELLS, NAME, SIDE
from training.embedded.architecture import build_processor
from training.embedded.language import BOS, EOS, IMAGE, PAD, UNK, vocabulary

# As many as the largest image and the question take.
POSITIONS = 32768
QWEN_PATCH = 28
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|> user {% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|> {% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|> {% endfor %}"
    "<|im_start|> assistant :"
)


@dataclass(frozen=True)
class Made:
    """How a model is made.

    Args:
        build: from the grid of visual tokens its image is to have, and the device.
        pixels: of the image's side, for each visual token of a side.
        grid: visual tokens of a side, for a model that has one number of them.
    """

    build: Callable[[int, torch.device], cm.Mllm]
    pixels: int
    grid: int | None = None


def small(grid: int, device: torch.device) -> cm.Mllm:
    """The LLaVA of `benchmarks.capture`: 12 layers, width 512, float32."""
    mllm = random_llava(grid, POSITIONS)
    mllm.model.to(device)
    return mllm


def llava(grid: int, device: torch.device) -> cm.Mllm:
    """LLaVA-1.5-7B with its own tower (CLIP-L/14), 24 x 24 visual tokens in the published one."""
    words = vocabulary()
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=grid * 14,
        patch_size=14,
        projection_dim=768,
    )
    # Its defaults are the 7B's.
    text = LlamaConfig(
        vocab_size=32064,
        max_position_embeddings=POSITIONS,
        bos_token_id=words[BOS],
        eos_token_id=words[EOS],
        pad_token_id=words[PAD],
    )
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=words[IMAGE],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return cm.Mllm(_random(config, device), build_processor(grid * 14, 14), name="random LLaVA-1.5-7B")


def qwen(grid: int, device: torch.device) -> cm.Mllm:
    """Qwen2.5-VL-7B with its own tower; the grid is the image's."""
    names = ["<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    table = {word: number for number, word in enumerate([PAD, BOS, EOS, UNK, *names])}
    table |= {word: len(table) + number for number, word in enumerate(word for word in vocabulary() if word not in table)}
    core = Tokenizer(models.WordLevel(table, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNK,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        extra_special_tokens={"image_token": names[2], "video_token": names[3]},
    )
    tokenizer.add_special_tokens({"extra_special_tokens": names})
    text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": POSITIONS,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        "eos_token_id": table[EOS],
        "pad_token_id": table[PAD],
    }
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "out_hidden_size": 3584,
    }
    config = QwenConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=table[names[2]],
        video_token_id=table[names[3]],
        vision_start_token_id=table[names[4]],
        vision_end_token_id=table[names[5]],
        tie_word_embeddings=False,
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=14, merge_size=2, size={"shortest_edge": QWEN_PATCH**2, "longest_edge": POSITIONS * QWEN_PATCH**2}
    )
    parts = {"image_processor": images, "tokenizer": tokenizer}
    kind = without_video(processor_class("Qwen2_5_VLProcessor"))
    processor = kind.from_args_and_dict(list(parts.values()), {"chat_template": QWEN_TEMPLATE})
    return cm.Mllm(_random(config, device), processor, name="random Qwen2.5-VL-7B")


def smol(grid: int, device: torch.device) -> cm.Mllm:
    """SmolLM2-135M-Instruct with its own eyes, as `make smol` has put it together."""
    return cm.load(NAME, device_map=device)


MODELS = {
    "small": Made(small, 14),
    NAME: Made(smol, SIDE // CELLS, CELLS),
    "llava-1.5-7b": Made(llava, 14),
    "qwen2.5-vl-7b": Made(qwen, QWEN_PATCH),
}


def _random(config: transformers.PretrainedConfig, device: torch.device) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.device(device):
        built: torch.nn.Module = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).eval()
    return built
