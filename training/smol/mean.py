"""The mean of several eyes that were trained from the same ones: `python -m training.smol.mean EYES EYES ... --out FILE`.

Runs that begin alike end in one basin, whose middle may keep what each of them does best (model soups, arXiv 2203.05482).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from cmllm_tools.files import write_whole


def mean_of(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Each tensor's mean, in the first file's dtype."""
    every = [load_file(file) for file in files]
    return {
        name: torch.stack([eyes[name].double() for eyes in every]).mean(0).to(first) for name, first in every[0].items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("eyes", type=Path, nargs="+", help="written by python -m training.smol.train")
    parser.add_argument("--out", type=Path, required=True, help="where their mean is written")
    options = parser.parse_args(arguments)
    whole = save(mean_of(options.eyes))
    write_whole(options.out, lambda file: file.write(whole))


if __name__ == "__main__":
    main()
