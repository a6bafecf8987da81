"""BLEU and CIDEr of descriptions, as the COCO caption evaluation has them, without Java.

The formulas are those of `pycocoevalcap` 1.2 (BLEU of Papineni et al. 2002, "closest" length; CIDEr-D of Vedantam et al.
2015, sigma 6), which is 100 MB and cuts words by a Java program. Here words are cut by the same rules as far as
descriptions have them: small letters, "isn't" as two words, punctuation left out. METEOR and SPICE need Java and models of
their own: take that package for them, with the answers of the records.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..strict import kind_of, several

LONGEST = 4
SIGMA = 6.0
# Against divisions by nothing, as the published code has them.
_SMALL, _TINY = 1e-9, 1e-15
_WORD = re.compile(
    r"(?:[^\W\d_]\.){2,}|can(?=not\b)|\w+(?:[-/.&]\w+)*?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+(?:[-/.,:&]\w+)*|[^\w\s]"
)
# Left out after the words are cut.
_PUNCTUATION = frozenset("'`.?!,:-;\"\u2018\u201c\u201d\u2013\u2014\u2026")
# As the published code has brackets, which it means to leave out and does not.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

Grams = Counter[tuple[str, ...]]


def words_of(text: str) -> list[str]:
    """The words of a description, in small letters and without punctuation.

    As the published code cuts them, but for what few descriptions have: there "mr." keeps its full stop, "gonna" is two.

    Raises:
        DataError: for what is no text.
    """
    found = kind_of(text, str, "A description must be a text", DataError).lower().replace("\u2019", "'")
    return [_BRACKETS.get(word, word) for word in _WORD.findall(found) if word not in _PUNCTUATION]


def grams_of(words: Sequence[str]) -> Grams:
    """How often each run of one to LONGEST words is there."""
    return Counter(tuple(words[at : at + size]) for size in range(1, LONGEST + 1) for at in range(len(words) - size + 1))


@dataclass(frozen=True)
class Described:
    """Descriptions of a set, with what people said, ready to be scored.

    Args:
        counts: (example, 2 + 2 x LONGEST) for BLEU: words said, words of the closest reference, and of each length of run
            those that are right, and all.
        cider: (example,) CIDEr of each, in 0..10.
    """

    counts: np.ndarray
    cider: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[str], references: Sequence[Sequence[str]]) -> "Described":
        """Score answers (example,) against what people said of the same: (example, one or more).

        Raises:
            DataError: for other numbers of the two, none, an example without references, or what are no texts.
        """
        answers = several(answers, "Answers must be several texts", DataError)
        references = several(references, "References must be several texts to each answer", DataError)
        if len(answers) != len(references) or not answers:
            raise DataError(f"Each answer needs references of its own; got {len(answers)} answers and {len(references)}.")
        said = [words_of(answer) for answer in answers]
        wanted = [[words_of(each) for each in several(some, "References must be texts", DataError)] for some in references]
        if not all(wanted):
            raise DataError("Each answer needs one reference or more; there is one without.")
        grams = [[grams_of(words) for words in some] for some in wanted]
        counts = [_bleu_counts(words, some, known) for words, some, known in zip(said, wanted, grams, strict=True)]
        return cls(np.array(counts, float), _cider([grams_of(words) for words in said], grams))

    def bleu(self, weights: np.ndarray | None = None) -> np.ndarray:
        """(LONGEST,): BLEU-1 to BLEU-4 of all descriptions together; of each weighted, or counted as often, where given."""
        totals = self.counts.sum(0) if weights is None else weights @ self.counts
        said, closest = totals[..., 0], totals[..., 1]
        right, all_ = totals[..., 2 : 2 + LONGEST], totals[..., 2 + LONGEST :]
        precise = np.cumprod((right + _TINY) / (all_ + _SMALL), -1) ** (1 / np.arange(1, LONGEST + 1))
        ratio = (said + _TINY) / (closest + _SMALL)
        result: np.ndarray = precise * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)[..., None]
        return result


def _bleu_counts(words: Sequence[str], references: Sequence[Sequence[str]], grams: Sequence[Grams]) -> list[float]:
    closest = min((abs(len(each) - len(words)), len(each)) for each in references)[1]
    most: Grams = Counter()
    for known in grams:
        most |= known
    right = [0] * LONGEST
    for gram, count in (grams_of(words) & most).items():
        right[len(gram) - 1] += count
    return [len(words), closest, *right, *(max(0, len(words) - size) for size in range(LONGEST))]


def _cider(said: Sequence[Grams], references: Sequence[Sequence[Grams]]) -> np.ndarray:
    """(example,): mean over lengths of runs and references of the weighted likeness, times ten."""
    spread: Counter[tuple[str, ...]] = Counter()
    for some in references:
        spread.update({gram for known in some for gram in known})
    whole = np.log(float(len(references)))

    def vector(grams: Grams) -> list[dict[tuple[str, ...], float]]:
        found: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST)]
        for gram, count in grams.items():
            found[len(gram) - 1][gram] = count * float(whole - np.log(max(1.0, spread[gram])))
        return found

    scores = []
    for own, some in zip(said, references, strict=True):
        mine = vector(own)
        alike = [_alike(mine, vector(known), _pairs(own) - _pairs(known)) for known in some]
        scores.append(10 * float(np.mean(alike)))
    return np.array(scores)


def _alike(mine: list[dict[tuple[str, ...], float]], theirs: list[dict[tuple[str, ...], float]], longer: int) -> float:
    found = []
    for one, other in zip(mine, theirs, strict=True):
        dot = sum(min(value, other.get(gram, 0.0)) * other.get(gram, 0.0) for gram, value in one.items())
        lengths = float(np.sqrt(sum(v * v for v in one.values()) * sum(v * v for v in other.values())))
        found.append((dot / lengths if lengths else dot) * float(np.exp(-(longer**2) / (2 * SIGMA**2))))
    return float(np.mean(found))


def _pairs(grams: Grams) -> int:
    """Number of pairs of words, which the published code takes for the length."""
    return sum(count for gram, count in grams.items() if len(gram) == 2)
