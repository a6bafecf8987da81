"""Positions of an axis, picked and added to: as by an index, whether they follow one another or not."""

import pytest
import torch

from cmllm_tools.models.positions import added_at, at_positions

PLACES = {"run": [2, 3, 4], "one": [3], "all": [*range(6)], "gap": [1, 3, 4], "backwards": [4, 3, 2], "none": []}


@pytest.mark.parametrize("positions", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_they_are_those_of_an_index(positions, axis):
    values = torch.randn(6, 6, 6, dtype=torch.float64, requires_grad=True)
    change = torch.randn_like(at_positions(values, axis, positions)).requires_grad_()
    index = (slice(None),) * (axis % 3) + (torch.tensor(positions, dtype=torch.long),)
    assert torch.equal(at_positions(values, axis, positions), values[index])
    expected = values.detach().clone()
    expected[index] += change.detach()
    found = added_at(values, axis, positions, change)
    assert torch.equal(found, expected)
    weights = torch.randn_like(found)
    gradients = torch.autograd.grad((found * weights).sum(), [values, change])
    assert torch.equal(gradients[0], weights)
    assert torch.equal(gradients[1], weights[index])


def test_what_follows_one_another_is_a_view():
    values = torch.zeros(5, 4)
    at_positions(values, 0, [1, 2])[:] = 1
    assert values.sum() == 8


@pytest.mark.parametrize("positions", [[5], [-1, 0], [3, 4, 5]])
def test_places_that_there_are_not_are_refused(positions):
    values = torch.zeros(5)
    with pytest.raises((RuntimeError, IndexError)):
        at_positions(values, 0, positions)
    with pytest.raises((RuntimeError, IndexError)):
        added_at(values, 0, positions, torch.ones(len(positions)))
