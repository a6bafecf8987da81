"""What edits of attention share: a call's mask as numbers to add, and where its rows stand in the sequence."""

import torch

from .observe import AttentionCall


class RowPlaces:
    """Where the rows of attention calls stand, from one forward to the next: with a cache, without, or the last row alone.

    Args:
        length: how many tokens there are, the prompt's at first.
        within: whether the keys are the sequence's own tokens, and not states beside it.
    """

    def __init__(self, length: int, within: bool = True):
        self._total, self._within = length, within
        # Of the call before.
        self._layer = -1

    def of(self, call: AttentionCall) -> tuple[int, int]:
        """Position of the call's first row; how many of the oldest keys a cache has dropped."""
        queries, keys = call.query.shape[2], call.key.shape[2]
        if (queries == keys and self._within) or queries >= self._total:
            # The whole sequence, once more where there is no cache.
            self._total = queries
        elif call.layer <= self._layer:
            # Another forward: what was added to it.
            self._total += queries
        self._layer = call.layer
        # Some models' last layers are given the last token alone.
        return self._total - queries, max(self._total - keys, 0) if self._within else 0


def additive_mask(call: AttentionCall) -> torch.Tensor:
    """The call's mask (1 or prompt, 1 or head, token, key) as numbers to add to logits; hidden keys have the least."""
    dtype, queries, keys = call.query.dtype, call.query.shape[2], call.key.shape[2]
    least = torch.finfo(dtype).min
    if call.mask is not None:
        mask = call.mask[..., :keys]
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, least) if mask.dtype == torch.bool else mask.to(dtype)
    mask = torch.zeros(1, 1, queries, keys, dtype=dtype, device=call.query.device)
    causal = call.options.get("is_causal")
    causal = getattr(call.module, "is_causal", True) if causal is None else causal
    if not causal or queries == 1:
        return mask
    # The last query stands beside the last key, where earlier keys come from a cache.
    distance = torch.arange(queries, device=mask.device)[:, None] + keys - queries - torch.arange(keys, device=mask.device)
    window = call.options.get("sliding_window")
    return mask.masked_fill((distance < 0) if window is None else (distance < 0) | (distance >= window), least)
