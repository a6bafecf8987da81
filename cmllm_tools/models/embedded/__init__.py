"""The model that ships with the package: a small LLaVA trained from scratch on generated scenes (MODEL_CARD.md)."""

from pathlib import Path

EMBEDDED_MODEL = Path(__file__).parent / "model"
HELDOUT = Path(__file__).parent / "heldout"
# The held-out scene of the demo and of lesson 01: unsteered, the model names another object than the one referred to.
DEMO_SCENE = 7
