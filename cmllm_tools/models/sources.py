"""Where a model comes from, for whoever cites it: keys of sources.bib by the name or the class of the model."""

_BY_CLASS = {
    "InstructBlipForConditionalGeneration": "dai2023instructblip",
    "LlavaForConditionalGeneration": "liu2024llava15",
    "Qwen2_5_VLForConditionalGeneration": "bai2025qwen25vl",
    "VipLlavaForConditionalGeneration": "cai2024prompts",
}
# The embedded models are this package's own.
_BY_NAME = {"embedded": (), "embedded-no-marks": (), "smol": ("allal2025smollm2",)}


def model_sources(name: str | None, kind: str | None) -> tuple[str, ...]:
    """Keys of a model's sources; none where they are not known.

    Args:
        name: as `Mllm.name` is.
        kind: name of its class in transformers.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    return (_BY_CLASS[kind],) if kind in _BY_CLASS else ()
