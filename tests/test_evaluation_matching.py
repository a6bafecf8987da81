"""The published matcher against its rules written out without regular expressions, on answers that were made to be hard."""

import random

import pytest

import cmllm_tools as cm
from cmllm_tools.evaluation.matching import published_match, reference_match, strict_match

WORDS = "cat Cat house_cat bat animal the a is it dog knot note no not nothing None . , \n . ,".split(" ")
GAPS = (" ", "  ", "\t", "\n", "\u00a0", "", "\r\n", ".", ",", "-")
NAMES = ("cat", "house_cat", "bat_(animal)", "dog", " cat_", "no", "not a cat", "thing_(a_cat)", "")


def without_clauses(text, word):
    """Cut out, from the left: white space, the word, and all up to the next comma or full stop, that one included."""
    kept, at = [], 0
    while at < len(text):
        after = at
        while after < len(text) and text[after].isspace():
            after += 1
        if after > at and text.startswith(word, after):
            ends = [end for end in (text.find(",", after + len(word)), text.find(".", after + len(word))) if end >= 0]
            if ends:
                at = min(ends) + 1
                continue
        kept.append(text[at])
        at += 1
    return "".join(kept)


def rules(answer, name, synonyms):
    text = without_clauses(without_clauses(answer, "not"), "no")
    wanted = [name.replace("_", " ").strip()]
    for synonym in synonyms:
        inner = synonym.split("(")
        wanted += [part.replace("_", " ").replace(")" if at else "", "").strip() for at, part in enumerate(inner)]
    return any(text.find(each) >= 0 for each in wanted)


def test_the_published_matcher_is_its_rules_on_twenty_thousand_answers():
    draw = random.Random(0)
    right = 0
    for _ in range(20_000):
        answer = "".join(draw.choice(WORDS) + draw.choice(GAPS) for _ in range(draw.randrange(14)))
        name, synonyms = draw.choice(NAMES[:-1]), draw.choices(NAMES[:-1], k=draw.randrange(4))
        expected = rules(answer, name, synonyms)
        assert published_match(answer, name, synonyms) is expected, (answer, name, synonyms)
        right += expected
    assert 2_000 < right < 18_000


def test_a_name_stays_whole_and_synonyms_are_split():
    assert not published_match("a bat", "bat_(animal)")
    assert published_match("a bat (animal)", "bat_(animal)")
    assert published_match("a bat", "bat_(animal)", ["bat_(animal)"])
    assert reference_match("a bat", ["bat_(animal)"])
    assert not reference_match("a bat", "bat_(animal)")
    with pytest.raises(cm.DataError, match="may have one parenthesis"):
        published_match("a bat", "bat", ["bat_(a)_(b)"])
    with pytest.raises(cm.DataError, match="may have one parenthesis"):
        published_match("a bat", "bat", ["bat_(a"])


def test_an_answer_that_names_both_is_right_as_published_and_wrong_as_strict():
    assert published_match("a cat or a dog", "cat")
    assert not strict_match("a cat or a dog", ["cat"], ["dog"])
    assert strict_match("A Cat.", ["cat"], ["dog"])
    assert not strict_match("a catalogue", ["cat"], ["dog"])
