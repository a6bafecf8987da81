"""What nobody means to give: values of every kind that is none of those asked for, made anew for each call."""

import io
import os
import warnings
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

import cmllm_tools as cm


class Raising:
    """Fails whatever is asked of it."""

    def __repr__(self):
        raise RuntimeError("repr")

    def __len__(self):
        raise RuntimeError("len")

    def __iter__(self):
        raise RuntimeError("iter")


class RaisingText(str):
    """A text that cannot be shown."""

    __slots__ = ()

    def __repr__(self):
        raise RuntimeError("repr")


class OtherText(str):
    """A text of another class."""

    __slots__ = ()


_MAKERS = {
    "nothing": (lambda: None, lambda: True, lambda: False, lambda: np.bool_(True)),
    "numbers": (
        *(lambda value=value: value for value in (0, -1, 7, 1.5, -0.0, 1e300, 1e-320, 1 + 2j, 10**400, -(10**400))),
        *(lambda value=value: float(value) for value in ("nan", "inf", "-inf")),
        *(lambda value=value: Decimal(value) for value in ("1.5", "NaN", "sNaN", "1e5000")),
        *(lambda: Fraction(1, 3), lambda: Fraction(10**400, 3)),
    ),
    "scalars": (
        *(lambda: np.int64(1), lambda: np.float32(0.5), lambda: np.float64("nan"), lambda: np.datetime64("2020-01-01")),
        *(lambda: np.array(2), lambda: torch.tensor(1), lambda: torch.tensor(float("nan"))),
    ),
    "arrays": (
        *(lambda: np.array([True, False]), lambda: np.array([None, 1], object), lambda: np.array(["a", "b"])),
        *(lambda: np.zeros(0), lambda: np.zeros((2, 2, 2)), lambda: np.array([1j])),
        *(
            lambda: torch.empty(3, device="meta"),
            lambda: torch.eye(3).to_sparse(),
            lambda: torch.ones(2, requires_grad=True),
        ),
    ),
    "texts": (
        *(lambda text=text: text for text in ("", "  ", "a\0b", "\ud800", "\x1b[2J\r\n", "zebra", "x" * 5000, "\u202eabc")),
        *(lambda: b"ab\xff", lambda: bytearray(b"x"), lambda: OtherText("text"), lambda: RaisingText("text")),
    ),
    "several": (
        *(list, tuple, dict, lambda: [[[]]], lambda: {1, 2}, lambda: {"a": float("nan")}, lambda: (n for n in "ab")),
        *(lambda: range(10**18), lambda: [None], lambda: [10**400], lambda: ["\ud800"], lambda: [(0, 1), (0,)]),
        *(lambda: [True, False], lambda: [(99, 99)], lambda: [(0.5, 1)], lambda: [Raising()]),
    ),
    "objects": (Raising, object, lambda: int, lambda: len, lambda: np, io.BytesIO, SimpleNamespace),
    "pictures": (lambda: Image.new("RGB", (0, 5)), lambda: Image.new("1", (1, 1))),
}
MAKERS = [make for makers in _MAKERS.values() for make in makers]

# Of each call in the quick form; CMLLM_HOSTILE=500 tries that many instead, other ones in each run.
EXAMPLES = int(os.environ.get("CMLLM_HOSTILE", "0"))


def own_error_or_result(call, arguments, name, make):
    """Call with one hostile argument; the result, or None after an error of the package's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call(**{**arguments, name: make()})
        except cm.CmllmError as error:
            # It can be printed, and is no longer than one reads.
            assert len(str(error).encode()) < 1000


def tried(calls, examples, state=lambda: None):
    """Try each of the calls with so many hostile arguments, the same in every run; `state` is to be what it was."""
    faults = []
    for name, (call, arguments) in calls.items():
        try:
            _tried(call, arguments, examples, state, name.endswith(" ="))
        except Exception as fault:
            fault.add_note(name)
            faults.append(fault)
    if faults:
        raise ExceptionGroup(f"raw errors of {len(faults)} calls", faults)


def _tried(call, arguments, examples, state, trait):
    @settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # Sampled values have nothing to shrink to.
        phases=[Phase.generate],
    )
    @given(name=st.sampled_from(list(arguments)), make=st.sampled_from(MAKERS))
    def one(name, make):
        before = state()
        try:
            own_error_or_result(call, arguments, name, make)
        except RuntimeError as error:
            # traitlets itself writes the repr of what it refuses.
            if not trait or str(error) != "repr":
                raise
        assert state() == before

    one()
