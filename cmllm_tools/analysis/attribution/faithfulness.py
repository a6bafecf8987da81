"""Whether a map says what an answer depends on: tokens put in and taken out in its order, and Captum's measures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...attention.context_map import ContextMap
from ...errors import SettingsError
from ...models.mllm import Mllm
from ...models.prompt import Prompt
from ...models.undisturbed import unaffected
from ...shown import Fact, Shown
from ...strict import number, shown, whole_number, whole_seed
from .attribute import Attribution, AttributionMethod, AttributionSettings, attributed, captum
from .token_mask import BaselineStates, PresenceScore

Values = torch.Tensor | np.ndarray | ContextMap | Attribution


@dataclass(frozen=True, eq=False, repr=False)
class Curves(Shown):
    """Scores while visual tokens are put in, or taken out, in a map's order: highest first (Petsiuk et al. 2018).

    Args:
        fractions: (point,) share of the visual tokens put in or taken out, from 0 to 1.
        insertion: (point,) scores, starting from the baseline alone.
        deletion: (point,) scores, starting from the prompt as it is.
        random_insertion: (order, point), the same in random orders.
        random_deletion: (order, point).
        target: what was scored.

    Examples:
        >>> curves = cm.analysis.insertion_deletion(mllm, prompt, None, cmap, points=4, orders=2, progress=False)
        >>> curves.fractions.tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    fractions: np.ndarray
    insertion: np.ndarray
    deletion: np.ndarray
    random_insertion: np.ndarray
    random_deletion: np.ndarray
    target: str

    @property
    def insertion_auc(self) -> float:
        """Area under the insertion curve: its mean score. High for a good map."""
        return float(np.trapezoid(self.insertion, self.fractions))

    @property
    def deletion_auc(self) -> float:
        """Area under the deletion curve: its mean score. Low for a good map."""
        return float(np.trapezoid(self.deletion, self.fractions))

    @property
    def area(self) -> float:
        """Area between the two, insertion above deletion, in nats: 0 is expected of a random order."""
        return self.insertion_auc - self.deletion_auc

    @property
    def random_areas(self) -> np.ndarray:
        """(order,): the area between the curves of each random order."""
        result: np.ndarray = np.trapezoid(self.random_insertion - self.random_deletion, self.fractions, axis=-1)
        return result

    @property
    def z(self) -> float:
        """How many standard deviations of the random orders' areas the map's lies above their mean."""
        areas = self.random_areas
        return float((self.area - areas.mean()) / max(areas.std(ddof=1), 1e-12))

    @property
    def percentile(self) -> float:
        """Share of the random orders whose area is below the map's, 0..1."""
        return float((self.random_areas < self.area).mean())

    def facts(self) -> list[Fact]:
        return [
            ("", f"of {self.target}"),
            ("insertion", f"{self.insertion_auc:.3f} (random {self.random_insertion.mean():.3f})"),
            ("deletion", f"{self.deletion_auc:.3f} (random {self.random_deletion.mean():.3f})"),
            ("area between", f"{self.area:.3f}, above {self.percentile:.0%} of {len(self.random_insertion)} random orders"),
            ("", f"{self.z:.1f} standard deviations above them"),
        ]


