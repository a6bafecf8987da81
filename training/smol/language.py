"""Questions about scenes, and their answers, as SmolLM2 would write them."""

import random
from dataclasses import dataclass

from cmllm_tools.bench.sentences import WITHOUT_ARTICLE
from cmllm_tools.bench.sentences import with_article as a

NUMBERS = ("no", "one", "two", "three", "four")
PLACES = (
    *("top left", "top", "top right"),
    *("left", "middle", "right"),
    *("bottom left", "bottom", "bottom right"),
)


@dataclass(frozen=True)
class Seen:
    """One thing of a scene: its name, and the row and column, of three each, where it is."""

    name: str
    place: str


def place(x: float, y: float) -> str:
    """Where a point, as shares of width and height, is in words."""
    return PLACES[3 * min(int(3 * y), 2) + min(int(3 * x), 2)]


def is_or_are(name: str) -> str:
    return "are" if name in WITHOUT_ARTICLE and name.endswith("s") else "is"


def listed(names: list[str]) -> str:
    *first, last = [a(name) for name in names]
    return f"{', '.join(first)} and {last}" if first else last


def choice_question(one: str, other: str) -> str:
    return f"Is the thing in the picture {a(one)} or {a(other)}?"


NAME_QUESTION = "What is the thing in the picture?"


# How often each kind of question is asked.
KINDS = {"name": 30, "choice": 25, "presence": 12, "number": 8, "beside": 8, "where": 8, "all": 9}


def sample_turn(rng: random.Random, things: list[Seen], names: list[str]) -> tuple[str, str]:
    """A question about a scene, and a right answer; where it leaves open which thing is meant, any of them is right."""
    thing, present = rng.choice(things), [one.name for one in things]
    absent = rng.choice([name for name in rng.sample(names, 8) if name not in present])
    (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
    if kind == "choice":
        others = [name for name in present if name != thing.name]
        pair = [thing.name, rng.choice(others) if others and rng.random() < 0.5 else absent]
        rng.shuffle(pair)
        turn = choice_question(*pair), f"The thing in the picture is {a(thing.name)}."
    elif kind == "presence":
        asked = thing.name if rng.random() < 0.5 else absent
        told = f"Yes, there is {a(asked)}" if asked in present else f"No, there is no {asked}"
        turn = f"Is there {a(asked)} in the picture?", f"{told} in the picture."
    elif kind == "number":
        many = f"are {NUMBERS[len(things)]} things" if len(things) > 1 else "is one thing"
        turn = "How many things are in the picture?", f"There {many} in the picture."
    elif kind == "beside" and len(things) == 2:
        other = things[1] if thing is things[0] else things[0]
        turn = f"What is next to the {thing.name}?", f"The thing next to the {thing.name} is {a(other.name)}."
    elif kind == "where":
        there = is_or_are(thing.name)
        turn = f"Where {there} the {thing.name}?", f"The {thing.name} {there} at the {thing.place} of the picture."
    elif kind == "all":
        rng.shuffle(present)
        turn = "Describe the picture.", f"The picture shows {listed(present)}."
    else:
        turn = NAME_QUESTION, f"The thing in the picture is {a(thing.name)}."
    return turn
