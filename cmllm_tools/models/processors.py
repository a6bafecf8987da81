"""Loading a processor, also where its video part cannot be had: that needs torchvision, and images do not."""

import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import transformers
from transformers import AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from .interrupts import restoring

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
        cls = processor_class(name) if hasattr(transformers, name or "") else None
        if cls is None:
            raise error
        return (without_video(cls) if VIDEO in cls.get_attributes() else cls).from_pretrained(source, **options)


def processor_class(name: str) -> type[Any]:
    """transformers' processor class of that name, also where it is hidden although its images can be had by PIL alone.

    Such a class takes a helper from the torchvision version of its image processor, and the PIL version has that too.
    """
    found: type[Any] = getattr(transformers, name)
    if not getattr(found, "is_dummy", False):
        return found
    module = found.__module__
    if module not in sys.modules:
        kept, helper = module.replace(".processing_", ".image_processing_"), None
        try:
            helper = import_module(module.replace(".processing_", ".image_processing_pil_"))
        except ImportError:
            return found
        with _ONE_AT_A_TIME, _standing_in(kept, helper):
            import_module(module)
    return getattr(sys.modules[module], name)


# Another thread that imports meanwhile would be given the stand-in.
_ONE_AT_A_TIME = threading.RLock()


@restoring
def _standing_in(name: str, other: ModuleType) -> Iterator[None]:
    """While open, imports of the module `name` give another one."""
    before = sys.modules.get(name)
    sys.modules[name] = other
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


class _Missing(dict[str, Any]):
    """Stands for a video processor: every setting of it is None, and it is written as an empty one."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


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
            # The class hands its parts on by position, and may read their settings: while it does, something keeps the
            # missing one's place.
            parts = list(args)
            parts.insert(whole.get_attributes().index(VIDEO), _Missing())
            cls._whole = True
            try:
                made = super().from_args_and_dict(parts, processor_dict, **options)
            finally:
                cls._whole = False
            setattr(made, VIDEO, None)
            return made

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return None if name == VIDEO else super().check_argument_for_proper_class(name, argument)

        def save_pretrained(self, *args: Any, **options: Any) -> Any:
            # What a class saves beyond its parts belongs to the missing one (a font for times).
            return ProcessorMixin.save_pretrained(self, *args, **options)

    ImagesOnly.__name__ = ImagesOnly.__qualname__ = whole.__name__
    return ImagesOnly
