"""Run pytest with torchvision's image transforms and timm's encoders, where torch is not the one torchvision is made for.

    python tests/torchvision_wheel.py FOLDER PYTEST-ARGUMENTS

transformers 5 has some image processors on torchvision alone. They use its transforms, which are Python on torch tensors,
and none of its compiled operators; yet `import torchvision` describes two of these to torch, and stops where they did not
load. Here FOLDER (`make vision`) is put on the path of this one process, and those two operators are declared, so that the
import goes through: who calls one still gets an error. In the same folder lies timm, which imports torchvision and has the
encoders of some families. This is no plugin or conftest, as pytest imports transformers before these, by way of the warning
filters, and transformers asks for torchvision once.
"""

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch

# Set in this process alone, for the tests to know.
VARIABLE = "CMLLM_TORCHVISION"
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# A declaration lasts as long as its library object.
_declared: list[torch.library.Library] = []


def use(folder: Path) -> None:
    """Puts a folder with torchvision and timm on the path and imports the former.

    Raises:
        SystemExit: when they are not there.
    """
    if not all((folder / package).is_dir() for package in ("torchvision", "timm")):
        sys.exit(f"A folder with torchvision and timm in it is needed; {folder} is none. Run `make vision`.")
    sys.path.append(str(folder))
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in OPERATORS:
            library.define(operator)
        _declared.append(library)
        importlib.import_module("torchvision")
    os.environ[VARIABLE] = str(folder)


if __name__ == "__main__":
    use(Path(sys.argv[1]).resolve())
    sys.exit(pytest.main(sys.argv[2:]))
