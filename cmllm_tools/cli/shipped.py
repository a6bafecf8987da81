"""The data sets that come with the package, by name, and the models that they are for."""

import argparse
from pathlib import Path

from ..bench.heldout import HELDOUT
from ..bench.smol_sets import SEEN, SMOL_HELDOUT
from ..loading import EMBEDDED
from ..models.smol import NAME

SHIPPED = {EMBEDDED: HELDOUT, NAME: SMOL_HELDOUT / SEEN}


def folder_of(name: str) -> str | Path:
    """Where a set is: its folder where it comes with the package, else what was given."""
    return SHIPPED.get(name, name)


def given_folder(name: str) -> str | None:
    """What is read, where it is no set of the package's own."""
    return None if name in SHIPPED else name


def with_its_model(options: argparse.Namespace, name: str) -> None:
    """Take the model that a set comes with, where none was asked for."""
    if options.model is None and name in SHIPPED:
        options.model = name
