"""Generate the held-out set in the public ROC format: `python -m training.embedded.heldout`.

Unmarked scenes with digits that training never saw. For each scene one object is referred to; another one of the scene
is the alternative in "is the object a A or a B?". Beside the ROC fields every line lists the scene's objects, so that
answers about something absent can be told.
"""

import argparse
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from cmllm_tools.bench.heldout import DESCRIPTIONS, HELDOUT, QUESTIONS, VOCABULARY
from cmllm_tools.files import make_folder, write_text, write_whole

from ..roc_lines import referred, xywh
from .scenes import COLORS, KINDS, load_digits, make_scene

SEED = 777
COUNT = 500


def generate(out: Path, count: int = COUNT, seed: int = SEED) -> None:
    """Write `count` scenes to `out`: pictures, masks, two files of JSON lines, and the words that objects have."""
    digits = load_digits("heldout")
    for folder in ("image/heldout", "mask"):
        make_folder(out / folder)
    questions, descriptions = [], []
    for number in tqdm(range(count), "held-out scenes"):
        rng = np.random.default_rng([seed, number])
        scene = make_scene(rng, digits, marked=False)
        target, other = (scene.objects[i] for i in rng.permutation(len(scene.objects))[:2])
        name = f"{number:04d}.png"
        pictures = {"image/heldout": scene.image, "mask": Image.fromarray(target.mask)}
        for folder, picture in pictures.items():
            write_whole(out / folder / name, partial(picture.save, format="PNG", optimize=True))
        first, second = (target, other) if rng.random() < 0.5 else (other, target)
        line = {
            "id": number,
            "image_path": f"heldout/{name}",
            "text": f"Is the object <location> a {first.name} or a {second.name}?",
            **referred(target.mask, name, [target.name], rng),
            "objects": [{"name": thing.name, "bbox": xywh(thing.mask)} for thing in scene.objects],
        }
        questions.append(line)
        descriptions.append(line | {"text": "Describe the object <location>."})
    for file, lines in ((QUESTIONS, questions), (DESCRIPTIONS, descriptions)):
        write_text(out / file, "".join(json.dumps(line) + "\n" for line in lines))
    write_text(out / VOCABULARY, json.dumps({"colors": list(COLORS), "kinds": list(KINDS)}) + "\n")


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HELDOUT)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(None if arguments is None else list(arguments))
    generate(options.out, options.count, options.seed)


if __name__ == "__main__":
    main()
