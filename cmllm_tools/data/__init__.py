"""Data sets: public formats and one's own, read lazily; what is measured over them is in `evaluate`, `analysis`."""

from .check import Findings, check
from .dataset import Dataset
from .example import Example
from .format import Format, all_formats, read, register
from .lines import Row

__all__ = ["Dataset", "Example", "Findings", "Format", "Row", "all_formats", "check", "read", "register"]
