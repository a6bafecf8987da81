import math
import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

import cmllm_tools as cm
from cmllm_tools import evaluation
from cmllm_tools.evaluation.captions import Described, words_of
from cmllm_tools.evaluation.records import Record
from cmllm_tools.evaluation.scorers import as_scorer, mean_of

BOX = cm.Box(0, 0, 5, 5)


def example(question="Is the object a cat or a dog?", **fields):
    return cm.data.Example("nowhere.png", question, BOX, **fields)


def record(answer, names, **fields):
    return Record(id=0, method="m", settings={}, model="x", answer=answer, names=tuple(names), **fields)


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("The man's t-shirt isn't red, it's blue.", "the man 's t-shirt is n't red it 's blue"),
        ("Can't you see 3.5 dogs - and 1,000 cats?", "ca n't you see 3.5 dogs and 1,000 cats"),
        ('A sign "EXIT" on the left-hand side...', "a sign exit on the left-hand side"),
        ("a dog (small)", "a dog -lrb- small -rrb-"),
        ("U.S. flag in New-York's park", "u.s. flag in new-york 's park"),
        ("it\u2019s a cat, I cannot see", "it 's a cat i can not see"),
        ("$5.00, 50% off & more", "$ 5.00 50 % off & more"),
        ("...", ""),
    ],
)
def test_words_are_cut_as_the_published_tokenizer_cuts_them(sentence, words):
    """The expected words are what Stanford's PTBTokenizer gave, by pycocoevalcap 1.2."""
    assert " ".join(words_of(sentence)) == words


ANSWERS = ["a red cat on a mat", "the dog is n't here", "a cat", "", "two men with a kite on a beach"]
REFERENCES = [
    ["a red cat sits on the mat", "the cat on a mat"],
    ["a dog is n't on the beach"],
    ["a cat on a red mat", "a small cat", "cat"],
    ["the dog"],
    ["two men fly a kite on a beach", "men with a kite"],
]


def test_bleu_and_cider_are_the_published_codes():
    """Figures of pycocoevalcap 1.2's BleuScorer ("closest") and CiderScorer for these sentences."""
    found = Described.of(ANSWERS, REFERENCES)
    assert np.allclose(found.bleu(), PUBLISHED_BLEU, atol=1e-12)
    assert np.allclose(found.cider, PUBLISHED_CIDER, atol=1e-12)


PUBLISHED_BLEU = [0.8225701149053528, 0.8123196195813913, 0.7461003110832742, 0.6234082837410791]
PUBLISHED_CIDER = [4.282388214448794, 3.4915205052825975, 2.015890249696303, 0.0, 5.487049597587703]


def bleu4(answers, references):
    """Papineni et al., written out for one reference each."""
    right, total, said, wanted = [0] * 4, [0] * 4, 0, 0
    for answer, (reference,) in zip(answers, references, strict=True):
        one, other = answer.split(), reference.split()
        said, wanted = said + len(one), wanted + len(other)
        for size in range(1, 5):
            mine, theirs = (Counter(zip(*(text[at:] for at in range(size)), strict=False)) for text in (one, other))
            right[size - 1] += sum(min(count, theirs[gram]) for gram, count in mine.items())
            total[size - 1] += sum(mine.values())
    precision = math.prod(r / t for r, t in zip(right, total, strict=True)) ** 0.25
    return precision * min(1.0, math.exp(1 - wanted / said))


def test_bleu_is_its_formula():
    draw = random.Random(1)
    words = "a the cat".split()
    answers = [" ".join(draw.choices(words, k=draw.randint(4, 9))) for _ in range(200)]
    references = [[" ".join(draw.choices(words, k=draw.randint(4, 9)))] for _ in range(200)]
    assert math.isclose(Described.of(answers, references).bleu()[3], bleu4(answers, references), rel_tol=1e-6)


def test_descriptions_without_references_are_refused():
    with pytest.raises(cm.DataError, match="needs references of its own; got 1 answers and 2"):
        Described.of(["a"], [["a"], ["b"]])
    with pytest.raises(cm.DataError, match="one reference or more; there is one without"):
        Described.of(["a"], [[]])