def insertion_deletion(
    mllm: Mllm,
    prompt: Prompt,
    answer: str | None,
    values: Values,
    *,
    token: int | None = None,
    against: str | None = None,
    baseline: BaselineStates = "mean",
    points: int = 16,
    orders: int = 20,
    batch: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Curves:
    """Put visual tokens in and take them out in a map's order, and score the answer at each point.

    Args:
        mllm: the model that prepared the prompt.
        prompt: image and question.
        answer: the text that is scored; the model's own answer when None.
        values: (visual token,) any map: attention, an attribution. Its order is all that counts.
        token, against, baseline, batch: see `PresenceScore`.
        points: points of the curves after 0; at most one for each visual token.
        orders: random orders to compare with, 2 or more.
        seed: of the random orders.
        progress: show a progress bar.

    Raises:
        PromptError: for an empty answer.
        SettingsError: for values of another shape or not finite, or a setting out of range.

    Examples:
        >>> curves = cm.analysis.insertion_deletion(mllm, prompt, "blue zero", cmap, points=4, orders=2, progress=False)
        >>> curves.insertion.shape
        (5,)
    """
    score = PresenceScore(mllm, prompt, answer, token=token, against=against, baseline=baseline, batch=batch)
    order = as_map(values, len(score))
    check_curves(points, orders)
    total = 2 * (points - 1) * (orders + 1)
    with score.progress(total, "insertion and deletion", progress):
        return curves(score, order, random_curves(score, points, orders, seed))


# Far more than there are visual tokens.
_MOST = 100_000


def check_curves(points: int, orders: int) -> None:
    """Refuse settings of curves that are out of range."""
    if not 1 <= whole_number(points, "points") <= _MOST or not 2 <= whole_number(orders, "orders") <= _MOST:
        raise SettingsError(
            f"Curves need at least 1 point and 2 random orders, and at most {_MOST}; got points={shown(points)}, "
            f"orders={shown(orders)}."
        )


def as_map(values: Values, count: int) -> torch.Tensor:
    """A map as a tensor (visual token,) on the CPU.

    Raises:
        SettingsError: for another shape, or values that are not finite.
    """
    plain = values.values if isinstance(values, ContextMap | Attribution) else values
    try:
        found = torch.as_tensor(plain).detach().float().cpu()
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise SettingsError(
            f"A map must have one finite value for each of the {count} visual tokens; got {shown(plain)}."
        ) from error
    if tuple(found.shape) != (count,) or not torch.isfinite(found).all():
        raise SettingsError(
            f"A map must have one finite value for each of the {count} visual tokens; got shape {tuple(found.shape)}"
            f"{'' if torch.isfinite(found).all() else ' with values that are not finite'}."
        )
    return found


@dataclass(frozen=True, eq=False)
class RandomCurves:
    """Curves of random orders, which all maps of one prompt share: fractions (point,), scores (order, point)."""

    fractions: np.ndarray
    insertion: np.ndarray
    deletion: np.ndarray


def random_curves(score: PresenceScore, points: int, orders: int, seed: int) -> RandomCurves:
    """Insertion and deletion in random orders."""
    counts = np.unique(np.linspace(0, len(score), min(points, len(score)) + 1).round().astype(int))
    rng = np.random.default_rng(whole_seed(seed))
    both = [_both(score, rng.permutation(len(score)), counts) for _ in range(orders)]
    insertion, deletion = np.stack(both, 1)
    return RandomCurves(counts / len(score), insertion, deletion)


def curves(score: PresenceScore, values: torch.Tensor, randoms: RandomCurves) -> Curves:
    """Insertion and deletion in the order of a map, at the points of the random ones."""
    counts = (randoms.fractions * len(score)).round().astype(int)
    insertion, deletion = _both(score, np.argsort(-values.numpy(), kind="stable"), counts)
    return Curves(randoms.fractions, insertion, deletion, randoms.insertion, randoms.deletion, score.target)


def _both(score: PresenceScore, order: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (point,) with the first of an order put in, and with them taken out; both ends are known without a run."""
    rank = torch.from_numpy(np.argsort(order))
    put_in = (rank < torch.from_numpy(counts[1:-1, None])).to(score.states)
    with unaffected(gradient=False):
        found = score(torch.cat([put_in, 1 - put_in])).cpu().double().numpy() if len(put_in) else np.zeros(0)
    there, gone = score.present, score.absent
    insertion, deletion = found[: len(put_in)], found[len(put_in) :]
    return np.array([gone, *insertion, there]), np.array([there, *deletion, gone])


def infidelity(
    mllm: Mllm,
    prompt: Prompt,
    answer: str | None,
    values: Values,
    *,
    token: int | None = None,
    against: str | None = None,
    baseline: BaselineStates = "mean",
    samples: int = 128,
    batch: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> float:
    """Measure how badly a map predicts what taking away random visual tokens does (Yeh et al. 2019).

    Captum's infidelity, normalised, so that a map counts up to a factor: the mean square, in square nats, of the sum of
    its values over the tokens taken away minus the fall of the score. 0 is perfect. The share taken away is drawn
    evenly from 0 to 1, as an answer often stands until few are left.

    Args:
        values: (visual token,) any map: attention, an attribution.
        samples: how often tokens are taken away.

    The other arguments and errors are those of `insertion_deletion`.

    Examples:
        >>> cm.analysis.infidelity(mllm, prompt, None, cmap, samples=8) >= 0
        True
    """
    score = PresenceScore(mllm, prompt, answer, token=token, against=against, baseline=baseline, batch=batch)
    found = as_map(values, len(score))
    samples, seed = whole_number(samples, "samples", least=1), whole_seed(seed)
    with score.progress(2 * samples, "infidelity", progress):
        return infidelity_of(score, found, samples, seed)


def infidelity_of(score: PresenceScore, values: torch.Tensor, samples: int, seed: int) -> float:
    """See `infidelity`."""
    generator = torch.Generator().manual_seed(seed)

    def take_away(presence: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        share = torch.rand(len(presence), 1, generator=generator, dtype=torch.float32)
        taken = (torch.rand(presence.shape, generator=generator, dtype=torch.float32) < share).to(presence)
        return taken, presence - taken

    with unaffected(gradient=False):
        there = score.states.new_ones(1, len(score))
        found = captum("metrics").infidelity(
            score,
            take_away,
            there,
            values[None].to(there),
            n_perturb_samples=samples,
            # Captum warns of a batch that is larger than all samples.
            max_examples_per_batch=min(score.batch, samples),
            normalize=True,
        )
    return float(found)


@unaffected(gradient=False)
def sensitivity(
    mllm: Mllm,
    prompt: Prompt,
    answer: str | None = None,
    method: AttributionMethod = "integrated_gradients",
    *,
    token: int | None = None,
    against: str | None = None,
    baseline: BaselineStates = "mean",
    radius: float = 0.1,
    samples: int = 5,
    batch: int | None = None,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> float:
    """Measure how far an attribution moves when the visual states are moved a little (Yeh et al. 2019).

    Captum's sensitivity_max: the largest norm of the difference, as a share of the attribution's norm. A method whose map
    turns over with noise that hardly changes the score explains the noise.

    Args:
        method: an attribution method.
        radius: of the uniform noise on each state, in standard deviations of the prompt's visual states.
        samples: noises to try.
        **settings: of `attribute`: features, steps, window, ...

    The other arguments and errors are those of `attribute`.

    Examples:
        >>> found = cm.analysis.sensitivity(mllm, prompt, method="input_x_gradient", samples=2)
        >>> found > 0
        True
    """
    samples, seed = whole_number(samples, "samples", least=1), whole_seed(seed)
    radius = number(radius, "radius", least=0)
    score = PresenceScore(mllm, prompt, answer, token=token, against=against, baseline=baseline, batch=batch)
    wanted = AttributionSettings(method, seed=seed, progress=progress, **settings)

    def explain(shift: Any) -> tuple[torch.Tensor]:
        # Captum gives the first as a tuple of one, and takes the rows of an answer that is none for several inputs.
        return (attributed(score.moved(shift[0].view_as(score.states)), prompt.layout, wanted)[0][None],)

    generator = torch.Generator().manual_seed(seed)
    size = radius * score.states.std()

    def move(shift: torch.Tensor) -> torch.Tensor:
        noise = 2 * torch.rand(shift.shape, generator=generator, dtype=torch.float32) - 1
        return shift + size * noise.to(shift)

    still = torch.zeros_like(score.states)[None]
    found = captum("metrics").sensitivity_max(explain, still, move, n_perturb_samples=samples, max_examples_per_batch=1)
    return float(found)
