"""Loading a processor, also where its video part cannot be had: that needs torchvision, and images do not."""

from typing import Any

import transformers
from transformers import AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

VIDEO = "video_processor"


def load_processor(source: Any, model_type: str, **options: Any) -> Any:
    """The processor of a checkpoint; without its video part where torchvision is not installed.

    Raises:
        ImportError: for a processor whose image part needs torchvision.
        OSError: for one that is not there.
    """
    try:
        return AutoProcessor.from_pretrained(source, **options)
    except (ImportError, OSError) as error:
        saved, _ = ProcessorMixin.get_processor_dict(source, **options)
        name = saved.get("processor_class") or PROCESSOR_MAPPING_NAMES.get(model_type)
        cls = getattr(transformers, name or "", None)
        if cls is not None and VIDEO in cls.get_attributes():
            return without_video(cls).from_pretrained(source, **options)
        raise error


def without_video(whole: type[Any]) -> type[Any]:
    """A processor class whose instances are made by `from_pretrained`, or `from_args_and_dict`, without the video part."""

    class ImagesOnly(whole):
        _whole = False

        @classmethod
        def get_attributes(cls) -> list[str]:
            names = super().get_attributes()
            return names if cls._whole else [name for name in names if name != VIDEO]

        @classmethod
        def from_args_and_dict(cls, args: list[Any], processor_dict: dict[str, Any], **options: Any) -> Any:
            # The class hands its parts on by position: while it does, the missing one keeps its place.
            parts = list(args)
            parts.insert(whole.get_attributes().index(VIDEO), None)
            cls._whole = True
            try:
                return super().from_args_and_dict(parts, processor_dict, **options)
            finally:
                cls._whole = False

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return None if name == VIDEO else super().check_argument_for_proper_class(name, argument)

        def save_pretrained(self, *args: Any, **options: Any) -> Any:
            # What a class saves beyond its parts belongs to the missing one (a font for times).
            return ProcessorMixin.save_pretrained(self, *args, **options)

    ImagesOnly.__name__ = ImagesOnly.__qualname__ = whole.__name__
    return ImagesOnly
