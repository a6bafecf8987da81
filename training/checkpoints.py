"""Checkpoints of a training run: tensors of its parts and of its optimizer in one safetensors file, written whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from cmllm_tools.files import write_whole


def save_checkpoint(
    path: Path, parts: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, metadata: dict[str, str]
) -> None:
    """Write what a run needs to go on."""
    tensors, stored = {}, set()
    for part, module in parts.items():
        for name, value in module.state_dict(keep_vars=True).items():
            # Tied weights are one tensor; loading one loads the other.
            if id(value) not in stored:
                stored.add(id(value))
                tensors[f"{part}.{name}"] = value.detach()
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    whole = save({name: value.contiguous() for name, value in tensors.items()}, metadata)
    write_whole(path, lambda file: file.write(whole))


def load_checkpoint(
    path: Path, parts: Mapping[str, nn.Module], device: torch.device
) -> tuple[dict[str, str], dict[int, dict[str, Any]]] | None:
    """Put a checkpoint's tensors into the parts; its metadata and the optimizer's state, None where there is no file."""
    if not path.exists():
        return None
    with safe_open(path, "pt", device=str(device)) as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for part, module in parts.items():
        module.load_state_dict(under(f"{part}.", tensors), strict=False)
    state: dict[int, dict[str, Any]] = {}
    for name, value in under("optimizer.", tensors).items():
        number, key = name.split(".")
        state.setdefault(int(number), {})[key] = value
    return metadata, state


def under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those tensors whose name starts so, by the rest of their name."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
