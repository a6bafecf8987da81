"""Generate the held-out sets in the public ROC format: `python -m training.smol.heldout --pictures FILE`.

Scenes of two to four things, drawn plainly: 300 of styles that the eyes were trained on, and 300 of the one held out. For
each scene one thing is referred to; another one of the scene is the alternative in "a A or a B?".
"""

import argparse
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from cmllm_tools.bench.heldout import DESCRIPTIONS, QUESTIONS, VOCABULARY
from cmllm_tools.bench.smol_sets import SETS, SMOL_HELDOUT
from cmllm_tools.files import make_folder, write_text, write_whole

from ..roc_lines import referred, xywh
from .language import NAME_QUESTION, choice_question
from .scenes import PLAIN, Painter
from .world import HELD_OUT, SHOWN, owners, photographs, read_pictures, things

SEED = 778
COUNT = 300
SIDE = 192
# Other words for a thing.
SYNONYMS = Path(__file__).with_name("synonyms.json")


def generate(pictures: Path, out: Path, count: int = COUNT, seed: int = SEED) -> None:
    """Write both sets below `out`: pictures, masks, and two files of JSON lines each."""
    found, synonyms, names = read_pictures(pictures), json.loads(SYNONYMS.read_text(encoding="utf-8")), list(things())
    make_folder(out)
    write_text(out / VOCABULARY, json.dumps({"names": names}) + "\n")
    for folder, styles in zip(SETS, (SHOWN, (HELD_OUT,)), strict=True):
        generator = torch.Generator().manual_seed(seed)
        painter = Painter(torch.from_numpy(np.stack([found[s] for s in styles])), owners(), photographs(), generator)
        rng = np.random.default_rng(seed)
        for part in ("image/heldout", "mask"):
            make_folder(out / folder / part)
        questions, descriptions = [], []
        for number in tqdm(range(count), folder):
            image, masks = _scene(painter)
            target, other = rng.permutation(list(masks))[:2]
            name = f"{number:04d}"
            write_whole(out / folder / f"image/heldout/{name}.webp", partial(image.save, format="WEBP", quality=88))
            mask = Image.fromarray(masks[target])
            write_whole(out / folder / f"mask/{name}.png", partial(mask.save, format="PNG", optimize=True))
            pair = [names[target], names[other]]
            rng.shuffle(pair)
            line = {
                "id": number,
                "image_path": f"heldout/{name}.webp",
                "text": choice_question(*pair),
                **referred(masks[target], f"{name}.png", [names[target], *synonyms.get(names[target], ())], rng),
                "objects": [{"name": names[thing], "bbox": xywh(mask)} for thing, mask in masks.items()],
            }
            questions.append(line)
            descriptions.append(line | {"text": NAME_QUESTION})
        for file, lines in ((QUESTIONS, questions), (DESCRIPTIONS, descriptions)):
            write_text(out / folder / file, "".join(json.dumps(line) + "\n" for line in lines))


def _scene(painter: Painter) -> tuple[Image.Image, dict[int, np.ndarray]]:
    """A scene of two things or more, and the mask of each by its number."""
    while True:
        scenes = painter.draw(1, PLAIN, side=SIDE, numbers=(2, 3, 4))
        masks = {
            thing: mask.numpy() >= 0.5
            for thing, mask in zip(scenes.things[0].tolist(), scenes.masks[0], strict=True)
            if thing >= 0
        }
        if len(masks) >= 2:
            pixels = (255 * scenes.images[0]).round().to(torch.uint8).permute(1, 2, 0)
            return Image.fromarray(pixels.numpy()), masks


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, help="made by python -m training.smol.pictures")
    parser.add_argument("--out", type=Path, default=SMOL_HELDOUT)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(None if arguments is None else list(arguments))
    generate(options.pictures, options.out, options.count, options.seed)


if __name__ == "__main__":
    main()
