"""How a latent moves along an energy's gradient: the state of one run, or of several in a batch."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float


class Updates(ABC):
    """State of a run: `latent` is what the next forward uses, `update` moves it along a gradient.

    Examples:
        >>> class Halved(cm.methods.Updates):
        ...     "Plain steps, each half as long as the one before."
        ...
        ...     def __init__(self, latent, step_size):
        ...         self.latent, self.step_size = latent, step_size
        ...
        ...     def update(self, gradient):
        ...         self.latent = self.latent - self.step_size * gradient
        ...         self.step_size /= 2
        >>> updates = Halved(trace.latent, 0.5)
        >>> updates.update(trace.latent)
        >>> bool((updates.latent == trace.latent / 2).all())
        True
    """

    latent: Float[torch.Tensor, "*run visual width"]

    @abstractmethod
    def update(self, gradient: Float[torch.Tensor, "*run visual width"]) -> None:
        """Move the latent along the energy's gradient: a new tensor, as the one in use belongs to the step before."""

    def stopped_early(self) -> Float[torch.Tensor, "*run visual width"]:
        """The latent that an early stop leaves; the one in use, where stopping changes nothing."""
        return self.latent


class GradientSteps(Updates):
    """`raw <- raw - alpha gradient`; the average in use is `beta raw + (1 - beta) (average before)`.

    Args:
        latent: (..., visual token, width), to start with.
        step_size: alpha.
        ema: beta.
        accumulate: the averages of all iterations add up, and an early stop adds the last of them again.
        scale_gradient: every gradient after the first is scaled by beta: of the average in use, the part that depends on
            the raw latent is beta times it.
        length: `step_size` is how far each run's first step takes the raw latent; alpha is that over its gradient's norm.
    """

    def __init__(
        self,
        latent: Float[torch.Tensor, "*run visual width"],
        step_size: float,
        ema: float,
        accumulate: bool,
        scale_gradient: bool,
        length: bool = False,
    ):
        self.raw = self.average = self.latent = latent
        self.alpha: float | torch.Tensor = step_size
        self.ema, self.accumulate, self.scale_gradient, self.length = ema, accumulate, scale_gradient, length
        self.first = True

    def update(self, gradient: Float[torch.Tensor, "*run visual width"]) -> None:
        if self.first and self.length:
            norms = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
            self.alpha = (self.alpha / norms)[:, None, None]
        if self.scale_gradient and not self.first:
            gradient = gradient * self.ema
        self.first = False
        self.raw = self.raw - self.alpha * gradient
        self.average = self.ema * self.raw + (1 - self.ema) * self.average
        self.latent = self.latent + self.average if self.accumulate else self.average

    def stopped_early(self) -> Float[torch.Tensor, "*run visual width"]:
        return self.latent + self.average if self.accumulate else self.latent


class NormalisedSteps(Updates):
    """Steps of one length along the gradient: `latent <- latent - r gradient / |gradient|`, for each run by itself.

    Args:
        latent: (run, visual token, width), to start with.
        step_size: r.
    """

    def __init__(self, latent: Float[torch.Tensor, "*run visual width"], step_size: float):
        self.latent, self.step_size = latent, step_size

    def update(self, gradient: Float[torch.Tensor, "*run visual width"]) -> None:
        norms = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
        self.latent = self.latent - gradient * (self.step_size / norms)[:, None, None]


class AdamSteps(Updates):
    """Adam (Kingma and Ba, arXiv 1412.6980) on the latent.

    Args:
        latent: (..., visual token, width), to start with.
        step_size: learning rate.
        betas, eps: Adam's.
        loss_scale: factor on the gradient.
        state: dtype of what is kept between steps, the latent included, where it is narrower than float32.
    """

    def __init__(
        self,
        latent: Float[torch.Tensor, "*run visual width"],
        step_size: float,
        betas: tuple[float, float],
        eps: float,
        loss_scale: float,
        state: torch.dtype = torch.float32,
    ):
        narrow = torch.finfo(state).bits < torch.finfo(torch.float32).bits
        self._kept = latent.detach().to(state if narrow else latent.dtype, copy=True).requires_grad_()
        self._dtype, self.loss_scale = latent.dtype, loss_scale
        self.latent = self._kept.detach().to(latent.dtype, copy=True)
        self.adam = torch.optim.Adam([self._kept], lr=step_size, betas=betas, eps=eps)

    def update(self, gradient: Float[torch.Tensor, "*run visual width"]) -> None:
        self._kept.grad = (self.loss_scale * gradient).to(self._kept.dtype)
        self.adam.step()
        self.latent = self._kept.detach().to(self._dtype, copy=True)
