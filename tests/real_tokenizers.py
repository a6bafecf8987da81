"""Tokenizers as checkpoints have them, trained on a few lines, and a small random LLaVA that speaks one."""

import json

from tiny_models import tiny_llava
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerFast

LINES = [
    "the category of the cat is red",
    "is the red cross or the dog's cat in the picture ?",
    "describe the object .",
] * 5
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level():
    """As Qwen, Llama 3 and GPT-2 have it: every token is a string of bytes."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # "\u00e9" has a token of its own; other characters beyond ASCII are spread over their bytes.
    trainer = trainers.BpeTrainer(vocab_size=360, initial_alphabet=alphabet, special_tokens=SPECIAL)
    core.train_from_iterator([*LINES, *["\u00e9"] * 50], trainer)
    return core


def fallback_bpe():
    """As Llama 2 and Mistral have it: sentencepiece's BPE, whose unknown characters are spelled in bytes."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL)
    core.train_from_iterator([f"\u2581{line}".replace(" ", " \u2581") for line in LINES], _split(core, trainer))
    data = json.loads(core.to_str())
    data["model"]["vocab"] |= {byte: len(data["model"]["vocab"]) + number for number, byte in enumerate(BYTES)}
    data["model"]["byte_fallback"] = True
    return _sentencepiece(data)


def fallback_unigram():
    """As Gemma and T5 have it: sentencepiece's Unigram, with bytes for unknown characters."""
    core = Tokenizer(models.Unigram())
    trainer = trainers.UnigramTrainer(vocab_size=70, special_tokens=SPECIAL, unk_token="<unk>")
    core.train_from_iterator([f"\u2581{line}".replace(" ", " \u2581") for line in LINES], _split(core, trainer))
    data = json.loads(core.to_str())
    data["model"]["vocab"] += [[byte, -20.0] for byte in BYTES]
    data["model"]["byte_fallback"] = True
    return _sentencepiece(data)


def _split(core, trainer):
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return trainer


def _sentencepiece(data):
    core = Tokenizer.from_str(json.dumps(data | {"pre_tokenizer": None}))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    return core


BUILT = {"byte level": byte_level, "BPE with bytes": fallback_bpe, "Unigram with bytes": fallback_unigram}


def llava_of(core):
    """(model, processor) whose words are those of a tokenizer."""
    words = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
    )
    model, processor = tiny_llava()
    model.resize_token_embeddings(len(words))
    named = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    model.generation_config.update(**named)
    model.config.image_token_id = words.convert_tokens_to_ids("<image>")
    whole = LlavaProcessor(
        image_processor=processor.image_processor,
        tokenizer=words,
        patch_size=processor.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )
    return model, whole
