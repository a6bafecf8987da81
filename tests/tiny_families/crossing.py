"""Families in which text or learned queries attend to states outside the sequence."""

import torch
import transformers

from .base import CLIP, SIGLIP, Built, Words, images, model, squared, text, tiny, tokenizer

QUERIES = 4


def q_former(words: Words, model_type: str, **settings: object) -> dict:
    """Config of a Q-Former of which every second layer looks at the image."""
    vision = CLIP | {"model_type": f"{model_type}_vision_model"}
    former = text(words, f"{model_type}_qformer", num_hidden_layers=3, encoder_hidden_size=32, cross_attention_frequency=2)
    return {
        "vision_config": vision,
        "qformer_config": former,
        "num_query_tokens": QUERIES,
        "image_token_index": words.convert_tokens_to_ids("<image>"),
        **settings,
    }


@tiny("blip-2")
def blip_2() -> Built:
    words = tokenizer("<image>")
    config = text(words, "opt", ffn_dim=64, word_embed_proj_dim=32)
    processor = transformers.Blip2Processor(squared("BlipImageProcessorPil"), words, num_query_tokens=QUERIES)
    return model("blip-2", text_config=config, **q_former(words, "blip_2")), processor


@tiny("instructblip")
def instructblip() -> Built:
    words = tokenizer("<image>")
    processor = transformers.InstructBlipProcessor(
        squared("BlipImageProcessorPil"), words, tokenizer("<image>"), num_query_tokens=QUERIES
    )
    return model("instructblip", text_config=text(words), **q_former(words, "instructblip")), processor


@tiny("idefics2")
def idefics2() -> Built:
    words = tokenizer(image_token="<image>", image_boundary_token="<fake_token_around_image>")
    perceiver = {
        "hidden_size": 32,
        "resampler_n_latents": QUERIES,
        "resampler_depth": 2,
        "resampler_n_heads": 4,
        "resampler_head_dim": 8,
        "num_key_value_heads": 2,
    }
    # Sides that are no multiples of the patch's.
    seen = images("Idefics2ImageProcessorPil", size={"shortest_edge": 30, "longest_edge": 60}, do_image_splitting=False)
    processor = transformers.Idefics2Processor(seen, words, image_seq_len=QUERIES)
    built = model(
        "idefics2",
        attending="model.connector.perceiver_resampler",
        text_config=text(words, "mistral"),
        vision_config={name: value for name, value in SIGLIP.items() if name != "model_type"},
        perceiver_config=perceiver,
        image_token_id=words.image_token_id,
    )
    return built, processor


@tiny("mllama")
def mllama() -> Built:
    words = tokenizer("<|python_tag|>", "<|begin_of_text|>", image_token="<|image|>")
    tiles = 4
    ratios = [[rows, columns] for rows in range(1, tiles + 1) for columns in range(1, tiles // rows + 1)]
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "max_num_tiles": tiles,
        "intermediate_layers_indices": [0, 1],
        "vision_output_dim": 96,
        "supported_aspect_ratios": ratios,
    }
    config = text(words, "mllama_text_model", num_hidden_layers=4, cross_attention_layers=[1, 3])
    built = model("mllama", text_config=config, vision_config=vision, image_token_index=words.image_token_id)
    for name, gate in built.named_parameters():
        # Closed gates, as at the start of training, would hide the image.
        if "cross_attn_" in name and name.endswith("_gate"):
            gate.data.fill_(0.5)
    return built, transformers.MllamaProcessor(squared("MllamaImageProcessorPil", max_image_tiles=tiles), words)


VQ = {"embed_dim": 8, "latent_channels": 8, "base_channels": 32, "num_res_blocks": 1, "channel_multiplier": [1, 1, 1, 1]}


def local(encoder: torch.nn.Module) -> None:
    """Makes random convolutions look at their own cell of the image, as training does."""
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d) and module.kernel_size[-1] > module.stride[-1]:
            side, step = module.kernel_size[-1], module.stride[-1]
            first = 0 if module.padding in (0, (0, 0)) else side // 2
            taps = torch.full((side, side), 0.05)
            taps[first : first + step, first : first + step] = 1
            module.weight.data.normal_().mul_(taps)


def equal_codes(codebook: torch.nn.Embedding) -> None:
    """Makes all codes of a random codebook likely."""
    codebook.weight.data = torch.nn.functional.normalize(torch.randn_like(codebook.weight))


@tiny("chameleon")
def chameleon() -> Built:
    codes = [f"IMGIMG{chr(65 + number // 10)}{chr(65 + number % 10)}Z" for number in range(64)]
    words = tokenizer(*codes, image_token="<image>", boi_token="<racm3:break>", eoi_token="<eoss>", sep_token="<sep>")
    built = model(
        "chameleon",
        attending="model.layers",
        **{name: value for name, value in text(words).items() if name != "model_type"},
        vq_config=VQ | {"num_embeddings": 64, "resolution": 32},
        vocabulary_map=words.get_vocab(),
    )
    local(built.model.vqmodel.encoder)
    equal_codes(built.model.vqmodel.quantize.embedding)
    seen = images("ChameleonImageProcessorPil", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return built, transformers.ChameleonProcessor(seen, words, image_seq_length=16)


@tiny("idefics")
def idefics() -> Built:
    words = tokenizer("<fake_token_around_image>", "<end_of_utterance>", image_token="<image>")
    config = {name: value for name, value in text(words).items() if name not in ("model_type", "num_key_value_heads")}
    vision = {name: value for name, value in CLIP.items() if name not in ("model_type", "hidden_size")}
    gates = {"cross_layer_interval": 2, "alpha_type": "vector", "qk_layer_norms": True}
    built = model(
        "idefics",
        attending="model.gated_cross_attn_layers",
        **config | {"num_hidden_layers": 4},
        **gates,
        vision_config=vision | {"embed_dim": 32},
    )
    return built, transformers.IdeficsProcessor(images("IdeficsImageProcessorPil", image_size=32), words)
