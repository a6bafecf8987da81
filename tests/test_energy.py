import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.layout.visual_tokens import fixed_grid
from cmllm_tools.referring.energy import gaussian
from cmllm_tools.referring.target import Target

LAYOUT = fixed_grid((40, 40), (4, 4), (4, 4), (4, 4))


@pytest.fixture
def values():
    torch.manual_seed(0)
    return torch.rand(16, dtype=torch.float64)


def test_hard_energy_is_the_formula(values):
    inside = torch.rand(16, dtype=torch.float64)
    total = sum(values.tolist())
    share = sum(a * r for a, r in zip(values.tolist(), inside.tolist(), strict=True)) / total
    assert cm.hard_energy(values, inside).item() == pytest.approx((1 - share) ** 2)


@pytest.mark.parametrize("sigma", [0.1, 0.4])
def test_soft_energy_is_the_formula(values, sigma):
    distance = torch.rand(16, dtype=torch.float64)
    weights = [math.exp(-(d**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma) for d in distance.tolist()]
    share = sum(a * g for a, g in zip(values.tolist(), weights, strict=True)) / sum(values.tolist())
    assert cm.soft_energy(values, distance, sigma).item() == pytest.approx((1 - share) ** 2)


def test_gaussian_peaks_as_published():
    zero = torch.tensor(0.0)
    assert gaussian(zero, 0.1).item() == pytest.approx(3.989, abs=1e-3)
    assert gaussian(zero, 0.4).item() == pytest.approx(0.997, abs=1e-3)
    with pytest.raises(cm.RegionError, match="sigma must be above 0; got 0"):
        gaussian(zero, 0)


def test_gradients_in_float64(values):
    inside, distance = torch.rand(16, dtype=torch.float64), torch.rand(16, dtype=torch.float64)
    start = values.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: cm.hard_energy(v, inside), start)
    assert torch.autograd.gradcheck(lambda v: cm.soft_energy(v, distance), start)


@pytest.mark.parametrize("scale", [1e-6, 3.0, 1e4])
def test_scale_of_the_map_does_not_matter(values, scale):
    inside, distance = torch.rand(16, dtype=torch.float64), torch.rand(16, dtype=torch.float64)
    assert torch.allclose(cm.hard_energy(values * scale, inside), cm.hard_energy(values, inside))
    assert torch.allclose(cm.soft_energy(values * scale, distance), cm.soft_energy(values, distance))


def test_bounds_of_the_hard_energy():
    inside = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert cm.hard_energy(torch.tensor([0.3, 0.7, 0.0, 0.0]), inside).item() == pytest.approx(0, abs=1e-12)
    assert cm.hard_energy(torch.tensor([0.0, 0.0, 1.0, 2.0]), inside).item() == pytest.approx(1)


def test_several_regions_add_up(values):
    boxes = [cm.Box(0, 0, 10, 10), cm.Box(20, 20, 40, 40)]
    both = Target.of(LAYOUT, boxes).to(values)
    each = [Target.of(LAYOUT, box).to(values).energy(values) for box in boxes]
    assert torch.allclose(both.energy(values), sum(each))
    shares = [Target.of(LAYOUT, box).to(values).share(values) for box in boxes]
    assert torch.allclose(both.share(values), sum(shares))


def test_kind_of_region_decides_the_energy(values):
    point = cm.Point(5, 5)
    target = Target.of(LAYOUT, [point, cm.Box(0, 0, 20, 20)], sigma=0.4).to(values)
    distance = torch.from_numpy(LAYOUT.distance(point)).double()
    inside = torch.tensor([1, 1, 0, 0] * 2 + [0] * 8).double()
    expected = cm.soft_energy(values, distance, 0.4) + cm.hard_energy(values, inside)
    assert torch.allclose(target.energy(values), expected)


def test_share_lies_in_0_to_1_for_soft_regions_too():
    on_mark = torch.from_numpy(np.eye(16)[0])
    share = Target.of(LAYOUT, cm.Point(5, 5)).to(on_mark).share(on_mark).item()
    assert 0.5 < share <= 1


@pytest.mark.parametrize(
    "sigma",
    [0, -1, 1e-300, 1e300, math.nan, math.inf, 10**400, Decimal("0.1"), "0.1", True, None, torch.tensor([0.1, 0.2])],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("region", [cm.Point(5, 5), cm.Box(0, 0, 5, 5)], ids=["soft", "hard"])
def test_a_sigma_that_is_no_width_is_refused_for_every_region(sigma, region):
    with pytest.raises(cm.SettingsError, match=r"sigma must (be a finite number|be above 0|lie in 0\.0001).*; got "):
        Target.of(LAYOUT, region, sigma)


@pytest.mark.parametrize("sigma", [np.float32(0.25), torch.tensor(0.25), Fraction(1, 4)], ids=repr)
def test_numbers_of_other_kinds_become_plain(sigma):
    target = Target.of(LAYOUT, cm.Point(5, 5), sigma)
    assert type(target.sigma) is float
    assert target.sigma == 0.25


def test_a_sigma_under_which_no_token_counts_is_refused():
    with pytest.raises(cm.RegionError, match="sigma must be wide enough to reach a visual token"):
        Target.of(LAYOUT, cm.Point(5, 5), 1e-4)
    assert Target.of(LAYOUT, cm.Point(5, 5), 0.01).weights().max() > 0


@pytest.mark.parametrize("region", [cm.Box(0, 0, 40, 40), cm.Mask(np.ones((40, 40)))], ids=["box", "mask"])
def test_a_region_that_covers_everything_says_that_it_gives_no_direction(region, values):
    with pytest.warns(cm.RegionWarning, match="covers everything that the model sees: its energy is 0"):
        target = Target.of(LAYOUT, region).to(values)
    start = values.clone().requires_grad_()
    target.energy(start).backward()
    assert start.grad.abs().max() < 1e-12
