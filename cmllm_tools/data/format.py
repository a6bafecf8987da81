"""A format: which files say that a folder is of it, and how a line of them becomes an example. One file a format."""

from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..errors import DataError, SettingsError
from ..files import reason, said
from ..strict import flag, one_of, register_class, shown
from .dataset import Dataset
from .example import Example
from .lines import Row

# Other packages declare modules that register formats under this name in their pyproject.toml.
GROUP = "cmllm_tools.formats"
FORMATS: "dict[str, type[Format]]" = {}
Kind = TypeVar("Kind", bound="type[Format]")


@dataclass(frozen=True)
class Format:
    """How a set is read: a subclass says which file is its list of examples, and makes an example of a row.

    Args:
        region: which of an object's regions is referred to, where a set has several.
        located: whether the question says in words where, as it was published for models that read coordinates.
        place: whether `{place}` stands in the question where the set has `<location>`: methods that say where in words fill
            it in, others leave it out.

    Attributes:
        name: of the format, by which it is asked for.
        files: where its list may lie below the folder that is given, best first; patterns as `glob` has them.
        regions: kinds of region that the set has.
        scorer: name of the scorer that it is published with.

    Examples:
        >>> cm.data.all_formats()["roc"]().files
        ('question_roc.json', 'LVIS/question_roc.json', 'ROC/question_roc.json')
    """

    name: ClassVar[str] = ""
    files: ClassVar[tuple[str, ...]] = ()
    regions: ClassVar[tuple[str, ...]] = ("box",)
    scorer: ClassVar[str] = "strict"

    region: str = "box"
    located: bool = False
    place: bool = False

    def __post_init__(self) -> None:
        one_of(self.region, f"The kind of region of a {self.name} set", (*self.regions, self.regions[0]), SettingsError)
        if flag(self.located, "located") and flag(self.place, "place"):
            raise SettingsError("A question has either the place in words or {place} for them; got located and place.")

    def rows(self, file: Path) -> list[Row]:
        """The examples' rows; nothing is looked into that is not needed for their ids and splits.

        Raises:
            DataError: for a list that cannot be read.
        """
        raise NotImplementedError

    def example(self, file: Path, row: Row) -> Example:
        """A row's example; paths are made by `lines.below`, so that none leads out of the set's folder.

        Raises:
            DataError: for a row that is malformed; the message goes on from "line 3".
        """
        raise NotImplementedError

    @classmethod
    def found(cls, root: Path) -> Path | None:
        """The list of a set that lies in a folder, or is given by itself; None where there is none of this format."""
        if root.is_file():
            names = [pattern.rpartition("/")[2] for pattern in cls.files]
            return root if any(root.match(name) for name in names) else None
        for pattern in cls.files:
            if there := sorted(path for path in root.glob(pattern) if path.is_file()):
                return there[0]
        return None


def register(kind: Kind) -> Kind:
    """Make a format known by its name; a decorator, too.

    Raises:
        SettingsError: for what is no format, or a name that another one has.

    Examples:
        >>> from dataclasses import dataclass
        >>> @cm.data.register
        ... @dataclass(frozen=True)
        ... class Lines(cm.data.Format):
        ...     "A text file: an image and a question on each line."
        ...
        ...     name = "lines"
        ...     files = ("lines.txt",)
        >>> "lines" in cm.data.all_formats()
        True
    """
    if not (isinstance(kind, type) and issubclass(kind, Format) and kind.name and kind.files):
        raise SettingsError(f"A format must be a subclass of data.Format with a name and files; got {shown(kind)}.")
    register_class(FORMATS, kind.name, kind, "A format")
    return kind


def all_formats() -> "dict[str, type[Format]]":
    """Every format by its name, those of installed packages among them.

    Examples:
        >>> sorted(cm.data.all_formats())
        ['coco', 'folder', 'refcocog', 'roc', 'rtc', 'screenspot', 'vip-bench']
    """
    from . import formats  # noqa: F401

    _load_installed()
    return dict(sorted(FORMATS.items()))


@cache
def _load_installed() -> None:
    for declared in entry_points(group=GROUP):
        declared.load()


def read(folder: str | PathLike[str], format: str | None = None, **options: Any) -> Dataset:  # noqa: A002
    """A set in one of the public formats, or of one's own; see `cmllm data formats`.

    Args:
        folder: of the set, or its list of examples; for a set of the reference's layout also the folder that has it.
        format: its name; found out by the files that are there when None.
        **options: of the format, as `region="mask"` and `located=True`.

    Raises:
        DataError: for a folder that is missing, of no format, or of several, and a list that cannot be read.
        SettingsError: for a format or an option that does not exist.

    Examples:
        >>> dataset = cm.data.read(cm.bench.HELDOUT, region="mask")
        >>> dataset[0].region
        Mask(734 of 192 x 192 px)
    """
    known = all_formats()
    if format is not None:
        one_of(format, "The format", list(known), SettingsError)
    root = _existing(folder)
    wanted = known if format is None else {format: known[format]}
    there = {name: file for name, kind in wanted.items() if (file := _list_of(kind, root, format)) is not None}
    if not there:
        needs = "; ".join(f"{name}: {', '.join(kind.files)}" for name, kind in wanted.items())
        raise DataError(f"A set's folder must have its list of examples; {said(root)} has none of these: {needs}.")
    if len(there) > 1:
        raise DataError(
            f"A folder of several sets needs a format or the folder of one; {said(root)} has {', '.join(there)}."
        )
    ((name, file),) = there.items()
    kind = known[name]
    if unknown := set(options) - {each.name for each in fields(kind)}:
        settings = ", ".join(each.name for each in fields(kind))
        raise SettingsError(f"A {name} set is read with {settings}; got {', '.join(sorted(unknown))} too.")
    found = kind(**options)
    return Dataset(name, file.parent, tuple(found.rows(file)), _Maker(found, file), kind.scorer)


@dataclass(frozen=True)
class _Maker:
    """A row's example, as a value that goes to another process."""

    format: Format
    file: Path

    def __call__(self, row: Row) -> Example:
        return self.format.example(self.file, row)


def _existing(folder: Any) -> Path:
    try:
        root = Path(folder).expanduser()
        if not root.exists():
            raise DataError(f"A set must be a folder; there is no {said(root)}.")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"A set must be a folder; {said(folder)} is none: {reason(error)}.") from error
    return root


def _list_of(kind: type[Format], root: Path, asked: str | None) -> Path | None:
    """The list of examples; whoever names a format may call its file as they like."""
    return root if asked is not None and root.is_file() else kind.found(root)