def test_figures_of_descriptions_are_of_all_together():
    records = [record(answer, names) for answer, names in zip(ANSWERS, REFERENCES, strict=True)]
    found = evaluation.Captions().figures(records)
    whole = Described.of(ANSWERS, REFERENCES)
    assert math.isclose(found["CIDEr"].mean, 100 * whole.cider.mean())
    assert math.isclose(found["BLEU-4"].mean, 100 * whole.bleu()[3])
    assert found["BLEU-1"].low <= found["BLEU-1"].mean <= found["BLEU-1"].high
    assert (evaluation.Captions().each(records)["CIDEr"] == 100 * whole.cider).all()


def test_wrong_names_come_from_the_set_or_from_the_question():
    strict = evaluation.Strict()
    assert strict.score("a cat", example(answer="cat")) == {"right": 1.0}
    assert strict.score("a cat or a dog", example(answer="cat")) == {"right": 0.0}
    assert strict.score("a cat and a cow", example(answer="cat", alternatives=("cow",))) == {"right": 0.0}
    assert strict.score("a bat", example(answer="bat_(animal)")) == {"right": 1.0}
    assert evaluation.Published().score("a cat or a dog", example(answer="cat")) == {"right": 1.0}
    with pytest.raises(cm.DataError, match="scored against a right one; this example has none"):
        strict.score("a cat", example())


def test_a_judge_is_asked_in_rows_and_again_when_it_gives_no_number():
    asked = []

    def judge(text):
        asked.append(text)
        return ["well", "1.7", "0.5 of it"][len(asked) - 1]

    question = example("What is it?", names=("4<AND>9",), tags=("ocr",))
    assert evaluation.Judged(judge).score("four", question) == {"score": 0.5}
    assert asked[0].endswith("\nWhat is it? | 4 <AND> 9 | four | ")
    assert asked[1].endswith("four | \nPredict the correctness of the answer (digit): ")
    assert len(asked) == 3
    assert evaluation.Judged(lambda text: "no").score("four", question) == {"score": 0.0}
    scored = [record("a", ["b"], scores={"score": value}, tags=tags) for value, tags in ((1.0, ("ocr",)), (0.0, ()))]
    figures = evaluation.Judged().figures(scored)
    assert (figures["score"].mean, figures["score ocr"].mean) == (0.5, 1.0)
    with pytest.raises(cm.SettingsError, match=r"judged by evaluation\.Judged\(judge\)"):
        evaluation.Judged().score("four", question)
    with pytest.raises(cm.DataError, match="A judge must give a text; got 3"):
        evaluation.Judged(lambda text: 3).score("four", question)


def test_intervals_are_wilsons_for_what_is_right_or_wrong():
    found = mean_of([1.0] * 8 + [0.0] * 2)
    centre, spread = 0.8 + 1.96**2 / 20, 1.96 * math.sqrt(0.8 * 0.2 / 10 + 1.96**2 / 400)
    assert math.isclose(found.low, (centre - spread) / (1 + 1.96**2 / 10))
    assert math.isclose(found.high, (centre + spread) / (1 + 1.96**2 / 10))
    assert mean_of([0.25, 0.5]).mean == 0.375


def test_a_scorer_is_known_by_its_name():
    assert as_scorer(None, "published") == evaluation.Published()
    assert as_scorer("strict", "published") == evaluation.Strict()
    with pytest.raises(cm.SettingsError, match="must be one of published, strict, captions, judged; got 'meteor'"):
        as_scorer("meteor", "strict")
    with pytest.raises(cm.SettingsError, match=r"or an evaluation\.Scorer; got 3"):
        as_scorer(3, "strict")
    with pytest.raises(cm.SettingsError, match="a name of its own; there is a strict"):
        evaluation.scorer(dataclass(frozen=True)(type("Mine", (evaluation.Scorer,), {"name": "strict"})))
