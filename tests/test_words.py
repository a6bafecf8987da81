"""Words of a question as tokens, and tokens as words, with the kinds of tokenizers that checkpoints have."""

import pytest
from PIL import Image
from real_tokenizers import BUILT, llava_of

import cmllm_tools as cm
from cmllm_tools.models.spelling import PIECE, SPACE, apart, find_word, spelled

QUESTION = "  the category of the Cat, 红色 café cat's red  cross 👩\u200d🚀 of x\n"


@pytest.fixture(scope="module", params=BUILT)
def real(request):
    mllm = cm.load(llava_of(BUILT[request.param]()))
    return mllm, mllm.prepare(Image.new("RGB", (40, 40)), QUESTION)


def covered(prompt, positions):
    """The characters of the question that tokens cover, by the oracle of their offsets."""
    number = {position: index for index, position in enumerate(prompt.text_span)}
    spans = [prompt.offsets[number[position]] for position in positions]
    return prompt.question[min(low for low, _ in spans) : max(high for _, high in spans)].strip()


def place(prompt, word):
    return [prompt.offsets[prompt.text_span.index(position)] for position in prompt.positions(word)]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("cat", "Cat"),
        ("CAT", "Cat"),
        ("category", "category"),
        ("the cat", "the Cat"),
        ("red cross", "red  cross"),
        ("cat, 红色", "Cat, 红色"),
        ("红", "红"),
        ("色", "色"),
        ("红色", "红色"),
        ("café", "café"),
        ("cafe\u0301", "café"),
        ("CAFÉ", "café"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("x", "x"),
    ],
)
def test_a_words_tokens_are_those_that_cover_it_at_its_place(real, word, expected):
    _, prompt = real
    assert covered(prompt, prompt.positions(word)) == expected


def test_a_word_within_another_is_passed_over(real):
    _, prompt = real
    at = prompt.question.index("Cat")
    assert all(low < at + 3 and high > at for low, high in place(prompt, "cat"))
    # "of" stands twice: the first place counts, as before.
    first = prompt.question.index("of")
    assert all(low < first + 2 and high > first for low, high in place(prompt, "of"))


@pytest.mark.parametrize("word", ["ca", "gory", "cafe", "👩", "caf", "oss", "é"])
def test_a_part_of_a_word_is_no_word(real, word):
    with pytest.raises(cm.PromptError, match="looked for as a whole word, and a part of one can be given by its tokens'"):
        real[1].positions(word)


def test_a_characters_pieces_are_all_its_own_and_no_others(real):
    _, prompt = real
    red, color = prompt.positions("红"), prompt.positions("色")
    assert prompt.words(red) == (PIECE, PIECE, "红")
    assert prompt.words(color) == (PIECE, PIECE, "色")
    assert prompt.positions("红色") == red + color


def test_tokens_are_shown_readable(real):
    mllm, prompt = real
    shown = [prompt.tokens[position] for position in prompt.text_span]
    assert all(token.strip() for token in shown)
    joined = "".join(token for token in shown if token not in (PIECE, SPACE)).replace("U+200D", "\u200d")
    assert joined == "".join(QUESTION.split())
    assert not any(mark in "".join(prompt.tokens) for mark in ("Ã", "ç", "\u0120", "\u2581", "<0x", "\ufffd"))
    assert repr(prompt)
    attention = cm.capture_attention(mllm, prompt, queries="红")
    assert attention.words == (PIECE, PIECE, "红")
    trace = cm.optimize(mllm, prompt, cm.Box(2, 2, 30, 30), cm.ControlMLLM(steps=1, step_size=1.0, queries="红"))
    assert [trace.tokens[position] for position in trace.queries] == [PIECE, PIECE, "红"]


def test_a_character_that_is_cut_off_is_shown_as_pieces(real):
    mllm, _ = real
    ids = mllm.processor.tokenizer("红", add_special_tokens=False)["input_ids"]
    begun = spelled(mllm.processor.tokenizer, ids[:-1])
    assert begun[-2:] == (PIECE, PIECE)
    # Whatever follows is shown as itself.
    word = mllm.processor.tokenizer.convert_tokens_to_ids("s")
    assert spelled(mllm.processor.tokenizer, [*ids[:-1], word])[-1] == "s"
    assert spelled(mllm.processor.tokenizer, [ids[-2]] * 40) == (PIECE,) * 40


def test_an_id_beyond_the_vocabulary_has_a_name(mllm):
    assert mllm.words([99_999]) == ("<99999>",)


def test_the_embedded_models_words(mllm, example):
    prompt = mllm.prepare(example.image, "is it the red cross or a Red crossing ? red")
    assert [prompt.tokens[i] for i in prompt.positions("red cross")] == ["red", "cross"]
    assert prompt.positions("red cross")[0] == prompt.text_span[3]
    with pytest.raises(cm.PromptError, match="must be in the question; got 're'"):
        prompt.positions("re")
    with pytest.raises(cm.PromptError, match="must be in the question; got 'redcross'"):
        prompt.positions("redcross")


@pytest.mark.parametrize(
    ("text", "word", "at"),
    [
        ("concatenate a cat", "cat", 14),
        ("cat_2 cat2 2cat cat", "cat", 16),
        ("the cat's toy", "cat", 4),
        ("a red-brown fox", "brown", 6),
        ("(cat)", "cat", 1),
        ("(cat)", "(cat)", 0),
        ("is 10 or 1 right", "1", 9),
        ("3.5 or 5", "5", 7),
        ("3.5 or 3", "3", 7),
        ("1,5 or 1.", "1", 7),
        ("3.5 cm", "3.5", 0),
        ("the dog\u2019s tail", "dog's", 4),
        ("a blue\u2011green fox", "blue-green", 2),
        ("Straße", "STRASSE", 0),
        ("İstanbul", "i\u0307stanbul", 0),
        ("naïve nai\u0308ve", "nai", None),
        ("这是红色的猫吗", "猫", 5),
        ("红色cat吗", "cat", 2),
        ("りんごとバナナ", "バナナ", 4),
        ("แมวสีแดง", "สีแดง", 3),
        ("사과는 사과", "사과", 4),
        ("яблоко и яблоки", "яблоки", 9),
        ("what\u00a0is\n\nthis", "is this", 5),
        ("❤\ufe0f or ❤", "❤", 0),
        ("👍🏽 or 👍", "👍", 6),
        ("a cat", "  cat ", 2),
        ("a cat", "", None),
        ("a cat", " ", None),
        ("a cat", "cat sat", None),
        ("x" * 50, "xx", None),
    ],
)
def test_where_a_word_stands(text, word, at):
    found = find_word(text, word)
    assert (found and found[0]) == at
    assert found is None or 0 <= found[0] < found[1] <= len(text)


def test_bytes_that_share_characters_are_told_apart():
    # Tokenizers say of all six bytes that they are both characters.
    assert apart([(0, 1), *[(1, 3)] * 6, (3, 5)], "a红色ab") == [(0, 1), *[(1, 2)] * 3, *[(2, 3)] * 3, (3, 5)]
    assert apart([(0, 2), (0, 2)], "ab") == [(0, 1), (1, 2)]
    assert apart([(0, 3), (0, 3)], "abc") == [(0, 3), (0, 3)]


@pytest.mark.parametrize("query", [1.5, True, None, b"cat", [1.0], ["cat", None], {"a": 1}])
def test_what_is_neither_a_word_nor_a_position(prompt, query):
    with pytest.raises(cm.PromptError):
        prompt.positions(query)
