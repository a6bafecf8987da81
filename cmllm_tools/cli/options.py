"""Options that several commands share, and what they stand for."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from ..errors import OutputError, SettingsError
from ..files import check_writable, existing, said
from ..inputs.regions import Box, Mask, Point, Region, Scribble
from ..loading import load
from ..models.mllm import Mllm
from ..referring.kinds import Kind
from ..referring.latent_method import LatentMethod, given_latent_method
from ..referring.method import Method
from ..referring.methods.controlmllm import ControlMLLM
from ..referring.registry import all_methods
from ..referring.settings import Setting
from ..running.cluster import Workers


def add_region(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """A region, drawn in pixels."""
    region = parser.add_argument_group("region").add_mutually_exclusive_group(required=required)
    region.add_argument("--box", type=float, nargs=4, metavar=("X0", "Y0", "X1", "Y1"), help="corners in pixels")
    region.add_argument(
        "--mask", type=Path, metavar="FILE", help="image of the same size: opaque, or bright on dark, marks the region"
    )
    region.add_argument("--scribble", type=_pair, nargs="+", metavar="X,Y", help="points of a line")
    region.add_argument("--point", type=float, nargs=2, metavar=("X", "Y"))


def region_given(options: argparse.Namespace) -> bool:
    """Whether there is one of `add_region`."""
    return any(value is not None for value in (options.box, options.mask, options.scribble, options.point))


def region_of(options: argparse.Namespace) -> Region:
    """The region of `add_region`.

    Raises:
        SettingsError: when there is none.
    """
    if options.box:
        return Box(*options.box)
    if options.mask:
        return Mask.from_file(options.mask)
    if options.scribble:
        return Scribble(options.scribble)
    if options.point:
        return Point(*options.point)
    raise SettingsError("A region is needed: --box, --mask, --scribble or --point.")


@dataclass(frozen=True)
class Maker:
    """How a method is made on the command line.

    Args:
        method: whose settings it takes.
        make: the class itself, or one of its class methods.
    """

    method: type[Method]
    make: Callable[..., Method]

    @property
    def settings(self) -> dict[str, Setting]:
        """The method's settings by their names."""
        return {each.name: each for each in self.method.settings()}

    def made(self, given: Mapping[str, str]) -> Method:
        """The method with settings given as texts.

        Raises:
            SettingsError: for a value out of range.
        """
        declared = self.settings
        return self.make(**{name: declared[name].kind.parsed(text, name) for name, text in given.items()})


def makers() -> dict[str, Maker]:
    """How to make each method, by its name on the command line: what people call it, in small letters."""
    found: dict[str, Maker] = {}
    for method in all_methods().values():
        found[_name_of(method)] = Maker(method, method)
        found |= {name: Maker(method, getattr(method, maker)) for name, maker in method.variants.items()}
    return found


def as_named(text: str) -> str:
    """A method's name on the command line, for its class's too, as people have it from Python."""
    return next((_name_of(method) for name, method in all_methods().items() if name == text), text)


def _name_of(method: type[Method]) -> str:
    return method.called().lower().replace(" ", "-")


def add_method(parser: argparse.ArgumentParser, *leave_out: str, default: str = "controlmllm++") -> None:
    """A method and its settings, as they are declared, but for some."""
    parser.add_argument(
        "--method", type=as_named, choices=list(makers()), default=default, help=f"how to refer (default: {default})"
    )
    group = parser.add_argument_group("settings of the methods", "each is for the methods that have it")
    declared: dict[str, list[tuple[str, Setting]]] = {}
    for method in all_methods().values():
        for each in method.settings():
            if each.name not in leave_out:
                declared.setdefault(each.name, []).append((_name_of(method), each))
    for name, owners in declared.items():
        setting = owners[0][1]
        of = "" if len(owners) == len(all_methods()) else f" (of {', '.join(owner for owner, _ in owners)})"
        words = f"{setting.meaning}; {setting.kind.range}{of}".replace("%", "%%")
        metavar = "|".join(setting.kind.choices) or setting.kind.name.upper()
        spelt = _spelt([each.kind for _, each in owners])
        group.add_argument(f"--{name.replace('_', '-')}", dest=f"setting_{name}", type=spelt, metavar=metavar, help=words)


def _spelt(kinds: Sequence[Kind]) -> Callable[[str], str]:
    """Takes texts that one of the kinds can read; their range is looked at when the method is made."""

    def check(text: str) -> str:
        for kind in kinds:
            with suppress(ValueError):
                kind.parse(text.strip())
                return text
        raise argparse.ArgumentTypeError(f"must be {kinds[0].range}; got {text!r}")

    return check


