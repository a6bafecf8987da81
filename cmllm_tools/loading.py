"""Loading a model: one of the embedded ones, `smol`, a checkpoint, or one already in hand."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils import logging

from .attention.self_check import self_check
from .errors import UnsupportedModelError
from .files import existing, said
from .models import smol
from .models.lookup import family_for
from .models.mllm import Mllm
from .models.processors import load_processor
from .models.undisturbed import unaffected
from .progress import waiting
from .strict import flag, kind_of, nearest, one_of, shown

# Name of the model that comes with the package: a small LLaVA trained from nothing on generated scenes
# (embedded/MODEL_CARD.md).
EMBEDDED = "embedded"
EMBEDDED_MODEL = Path(__file__).parent / "embedded" / "model"
# The same, trained on the same scenes with no mark drawn into any; it has weights and config of its own alone.
NO_MARKS = "embedded-no-marks"
NO_MARKS_MODEL = Path(__file__).parent / "embedded" / "no_marks"
# What `load` knows by name.
OWN = (EMBEDDED, NO_MARKS, smol.NAME)
# What transformers raises for a checkpoint or an option that it cannot use.
_NOT_LOADED = (
    *(
        OSError,
        ValueError,
        ImportError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
        AssertionError,
    ),
    *(SafetensorError, StrictDataclassError),
)
_SHOWN_KEYS = 3
# Characters of what transformers says that are shown.
_LONGEST = 700


@unaffected(gradient=True)
def load(
    model: Any = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    layout: Literal["table", "probe"] = "table",
    check: bool | None = None,
    **options: Any,
) -> Mllm:
    """Load a model: one of the embedded ones, `smol`, a checkpoint, or one you already hold.

    Args:
        model: None or "embedded" for the embedded model; "embedded-no-marks" for the one that attention does not steer, a
            counterexample (embedded/MODEL_CARD.md); "smol" for SmolLM2-135M-Instruct with eyes of this package, assembled
            at the first use (some minutes, then kept in `$CMLLM_CACHE`, else the platform's cache folder); a hub id or a
            local folder (`~` is your home; "./smol" for one of that name); a pair (model, processor); or a pipeline of
            transformers, which holds both.
        revision: of a hub checkpoint.
        trust_remote_code: run code that comes with a checkpoint; off unless you turn it on.
        layout: how visual tokens are laid out; see `Mllm`.
        check: run `self_check` on the model; when None, where this package's tests do not cover its family.
        **options: for `from_pretrained` (dtype, device_map, quantization_config, attn_implementation, ...).

    Raises:
        UnsupportedModelError: for a checkpoint that is missing, cannot be loaded, or lacks weights of the model, a model
            without its processor, a family this package does not know, or a model that fails the self-check.

    Warns:
        UserWarning: for weights of a checkpoint that the model has no place for.

    Examples:
        >>> mllm = cm.load()
        >>> mllm
        Mllm(embedded: LlavaForConditionalGeneration, 3.5 M parameters, 6 layers x 6 heads, torch.float32, cpu,
        projector in the sequence)
    """
    one_of(layout, "layout", ("table", "probe"), UnsupportedModelError)
    trust_remote_code = flag(trust_remote_code, "trust_remote_code", UnsupportedModelError)
    check = None if check is None else flag(check, "check", UnsupportedModelError)
    if revision is not None:
        kind_of(revision, str, "A revision must be a text", UnsupportedModelError)
    held = _held(model)
    if held is None:
        with waiting(f"loading {'the embedded model' if model is None else said(model)}"):
            mllm = _loaded(model, revision, trust_remote_code, layout, options)
    else:
        if options or revision:
            raise UnsupportedModelError(
                "A model in hand must be given as (model, processor), without loading options; "
                f"got {sorted([*options, *['revision'] * bool(revision)])}."
            )
        mllm = Mllm(*held, layout=layout)
    if check if check is not None else not mllm.family.tested:
        with waiting(f"checking what attention {mllm.name} gives"):
            self_check(mllm)
    return mllm


def _held(given: Any) -> tuple[Any, Any] | None:
    """Model and processor where they are in hand; None for what is to be loaded."""
    if given is None or isinstance(given, PathLike | str):
        return None
    if isinstance(given, tuple | list):
        if len(given) != 2:
            raise UnsupportedModelError(f"A model in hand must be given as (model, processor); got {len(given)} parts.")
        return given[0], given[1]
    if isinstance(given, torch.nn.Module):
        raise UnsupportedModelError(
            f"A model in hand must be given with its processor, as load((model, processor)); got {type(given).__name__} "
            "alone. The processor is what AutoProcessor.from_pretrained gives for the same checkpoint."
        )
    if not hasattr(given, "model"):
        raise UnsupportedModelError(
            "A model must be a hub id, a folder, a pair (model, processor), or a pipeline of both; "
            f"got {type(given).__name__}."
        )
    return given.model, getattr(given, "processor", None) or getattr(given, "tokenizer", None)


def _loaded(
    model: str | PathLike[str] | None,
    revision: str | None,
    trust_remote_code: bool,
    layout: Literal["table", "probe"],
    options: dict[str, Any],
) -> Mllm:
    model = EMBEDDED if model is None else model
    source: str | Path = NO_MARKS_MODEL if model == NO_MARKS else EMBEDDED_MODEL
    own = model in OWN
    if own:
        # On a CPU the faster one, but on those few that multiply in bfloat16.
        options = {"dtype": torch.float32} | options
    if model == smol.NAME:
        if revision is not None:
            raise UnsupportedModelError(f"The model 'smol' has one revision, that of its parts; got {shown(revision)}.")
        source, revision = smol.find_smol()
    elif not own:
        source = _source(model)
    # A commit of the hub's; what is assembled has none.
    common = {"revision": None if model == smol.NAME else revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **common)
        if layout == "table":
            # Before gigabytes of weights are fetched.
            family_for(config)
        # A weight of another shape is refused below, by name.
        wanted = {**common, "ignore_mismatched_sizes": True, **options, "output_loading_info": True}
        with _without_bar(own):
            loaded, found = AutoModelForImageTextToText.from_pretrained(source, **wanted)
        processor = load_processor(EMBEDDED_MODEL if model == NO_MARKS else source, config.model_type, **common)
    except _NOT_LOADED as error:
        if isinstance(error, UnsupportedModelError | torch.OutOfMemoryError):
            raise
        raise UnsupportedModelError(
            f"A model must be a hub id or a folder with an image-text-to-text checkpoint and its processor; "
            f"{said(source)} cannot be loaded{_instead(source)}: {said(error, _LONGEST)}"
        ) from error
    _check_weights(source, loaded, found)
    return Mllm(loaded, processor, str(model), revision, layout)


def _source(model: str | PathLike[str]) -> str | Path:
    """A folder, or what the hub may know by that name."""
    if not str(model).strip():
        raise UnsupportedModelError(f"A model must be a hub id or a folder; got {shown(model)}.")
    path = existing(model)
    if path is None and (isinstance(model, PathLike) or model.startswith(("/", "./", "../", "~"))):
        raise UnsupportedModelError(
            f"A model must be the folder of a checkpoint, or a hub id as a text; there is no folder {said(model)}."
        )
    if path is not None and path.is_file():
        raise UnsupportedModelError(
            f"A model must be the folder of a checkpoint, with its config and processor; got the file {said(path)}."
        )
    return path if path is not None and path.is_dir() else str(model)


def _instead(source: str | Path) -> str:
    """What the package has of its own, for a name that nobody else's model has."""
    meant = "" if isinstance(source, Path) else nearest(source, OWN)
    return f" ({meant.strip()} The package's own are {', '.join(OWN)})" if meant else ""


def _check_weights(source: str | Path, model: Any, found: dict[str, Any]) -> None:
    """Refuse a model some of whose weights are random, and name those of the checkpoint that are not in it.

    transformers leaves out of both what is tied, made anew, or known to be of no use.
    """
    random = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    unused = sorted(found["unexpected_keys"])
    if random:
        beside = f", and has no place for {len(unused)} that are there ({_some(unused)})" if unused else ""
        raise UnsupportedModelError(
            f"A checkpoint must hold every weight of its model; {source} lacks {len(random)} of {type(model).__name__}, or "
            f"has them in another shape ({_some(random)}){beside}. They would be random. Where names differ by a prefix, "
            "another version of transformers saved it: save it again, or take that version."
        )
    if unused:
        warnings.warn(
            f"{type(model).__name__} has no place for {len(unused)} weights of {source}, which are left out "
            f"({_some(unused)}).",
            stacklevel=4,
        )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN_KEYS]) + ", ..." * (len(keys) > _SHOWN_KEYS)


@contextmanager
def _without_bar(quiet: bool) -> Iterator[None]:
    """Without transformers' bar of loaded weights, if `quiet`: it would stay in a notebook, frozen, for no time's work."""
    if not quiet or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
