"""Whole numbers, numbers, flags and choices are read one way, or refused in the package's words."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from cmllm_tools.errors import CaptureError, SettingsError
from cmllm_tools.strict import flag, number, one_of, whole_number, whole_numbers


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_whole_numbers_of_any_library_become_ints(value):
    assert type(whole_number(value, "steps")) is int
    assert whole_number(value, "steps") == 3


@pytest.mark.parametrize(
    "value", [1.5, 2.0, "12", True, np.bool_(True), None, Decimal(1), float("nan"), [1], torch.ones(2)]
)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(SettingsError, match=r"steps must be a whole number; got "):
        whole_number(value, "steps")


def test_bounds_are_named():
    with pytest.raises(SettingsError, match=r"steps must be a whole number of at least 1; got 0\."):
        whole_number(0, "steps", least=1)
    with pytest.raises(CaptureError, match=r"Each of heads must be a whole number in 0\.\.7; got 8\."):
        whole_numbers([0, 8], "heads", 0, 7, CaptureError)


def test_several_keep_their_order_and_generators_are_used_up():
    assert whole_numbers((i for i in (3, 1)), "heads") == (3, 1)
    assert whole_numbers(np.array([2, 5]), "heads") == (2, 5)


@pytest.mark.parametrize("values", ["12", 3, [True, False], [0.5], np.array([True, False]), None])
def test_texts_masks_and_fractions_are_no_whole_numbers(values):
    with pytest.raises(SettingsError, match="whole number"):
        whole_numbers(values, "heads")


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), torch.tensor(0.5), Fraction(1, 2)])
def test_numbers_become_floats(value):
    assert type(number(value, "sigma", above=0)) is float


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", True, None, 10**400, 1j])
def test_what_is_no_number_above_zero_is_refused(value):
    with pytest.raises(SettingsError, match=r"sigma must be a finite number above 0; got "):
        number(value, "sigma", above=0)


def test_flags_and_choices():
    assert flag(np.bool_(True), "accumulate") is True
    with pytest.raises(SettingsError, match=r"accumulate must be True or False; got 'no'\."):
        flag("no", "accumulate")
    assert one_of("area", "rule", ("area", "reference")) == "area"
    with pytest.raises(SettingsError, match=r"rule must be 'area' or 'reference'; got 'round'\."):
        one_of("round", "rule", ("area", "reference"))


def test_messages_are_short_and_printable():
    with pytest.raises(SettingsError) as caught:
        whole_number("\ud800" + "x" * 1000, "steps")
    assert len(str(caught.value)) < 200
    str(caught.value).encode()
