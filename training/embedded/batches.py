"""What a training step of the embedded model learns from: scenes, what each visual token covers, and packed turns."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from .architecture import GRID
from .corpus import Corpus
from .language import BOS, EOS, Named, sample_turn, vocabulary
from .scenes import COLORS, KINDS, PLACES

TOKENS = GRID * GRID
# Text tokens kept for the turns about one image; about eight turns fit.
TURN_BUDGET = 112


def dense_labels(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """(scene, token, 3): colour, kind (0 is background) and mark of the object each visual token covers."""
    owner = corpus.tokens[rows].astype(int)
    covered = owner >= 0
    pick = np.where(covered, owner, 0)
    colors = np.take_along_axis(corpus.colors[rows], pick, 1) + 1
    kinds = np.take_along_axis(corpus.kinds[rows], pick, 1) + 1
    marks = owner == corpus.marked[rows][:, None]
    return np.stack([colors * covered, kinds * covered, marks & covered], -1).astype(np.int64)


class TurnPacker:
    """Packs several turns behind one image prefix: (tokens, positions, segments, targets), each (text,)."""

    def __init__(self) -> None:
        self.words = vocabulary()
        self.prefix = [self.words[word] for word in (BOS, "user", ":")]
        self.start = len(self.prefix) + TOKENS

    def pack(self, corpus: Corpus, row: int, rng: random.Random) -> np.ndarray:
        """(4, TURN_BUDGET) int64; segment 0 is padding, target -100 is not learned."""
        objects = [
            Named(list(COLORS)[color], KINDS[kind], PLACES[place])
            for color, kind, place in zip(corpus.colors[row], corpus.kinds[row], corpus.places[row], strict=True)
            if color >= 0
        ]
        marked = int(corpus.marked[row])
        packed = np.zeros((4, TURN_BUDGET), np.int64)
        packed[3] = -100
        used = segment = 0
        while True:
            question, answer = sample_turn(rng, objects, marked if marked >= 0 else None)
            asked = [self.words[word] for word in f"{question} assistant :".split()]
            told = [self.words[word] for word in f"{answer} {EOS}".split()]
            length = len(asked) + len(told) - 1
            if used + length > TURN_BUDGET:
                return packed
            segment += 1
            span = slice(used, used + length)
            packed[0, span] = (asked + told)[:-1]
            packed[1, span] = self.start + np.arange(length)
            packed[2, span] = segment
            packed[3, used + len(asked) - 1 : used + length] = told
            used += length


class Batch(NamedTuple):
    """What one step learns from: rows of the corpus, their `dense_labels`, and their packed turns (row, 4, text)."""

    rows: np.ndarray
    labels: np.ndarray
    turns: np.ndarray | None


class Batches(Dataset[Batch]):
    """The batches of a stage by number of step.

    Each depends on the seed, the stage and the step only: that makes a resumed run the same run.
    """

    def __init__(self, corpus: Corpus, stage: str, seed: Sequence[int], images: int):
        self.corpus, self.stage, self.seed, self.images = corpus, stage, seed, images
        self.packer = TurnPacker()

    def __getitem__(self, step: int) -> Batch:
        epoch, index = divmod(step, len(self.corpus) // self.images)
        order = np.random.default_rng([*self.seed, epoch]).permutation(len(self.corpus))
        rows = order[index * self.images : (index + 1) * self.images]
        turns = None
        if self.stage.startswith("language"):
            rng = random.Random(f"{self.seed[0]}-{rows.tolist()}")
            turns = np.stack([self.packer.pack(self.corpus, row, rng) for row in rows])
        return Batch(rows, dense_labels(self.corpus, rows), turns)
