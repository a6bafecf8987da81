"""ROC's lines as they were read before there was `data`, which has them now: `cm.data.read(folder)` is lazy."""

from ..data.formats.roc import ReferringExample, read_roc

__all__ = ["ReferringExample", "read_roc"]
