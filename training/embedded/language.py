"""What the embedded model is asked and answers: vocabulary, tokenizer, and question-answer turns about a scene."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from .scenes import COLORS, KINDS, PLACES, SHAPES

PAD, BOS, EOS, UNK, IMAGE = SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
WORDS = tuple(
    "user assistant : . , ? ' describe the this object what is color colour shape digit kind of it where at there "
    "a or yes no nothing in picture image".split()
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


class Named(NamedTuple):
    """An object in words."""

    color: str
    kind: str
    place: str

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"


def vocabulary() -> dict[str, int]:
    """Word to token id; the special tokens come first, `<pad>` is 0."""
    words = dict.fromkeys([*SPECIALS, *WORDS, *COLORS, *KINDS, *" ".join(PLACES).split()])
    return {word: number for number, word in enumerate(words)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-casing word tokenizer over `vocabulary`."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNK))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, vocabulary()[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens={"image_token": IMAGE},
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def sample_turn(rng: random.Random, objects: Sequence[Named], marked: int | None) -> tuple[str, str]:
    """One question and its answer; where the question does not say which object, the marked one or any is meant."""
    target = objects[marked] if marked is not None else rng.choice(objects)
    (turn,) = rng.choices(_TURNS, _WEIGHTS)
    return turn(rng, objects, target)


def _color_word(rng: random.Random) -> str:
    return rng.choice(("color", "colour"))


def _absent(rng: random.Random, objects: Sequence[Named]) -> Named:
    """A name that is not in the scene; half the time it borrows a colour or a kind that is."""
    present = {thing.name for thing in objects}
    while True:
        color, kind = rng.choice(list(COLORS)), rng.choice(KINDS)
        borrowed = rng.random()
        if borrowed < 0.25:
            color = rng.choice(objects).color
        elif borrowed < 0.5:
            kind = rng.choice(objects).kind
        if f"{color} {kind}" not in present:
            return Named(color, kind, "")


def _describe(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    question = rng.choice(("describe the object .", "describe this object .", "describe the object in the image ."))
    return question, f"{target.name} at the {target.place}"


def _identify(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    return rng.choice(("what is the object ?", "what is this ?", "what object is this ?")), target.name


def _color(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    return f"what {_color_word(rng)} is the object ?", target.color


def _kind(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    return rng.choice(("what kind of object is it ?", "what kind of object is this ?")), target.kind


def _place(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    return "where is the object ?", f"at the {target.place}"


def _choose(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    others = [thing for thing in objects if thing is not target]
    other = rng.choice(others) if rng.random() < 0.7 else _absent(rng, objects)
    pair = [target, other]
    rng.shuffle(pair)
    style = rng.random()
    if style < 0.15 and target.kind != other.kind:
        return f"is the object a {pair[0].kind} or a {pair[1].kind} ?", target.kind
    if style < 0.25 and target.color != other.color:
        return f"is the object {pair[0].color} or {pair[1].color} ?", target.color
    return f"is the object a {pair[0].name} or a {pair[1].name} ?", target.name


def _color_of(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    thing = rng.choice(objects)
    return f"what {_color_word(rng)} is the {thing.kind} ?", thing.color


def _kind_of(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    thing = rng.choice(objects)
    if rng.random() < 0.5:
        return f"what is the {thing.color} object ?", thing.name
    return f"what {'shape' if thing.kind in SHAPES else 'digit'} is the {thing.color} object ?", thing.kind


def _place_of(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    thing = rng.choice(objects)
    return f"where is the {thing.name} ?", f"at the {thing.place}"


def _what_at(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    place = rng.choice(PLACES) if rng.random() < 0.2 else rng.choice(objects).place
    there = [thing.name for thing in objects if thing.place == place]
    return f"what is at the {place} ?", rng.choice(there) if there else "nothing"


def _present(rng: random.Random, objects: Sequence[Named], target: Named) -> tuple[str, str]:
    if rng.random() < 0.5:
        return f"is there a {rng.choice(objects).name} ?", "yes"
    return f"is there a {_absent(rng, objects).name} ?", "no"


Turn = Callable[[random.Random, Sequence[Named], Named], tuple[str, str]]
_MIX: dict[Turn, float] = {
    _describe: 5,
    _identify: 2,
    _choose: 6,
    _color: 1,
    _kind: 1,
    _place: 1,
    _color_of: 1.5,
    _kind_of: 2,
    _place_of: 1,
    _what_at: 2,
    _present: 1.5,
}
_TURNS, _WEIGHTS = list(_MIX), list(_MIX.values())
