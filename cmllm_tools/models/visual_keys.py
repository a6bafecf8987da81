"""Keys of the visual tokens, as the text's queries meet them, and offsets on them as shares of their norm."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property

import torch
from jaxtyping import Float


class VisualKeys(ABC):
    """The keys of one prompt's visual tokens, of every layer whose attention goes to them."""

    @property
    @abstractmethod
    def by_layer(self) -> list[Float[torch.Tensor, "key_head visual width"]]:
        """Keys (key head, visual token, width) of each layer."""

    @abstractmethod
    def opened(self, offsets: Float[torch.Tensor, "copy visual offsets"]) -> AbstractContextManager[None]:
        """While open, the model's own forward meets the keys with offsets on them, one for each copy of the prompt."""

    @cached_property
    def norm(self) -> float:
        """Norm of all keys of the visual tokens, of all layers together."""
        return float(sum(keys.float().square().sum().item() for keys in self.by_layer) ** 0.5)

    @property
    def zero(self) -> Float[torch.Tensor, "visual offsets"]:
        """Offsets (visual token, layers x key heads x width) that change nothing, float32 where keys are narrower."""
        keys = self.by_layer[0]
        heads, tokens, width = keys.shape
        # One number, as those of thousands of visual tokens fill gigabytes.
        one = keys.new_zeros((1, 1), dtype=torch.promote_types(keys.dtype, torch.float32))
        return one.expand(tokens, len(self.by_layer) * heads * width)

    def changes(self, offsets: Float[torch.Tensor, "copy visual offsets"]) -> Iterator[torch.Tensor]:
        """What offsets add to each layer's keys: (copy, key head, visual token, width), as these are.

        Args:
            offsets: (copy, visual token, layers x key heads x width), each layer's key heads side by side, as shares of
                `norm`.
        """
        heads, _, width = self.by_layer[0].shape
        # Taken apart at once: of one by one, autograd would fill the whole for each layer.
        split = offsets.unflatten(-1, (len(self.by_layer), heads, width)).unbind(2)
        for part, keys in zip(split, self.by_layer, strict=True):
            # Scaled first, as a share may be too small for half precision.
            yield (self.norm * part).transpose(1, 2).to(keys)
