"""The model that ships with the package: a small LLaVA trained from scratch on generated scenes (MODEL_CARD.md)."""

from pathlib import Path

EMBEDDED_MODEL = Path(__file__).parent / "model"
HELDOUT = Path(__file__).parent / "heldout"
