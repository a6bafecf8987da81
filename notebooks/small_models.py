"""Small random models for lesson 02: the architectures of published ones, built from their configs and saved to a folder."""

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

# It builds a processor without its video part, which would need torchvision; `cm.load` does the same where that is missing.
from cmllm_tools.models.processors import without_video

# A notebook keeps such a bar as it was drawn first.
transformers.utils.logging.disable_progress_bar()


def small_qwen2_5_vl(folder):
    """Save a Qwen2.5-VL of 0.1 M parameters; returns the folder."""
    words = small_tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
    )
    template = (
        "user : {% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|> "
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %} assistant :"
    )
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=14, merge_size=2, size={"shortest_edge": 56 * 56, "longest_edge": 300 * 300}
    )
    processor = without_video(transformers.Qwen2_5_VLProcessor).from_args_and_dict(
        [images, words], {"chat_template": template}
    )
    return small_model(
        folder,
        "qwen2_5_vl",
        processor,
        text_config=text_config(
            words, rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
        ),
        vision_config=dict(
            depth=2,
            hidden_size=32,
            intermediate_size=64,
            out_hidden_size=32,
            num_heads=2,
            patch_size=14,
            fullatt_block_indexes=[1],
            window_size=56,
        ),
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
        vision_start_token_id=words.vision_start_token_id,
        vision_end_token_id=words.vision_end_token_id,
    )


def small_llava_next(folder):
    """Save a LLaVA-NeXT of 0.1 M parameters; returns the folder."""
    words = small_tokenizer(image_token="<image>")
    pinpoints = [[48, 96], [96, 48], [96, 96], [144, 48], [48, 144]]
    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}, image_grid_pinpoints=pinpoints
    )
    processor = transformers.LlavaNextProcessor(
        images, words, patch_size=12, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return small_model(
        folder,
        "llava_next",
        processor,
        text_config=dict(model_type="llama", **text_config(words)),
        vision_config=dict(
            model_type="clip_vision_model",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=48,
            patch_size=12,
        ),
        image_grid_pinpoints=pinpoints,
        image_token_id=words.image_token_id,
        vision_feature_layer=-1,
    )


def small_tokenizer(**special):
    """A word-level tokenizer whose special tokens are attributes, as `tokenizer.image_token`."""
    words = [
        "<unk>",
        "<s>",
        "</s>",
        "<pad>",
        *special.values(),
        *"user assistant : what is the red blue round thing ?".split(),
    ]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=list(special.values()),
        extra_special_tokens=special,
    )


def small_model(folder, model_type, processor, **config):
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(transformers.AutoConfig.for_model(model_type, **config))
    for parameter in model.get_decoder().parameters():
        if parameter.dim() > 1:  # large weights: attention far from uniform
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def text_config(tokenizer, **more):
    return dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        **more,
    )
