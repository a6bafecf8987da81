"""Attention weights of chosen rows and heads, computed beside the model's own kernel."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int

from ..errors import CaptureError


def attention_rows(
    module: Any,
    query: Float[torch.Tensor, "prompt head token width"],
    key: Float[torch.Tensor, "prompt key_head key width"],
    mask: torch.Tensor | None,
    heads: Sequence[int],
    rows: Sequence[int],
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> Float[torch.Tensor, "prompt chosen row key"]:
    """Attention weights of some rows and heads over all keys: (prompt, head, row, key), float32 or wider.

    Arguments are those of transformers' attention functions: query (prompt, head, token, width), key (prompt, key head,
    token, width), mask boolean or additive (1 or prompt, 1 or head, token, key) or None for causal attention; `softcap`
    bounds the logits, `s_aux` holds attention sinks.

    A row whose mask lets it see nothing, as padding's does, is zeros.

    Raises:
        CaptureError: for a mask or bias of a form that is not understood.
    """
    check_mask(module, mask, {"position_bias": position_bias})
    group = query.shape[1] // key.shape[1]
    row_index = torch.tensor(list(rows), device=query.device)
    every_head = list(heads) == list(range(query.shape[1]))
    # Kernels sum half-precision products in float32: so must rows that are to be what they used. float64 is kept.
    wide = torch.promote_types(query.dtype, torch.float32)
    query, key = query.to(wide) * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.to(wide)
    head_index = torch.tensor(list(heads), device=query.device)
    chosen = query[:, :, row_index] if every_head else query[:, head_index[:, None], row_index]
    if every_head:
        # Query heads that share a key head are folded into rows, so that keys are never repeated.
        folded = chosen.reshape(*key.shape[:2], group * len(row_index), -1)
        logits = (folded @ key.transpose(-1, -2)).reshape(*chosen.shape[:3], -1)
    else:
        logits = chosen @ key[:, head_index // group].transpose(-1, -2)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    # The last query stands beside the last key, where earlier keys come from a cache.
    places = row_index + key.shape[2] - query.shape[2] if causal and mask is None else row_index
    logits, blind = _masked(logits, mask, places, head_index, causal and query.shape[2] > 1, sliding_window)
    if s_aux is not None:
        sinks = s_aux.to(logits)[head_index, None, None].expand(*logits.shape[:3], 1)
        weights = torch.cat([logits, sinks], -1).softmax(-1)[..., :-1]
    else:
        weights = logits.softmax(-1)
    return weights if blind is None else weights.masked_fill(blind, 0)


def check_mask(module: Any, mask: Any, options: Mapping[str, Any]) -> None:
    """Refuse a mask or bias of a form that is not understood.

    Raises:
        CaptureError: for a position bias, or a mask that is no tensor (1 or prompt, 1 or head, token, key).
    """
    position_bias = options.get("position_bias")
    if position_bias is not None or not (mask is None or (torch.is_tensor(mask) and mask.dim() == 4)):
        shape = f" of shape {tuple(mask.shape)}" if torch.is_tensor(mask) else ""
        what = "a position bias" if position_bias is not None else f"a mask that is a {type(mask).__name__}{shape}"
        raise CaptureError(
            f"{type(module).__name__} draws its attention with {what}, which cannot be reproduced row by row. "
            "Load the model with attn_implementation='sdpa' or 'eager'."
        )


def _masked(
    logits: Float[torch.Tensor, "prompt head row key"],
    mask: torch.Tensor | None,
    rows: Int[torch.Tensor, " row"],
    heads: Int[torch.Tensor, " head"],
    causal: bool,
    window: int | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits with the mask, and the rows (..., row, 1) that it lets see nothing, which would have no softmax."""
    if mask is None:
        if not causal:
            return logits, None
        distance = rows[:, None] - torch.arange(logits.shape[-1], device=logits.device)
        hidden = (distance < 0) if window is None else (distance < 0) | (distance >= window)
        return logits.masked_fill(hidden, float("-inf")), None
    shared = mask.shape[1] == 1
    chosen = (mask[:, :, rows] if shared else mask[:, heads[:, None], rows])[..., : logits.shape[-1]]
    hidden = ~chosen if chosen.dtype == torch.bool else chosen == float("-inf")
    found = hidden.all(-1, keepdim=True)
    # Mostly every row sees something, and is gone through once; to ask a GPU would take longer.
    blind = found if hidden.device.type != "cpu" or bool(found.any()) else None
    if chosen.dtype == torch.bool:
        return logits.masked_fill(hidden if blind is None else hidden & ~blind, float("-inf")), blind
    added = chosen.to(logits)
    return logits + (added if blind is None else added.masked_fill(blind, 0)), blind