def method_of(options: argparse.Namespace) -> Method:
    """The method of `add_method`.

    Raises:
        SettingsError: for a setting that is not the method's, or out of range.
    """
    prefix = "setting_"
    given = {
        name.removeprefix(prefix): text
        for name, text in vars(options).items()
        if name.startswith(prefix) and text is not None
    }
    maker = makers()[options.method]
    if unknown := [f"--{name.replace('_', '-')}" for name in given if name not in maker.settings]:
        raise SettingsError(f"{options.method} has no {', '.join(unknown)}; its settings are {', '.join(maker.settings)}.")
    return maker.made(given)


def latent_method_of(options: argparse.Namespace) -> LatentMethod:
    """The method of `add_method`, which must be one that takes steps.

    Raises:
        SettingsError: as `method_of` does, and for a method that takes no steps.
    """
    return given_latent_method(method_of(options), ControlMLLM())


def add_model(parser: argparse.ArgumentParser) -> None:
    """A model, and how it is loaded."""
    model = parser.add_argument_group("model")
    what = "hub id or folder (default: smol for its own set, else the embedded model)"
    model.add_argument("--model", metavar="ID", help=what)
    model.add_argument("--revision", help="of a hub model")
    model.add_argument("--dtype", help="float32, bfloat16, float16 or auto")
    model.add_argument("--device-map", metavar="MAP", help="for from_pretrained: auto, cpu, cuda:0, ...")
    model.add_argument("--load-in-4bit", action="store_true", help="nf4 weights; needs bitsandbytes")
    model.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the checkpoint")


def loading_of(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of `add_model`, for `load`."""
    loading = {
        "model": options.model,
        "revision": options.revision,
        "dtype": options.dtype,
        "device_map": options.device_map,
        "quantization_config": _four_bit() if options.load_in_4bit else None,
        "trust_remote_code": options.trust_remote_code,
    }
    return {name: value for name, value in loading.items() if value is not None}


def _four_bit() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16)


def add_running(parser: argparse.ArgumentParser, option: str) -> None:
    """How a run over a set is divided, the file that it adds to, and what it does with examples that fail."""
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("--shard", type=_shard, metavar="I/N", help="the I-th of N parts, each to a file of its own")
    cluster.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="spread over a Ray cluster: this machine's own without ADDRESS",
    )
    cluster.add_argument("--workers", type=int, metavar="N", help="with --ray (default: one to each GPU, or core)")
    cluster.add_argument("--gpus-per-worker", type=float, metavar="N", help="with --ray (default: 1 where there are any)")
    records = parser.add_argument_group("records")
    records.add_argument(option, type=Path, metavar="FILE", help="add each example to this file, and go on from it")
    records.add_argument("--retry", action="store_true", help="try examples again that are recorded as failed")
    records.add_argument("--strict", action="store_true", help="stop at the first example that fails")


def models_of(options: argparse.Namespace) -> Mllm | Workers:
    """The model of `add_model`, or workers of `add_running` that load one each."""
    if options.ray is None:
        return load(**loading_of(options))
    return Workers(loading_of(options), options.ray or None, options.workers, options.gpus_per_worker)


def add_count(parser: argparse._ActionsContainer) -> None:
    """Which of a set's examples."""
    parser.add_argument("--n", type=int, metavar="N", help="number of examples (default: all)")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N examples")


def check_count(options: argparse.Namespace) -> None:
    """Raises SettingsError for counts that make no sense."""
    if options.skip < 0 or (options.n is not None and options.n < 1):
        raise SettingsError(f"--n must be at least 1 and --skip at least 0; got {options.n} and {options.skip}.")


def check_outputs(outputs: Mapping[str, Path | None], *inputs: object) -> None:
    """Before the run: nothing that was computed may be lost to a mistyped path, and nothing that is read be replaced.

    Args:
        outputs: file to each option's name.
        inputs: files, or folders whose files are read; what is None or no path is passed over.

    Raises:
        OutputError: for a file that cannot be written, is an input or one of its files, or two outputs in one file.
    """
    given = {name: check_writable(path) for name, path in outputs.items() if path is not None}
    for (one, path), (other, twin) in combinations(given.items(), 2):
        if _same(path, twin):
            raise OutputError(f"{one} and {other} must be two files; both are {said(path)}.")
    # An image given as a data: URI is no file.
    files = [source for source in inputs if not str(source).startswith("data:")]
    sources = [source for source in map(existing, files) if source is not None]
    for name, path in given.items():
        for source in sources:
            if _same(path, source) or (path.exists() and source.resolve() in path.resolve().parents):
                raise OutputError(f"{name} must not replace what is read; {said(path)} is, or is in, {said(source)}.")


def _same(one: Path, other: Path) -> bool:
    both = one.exists() and other.exists()
    return one.samefile(other) if both else one.resolve() == other.resolve()


def _two(text: str, kind: Callable[[str], Any], between: str, needs: str) -> tuple[Any, Any]:
    try:
        one, other = (kind(part) for part in text.split(between))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{needs}; got {text!r}") from None
    return one, other


_shard = partial(_two, kind=int, between="/", needs="must be I/N, as 1/4")
_pair = partial(_two, kind=float, between=",", needs="a point must be X,Y")
