"""Every public figure at the size of real work: long texts, many layers, steps and panels, photographs."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

import cmllm_tools as cm
from cmllm_tools import figures
from cmllm_tools.analysis import Choice, Curves, HeadRanking, Sweep, recommend
from cmllm_tools.analysis.frontier import Curve, Frontier
from cmllm_tools.analysis.region_shares import HeadGrid
from cmllm_tools.analysis.sinks import sinks_in
from cmllm_tools.causes import CauseGrid
from cmllm_tools.causes.answering import AnswerTrace
from cmllm_tools.causes.reading import Lens
from cmllm_tools.layout.visual_tokens import grid_boxes
from cmllm_tools.models.answer import Answer
from cmllm_tools.referring.comparison import Comparison, Row
from cmllm_tools.referring.provenance import Provenance
from cmllm_tools.referring.trace import Step, Trace

LAYERS, HEADS, STEPS = 40, 32, 101
QUESTION = ("What is the person in the yellow coat on the left of the picture holding in her hand, and why? " * 4)[:300]
ANSWER = ("A small red bicycle that leans against the old wooden fence near the river, with a basket. " * 4)[:300]


def photograph(width, height):
    """Green and yellow in large and small pieces, with noise: what a map in the same colours vanishes on."""
    rng = np.random.default_rng(0)
    pieces = Image.fromarray(rng.integers((20, 60, 0), (250, 220, 70), (9, 9, 3), np.uint8)).resize((width, height))
    noise = rng.integers(-12, 12, (height, width, 1), np.int16)
    return Image.fromarray(np.clip(np.asarray(pieces) + noise, 0, 255).astype(np.uint8))


def layout_of(image, grid):
    return cm.VisualTokenLayout(image.size, grid_boxes((0, 0, *image.size), grid), grid, "fixed grid, centre crop")


def peak(layout, x, y, width=0.12):
    rows, columns = layout.grid
    down, across = np.mgrid[0.5:rows, 0.5:columns] / np.array([rows, columns])[:, None, None]
    values = np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * width**2)) + 0.02
    return torch.tensor((0.3 * values / values.sum()).ravel(), dtype=torch.float32)


def box_in(image):
    return cm.Box(0.58 * image.width, 0.48 * image.height, 0.92 * image.width, 0.82 * image.height)


def trace_of(image, layout, count=STEPS):
    copy = image.copy()
    copy.thumbnail((512, 512))
    steps = []
    for number in range(count):
        done = number / (count - 1)
        maps = peak(layout, 0.3 + 0.4 * done, 0.4 + 0.25 * done).repeat(LAYERS, 1)
        energy, answer = 0.05 + 0.9 * np.exp(-2 * done), ANSWER if number % 2 else f"Perhaps: {ANSWER}"[:300]
        steps.append(Step(number, energy, 0.12 + 0.6 * done, maps, number / 2, 0.1, 0.1, answer))
    return Trace(
        steps=steps,
        latent=torch.zeros(len(layout), 8),
        stopped="finished",
        method=cm.ControlMLLMPlus(steps=count - 1, layers=(0, LAYERS)),
        regions=(box_in(image),),
        layout=layout,
        layers=tuple(range(LAYERS)),
        queries=(1, 2),
        tokens=("the", "person", "here"),
        question=QUESTION,
        text=QUESTION,
        image=np.asarray(copy),
        image_hash="0" * 64,
        provenance=Provenance({"name": "a model", "revision": None, "class": "", "dtype": "", "attention": ""}, {}, 0),
    )


def of_image(name, image, layout, count):
    """What shows an image, or a run of so many steps; its names end with `name`."""
    trace = trace_of(image, layout, count)
    words, box = tuple(QUESTION.split()), box_in(image)
    maps = [(f"layer {n}" if n % 2 else f"{n}: {ANSWER[:70]}", peak(layout, 0.1 * n, 0.5)) for n in range(8)]
    regions = {title: box if n % 2 else cm.Point(0.1 * n * image.width + 1, 9) for n, (title, _) in enumerate(maps)}
    two = [cm.ContextMap(peak(layout, x, 0.2, 0.05), layout, words) for x in (0.2, 0.22)]
    drawn = {
        "before_after": figures.before_after(trace),
        "before_after own": figures.before_after(trace, "own"),
        "step_player": figures.step_player(trace),
        "map_on_image": figures.map_on_image(two[0], image, box),
        "maps_on_image six": figures.maps_on_image(maps[:6], image, layout, box, what="attention"),
        "maps_on_image": figures.maps_on_image(maps, image, layout, box, what="attention", scale="own"),
        "token_weights": figures.token_weights(layout, image, regions),
        "runs_side_by_side": figures.runs_side_by_side({ANSWER: trace, "2": trace, QUESTION: trace}),
        "sinks_on_image": figures.sinks_on_image(sinks_in(two, 2), image),
        "visual_tokens": figures.visual_tokens(layout, image),
        "energy_curve": figures.energy_curve(trace),
        "words_on_image": figures.words_on_image(lens_of(image, layout)),
        "answer_regions": figures.answer_regions(answer_of(image, layout)),
    }
    return {f"{key}, {name}": figure for key, figure in drawn.items()}


def lens_of(image, layout):
    """What each visual token would say after each of many layers."""
    count, words = len(layout), ANSWER.split()
    said = tuple(tuple((words[(n + layer) % len(words)], "a") for n in range(count)) for layer in range(LAYERS))
    values = torch.linspace(0, 0.9, LAYERS * count * 2).reshape(LAYERS, count, 2)
    call = SimpleNamespace(site=SimpleNamespace(in_sequence=True))
    prompt = SimpleNamespace(layout=layout, image=image, visual=tuple(range(count)), tokens=tuple(words), call=call)
    return Lens("logits", tuple(range(LAYERS)), prompt.visual, values.long(), values, said, prompt, "the image")


def answer_of(image, layout):
    words = tuple(ANSWER.split())
    maps = torch.stack([peak(layout, n / len(words), 0.5) for n in range(len(words))])
    shares, heads = torch.rand(len(words), 2), torch.rand(len(words), 1, 1)
    regions = (box_in(image), cm.Point(9, 9))
    answer = Answer(ANSWER, range(len(words)))
    return AnswerTrace(answer, words, maps, shares, heads, (0,), (0,), layout, regions, image)


def of_numbers():
    """What shows none."""
    rng = np.random.default_rng(0)
    x = np.arange(STEPS)
    lines = {f"{n}: {ANSWER[: 300 if n == 3 else 60 * (n % 2)]}": (x, np.exp(-x / (20 + 5 * n))) for n in range(12)}
    shares = rng.random((LAYERS, HEADS)) ** 3
    grid = HeadGrid(shares, 0.12, tuple(range(LAYERS)), tuple(range(HEADS)), 4 * rng.random((9, LAYERS, HEADS)))
    hits = rng.integers(0, 50, (LAYERS, HEADS))
    few = Sweep.empty(QUESTION, cm.ControlMLLMPlus(), windows(6, ("text", "last")), ["0", "1"])
    few.values[:] = 1.0
    many = Sweep.empty(
        QUESTION, cm.ControlMLLMPlus(), windows(LAYERS, ("text", "last", tuple(QUESTION.split()))), ["0", "1"]
    )
    many.values[:] = rng.random((1, len(many.choices), 2))
    ranking = HeadRanking(QUESTION, grid.layers, grid.heads, 50, hits, 0.05, hits / 9, np.stack([hits, hits]))
    scores = np.linspace([0, 1, 8], [1, 5, 2], 21).T
    ways = [
        Row(f"{n}: {ANSWER[: 60 * (n % 2 + 1)]}", ANSWER, (n - 5.0, 5.0 - n), 0.1, n / 40, n / 30, 1.0, 9)
        for n in range(12)
    ]
    image = photograph(400, 300)
    by_token = lens_of(image, layout_of(image, (3, 6)))
    compared = Comparison(
        QUESTION, QUESTION, (cm.Box(0, 0, 9, 9),), (99, 99), (ANSWER, "no"), QUESTION, (-2.0, -9.0), tuple(ways)
    )
    return {
        "comparison": figures.comparison(compared),
        "cause_grid": figures.cause_grid(
            CauseGrid(
                f"no attention from {QUESTION}",
                "log-odds",
                (ANSWER, QUESTION),
                rng.normal(size=(LAYERS, HEADS)),
                0.0,
                tuple(map(str, range(LAYERS))),
                tuple(map(str, range(HEADS))),
            )
        ),
        "frontier": figures.frontier(frontier_of(rng)),
        "words_by_token": figures.words_by_token(by_token),
        "curves": figures.curves(lines, f"step {QUESTION}", f"energy {QUESTION}", QUESTION),
        "curves, few": figures.curves({name: ([0, 1], [1, 2]) for name in "abc"}, "step", "energy", "Energy"),
        "head_grid": figures.head_grid(grid),
        "head_ranking": figures.head_ranking(ranking),
        "insertion_deletion": figures.insertion_deletion(
            Curves(*scores, *rng.random((2, 5, 21)), f"log p({ANSWER!r}) - log p({QUESTION!r})")
        ),
        "window_grid": figures.window_grid(many, "moved", recommend(many)),
        "window_grid, equal": figures.window_grid(few, "share"),
    }


def frontier_of(rng):
    """Many ways with long names."""
    strengths = (0.25, 0.5, 1.0, 2.0, 4.0)
    curves = [
        Curve(f"{n}: {ANSWER[: 60 * (n % 2)]}", "step_size", strengths, np.abs(rng.normal(size=(4, 5, 12))).cumsum(1))
        for n in range(12)
    ]
    return Frontier(QUESTION, 12, "text", tuple(curves))


def windows(layers, contexts):
    return [Choice((a, b), context) for context in contexts for b in range(1, layers + 1) for a in range(b)]


def every_figure():
    large, tall = photograph(4000, 3000), photograph(300, 2000)
    return {
        **of_image("12 MP", large, layout_of(large, (24, 24)), STEPS),
        **of_image("tall", tall, layout_of(tall, (40, 6)), 3),
        **of_numbers(),
    }
