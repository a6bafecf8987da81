"""What a way of referring is: settings that are declared once, and what it does with image, question and model."""

import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from PIL import Image

from ..errors import PromptError, SettingsError
from ..inputs.regions import Region
from ..models.interventions import Intervention
from ..models.mllm import Mllm
from ..models.prompt import Prompt
from ..notation import PLACE
from ..strict import kind_of, number
from .settings import Setting, settings_of

Self_ = TypeVar("Self_", bound="Method")


@dataclass(frozen=True, eq=False)
class Request:
    """What a model is asked.

    Args:
        image: upright RGB image.
        question: the words; PLACE in them stands for the region's.
        regions: in pixels of this image; one or more.

    Raises:
        PromptError: for a question that is no text.

    Examples:
        >>> cm.methods.Request(scene.image, "What is {place}?", (box,)).regions
        (Box(x0=146, y0=79, x1=192, y1=127),)
    """

    image: Image.Image = field(repr=False)
    question: str
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        named(self.question, "")

    def named(self, place: str) -> "Request":
        """The same with these words in the question for PLACE; "" leaves it out."""
        return replace(self, question=named(self.question, place))


def named(question: str, place: str) -> str:
    """A question with words for PLACE; "" leaves it out.

    Raises:
        PromptError: for what is no text.
    """
    kind_of(question, str, "A question must be a text", PromptError)
    words = question.replace(PLACE, place)
    return words if place or words == question else re.sub(r"\s+([,.;:?!])", r"\1", " ".join(words.split()))


@dataclass(frozen=True)
class Method:
    """A way of referring: settings, and up to three things that it does.

    It may change what is sent (`sent`), do something to the model while it answers (`intervention`), or take steps
    towards such an intervention (a `LatentMethod`). A subclass is a frozen dataclass in a file of its own, whose fields
    are declared by `settings.setting` and checked when it is made; `registry.register` makes it known to the command line,
    the workbench, saved files and documents.

    Attributes:
        label: what people call it; the class's name when empty.
        variants: other ways to make it, by their names on the command line: names of its class methods.
        told: whether it goes by the region; one that does not answers the same whatever was drawn.
        source: what to cite for it: keys of `sources.bib`, or entries of BibTeX; see `cite`.

    Examples:
        >>> method = cm.methods.Drawn("ellipse")
        >>> isinstance(method, cm.Method), method.overlay
        (True, 'ellipse')
        >>> method.to_json()["name"]
        'Drawn'
    """

    label: ClassVar[str] = ""
    told: ClassVar[bool] = True
    variants: ClassVar[dict[str, str]] = {}
    source: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for each in settings_of(type(self)):
            object.__setattr__(self, each.name, each.read(getattr(self, each.name)))

    @classmethod
    def settings(cls) -> tuple[Setting, ...]:
        """The declared settings, in their order."""
        return tuple(settings_of(cls))

    @classmethod
    def strength_setting(cls) -> Setting | None:
        """The setting that says how far the method goes; None for a method that has no such number."""
        return next((each for each in settings_of(cls) if each.strength), None)

    def times(self: Self_, factor: float) -> Self_:
        """The same method, so many times as strong.

        Raises:
            SettingsError: for what is no number, a method without a strength or one that is left open, and a strength that
                is out of range.
        """
        declared = self.strength_setting()
        value = None if declared is None else getattr(self, declared.name)
        if declared is None or value is None:
            raise SettingsError(f"{self.called()} has no strength that could be multiplied; resolve it for a model first.")
        value = number(number(factor, "The factor of a strength") * value, f"The strength of {self.called()}")
        changes: dict[str, Any] = {declared.name: round(value) if declared.kind.name == "whole" else value}
        return replace(self, **changes)

    @classmethod
    def called(cls) -> str:
        """What people call it."""
        return cls.__dict__.get("label") or cls.__name__

    def resolve(self: Self_, mllm: Mllm) -> Self_:
        """The same method with every setting filled in for a model.

        Raises:
            SettingsError: for a setting out of the model's range, or one left open without a default.
        """
        return self

    def sent(self, request: Request, mllm: Mllm) -> Request:
        """What the model is asked in place of the user's request, and where the regions are in what it is given.

        A question that still has PLACE in it afterwards is asked without.

        Raises:
            RegionError: for a region that cannot be said so.
        """
        return request

    def intervention(self, mllm: Mllm, prompt: Prompt, regions: tuple[Region, ...]) -> Intervention | None:
        """What is done to the model while it answers the prompt of what was sent; None where nothing is.

        Args:
            mllm: the model that prepared the prompt.
            prompt: of the image and question that `sent` gave.
            regions: where `sent` says that they are, in pixels of the image; one or more.
        """
        return None

    def sources(self) -> tuple[str, ...]:
        """What to cite for the method as it is set."""
        return self.source

    def to_json(self) -> dict[str, Any]:
        """Its name and settings as plain values; see `registry.method_from_json`."""
        return {"name": type(self).__name__, **asdict(self)}

    @classmethod
    def names(cls) -> set[str]:
        """The names of all its fields."""
        return {each.name for each in fields(cls)}


def given_method(method: object, otherwise: Method) -> Method:
    """The method that was given, or another when it is None; raises as `as_method`."""
    return otherwise if method is None else as_method(method)


def as_method(method: object) -> Method:
    """The method that was given.

    Raises:
        SettingsError: for what is no method: its name, or its class.
    """
    return kind_of(method, Method, "A method must be one with its settings, as ControlMLLM()")
