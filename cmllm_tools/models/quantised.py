"""Quantised weights kept in the form that can be differentiated through."""

from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any

from .interrupts import restoring

# On a CPU with AVX512-BF16, bitsandbytes packs the 4-bit weights of a layer anew in the first forward without a gradient,
# for a kernel that has no backward pass; this switch of a layer's decides. Packing rounds the weights' scales to bfloat16.
_PACKS = "support_avx512bf16_for_cpu"


@restoring
def differentiable(modules: Iterable[Any], gradient: bool) -> Iterator[None]:
    """While open, no 4-bit layer is packed for inference; with `gradient`, those that are show their weights unpacked."""
    switched = [module for module in modules if vars(module).get(_PACKS)]
    packed = [module.weight for module in switched if _is_packed(module)] if gradient else []
    before = [(weight, weight.data, weight.quant_state) for weight in packed]
    try:
        for module in switched:
            setattr(module, _PACKS, False)
        for weight in packed:
            weight.data, weight.quant_state = _unpacked(weight)
        yield
    finally:
        for weight, data, state in before:
            weight.data, weight.quant_state = data, state
        for module in switched:
            setattr(module, _PACKS, True)


def _is_packed(module: Any) -> bool:
    return bool(getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False))


def _unpacked(weight: Any) -> tuple[Any, Any]:
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    # It writes into the state that it is given, and puts only nested scales back in order, quantising them once more: they
    # are taken as they are in the packed form, (block, row) instead of one after another.
    state = copy(weight.quant_state)
    scales, state.original_nested = state.absmax, False
    data, state = _convert_weight_packed_for_cpu_inverse(weight.data, state)
    state.absmax = scales.T.reshape(-1).float()
    return data, state
