"""Scenes, overlays, questions and the training script of the embedded model."""

import random

import numpy as np
import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.inputs.overlays import COLORS as OVERLAY_COLORS
from cmllm_tools.inputs.overlays import OVERLAYS, draw_overlay
from training.embedded import train
from training.embedded.corpus import encode, load_corpus
from training.embedded.language import Named, build_tokenizer, sample_turn, vocabulary
from training.embedded.scenes import COLORS, DIGITS, KINDS, SIZE, load_digits, make_scene, mark


@pytest.fixture(scope="module")
def digits():
    return load_digits("train")


@pytest.fixture(scope="module")
def scenes(digits):
    return [make_scene(np.random.default_rng([3, i]), digits) for i in range(60)]


def test_training_and_heldout_digits_are_disjoint(digits):
    heldout = load_digits("heldout")
    assert sum(len(images) for images in digits.values()) + sum(len(images) for images in heldout.values()) == 1797
    seen = {image.tobytes() for images in digits.values() for image in images}
    assert not any(image.tobytes() in seen for images in heldout.values() for image in images)
    assert list(digits) == list(DIGITS)


def test_scenes(scenes):
    for scene in scenes:
        assert 2 <= len(scene.objects) <= 4
        assert len({thing.color for thing in scene.objects}) == len(scene.objects)
        assert len({thing.kind for thing in scene.objects}) == len(scene.objects)
        assert np.sum([thing.mask for thing in scene.objects], axis=0).max() == 1
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= SIZE
            assert 0 <= y0 < y1 <= SIZE
            if scene.marked is None:
                color = np.asarray(scene.image)[thing.mask].mean(0)
                assert np.abs(color - COLORS[thing.color]).max() < 45
    assert 0.3 < np.mean([scene.marked is not None for scene in scenes]) < 0.7
    kinds = {thing.kind for scene in scenes for thing in scene.objects}
    assert len(kinds) >= 16
    edges = [min(x0, y0, SIZE - x1, SIZE - y1) for s in scenes for x0, y0, x1, y1 in (t.box for t in s.objects)]
    assert min(edges) == 0


def test_scenes_follow_their_seed(digits):
    one, again, other = (make_scene(np.random.default_rng([3, i]), digits) for i in (0, 0, 1))
    assert np.array_equal(np.asarray(one.image), np.asarray(again.image))
    assert not np.array_equal(np.asarray(one.image), np.asarray(other.image))


@pytest.mark.parametrize("kind", OVERLAYS)
def test_overlays_change_the_image_at_the_object_only(digits, kind):
    for seed in range(5):
        rng = np.random.default_rng([seed])
        scene = make_scene(rng, digits, marked=False)
        marked = mark(scene, 0, kind, rng)
        changed = (np.asarray(marked.image) != np.asarray(scene.image)).any(-1)
        assert changed.sum() > 10
        x0, y0, x1, y1 = scene.objects[0].box
        ys, xs = np.nonzero(changed)
        reach = 60 if kind == "arrow" else 40
        assert xs.min() >= x0 - reach
        assert xs.max() <= x1 + reach
        assert ys.min() >= y0 - reach
        assert ys.max() <= y1 + reach


def test_mask_overlay_is_an_alpha_blend():
    from PIL import Image

    image = Image.new("RGB", (20, 20), (100, 100, 100))
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    blended = draw_overlay(image, mask, "mask", np.random.default_rng(0), color="blue", alpha=51)
    expected = 0.8 * 100 + 0.2 * np.array(OVERLAY_COLORS["blue"])
    assert np.abs(np.asarray(blended)[10, 10] - expected).max() <= 1
    assert blended.getpixel((0, 0)) == (100, 100, 100)
    assert image.getpixel((10, 10)) == (100, 100, 100)


@pytest.mark.parametrize(
    ("kind", "color", "mask", "message"),
    [
        ("star", None, np.ones((4, 4)), "one of rectangle, ellipse.*got 'star'"),
        ("mask", "pink", np.ones((4, 4)), "got 'pink'"),
        ("mask", None, np.zeros((4, 4)), "at least one pixel"),
        ("mask", None, np.ones((4, 5)), r"4 x 4 px; got shape \(4, 5\)"),
    ],
)
def test_overlays_that_cannot_be_drawn(kind, color, mask, message):
    from PIL import Image

    with pytest.raises(cm.RegionError, match=message):
        draw_overlay(Image.new("RGB", (4, 4)), mask, kind, np.random.default_rng(0), color=color)


def test_turns_are_true_and_in_the_vocabulary():
    objects = [Named("red", "circle", "top"), Named("blue", "seven", "left"), Named("white", "two", "top")]
    tokenizer, words, rng = build_tokenizer(), vocabulary(), random.Random(0)
    names = {thing.name for thing in objects}
    for _ in range(800):
        question, answer = sample_turn(rng, objects, marked=1)
        ids = tokenizer(f"{question} {answer}", add_special_tokens=False)["input_ids"]
        assert ids == [words[word] for word in f"{question} {answer}".split()]
        assert tokenizer.decode(ids) == f"{question} {answer}"
        if question.startswith(("describe", "what is this")):
            assert answer.startswith("blue seven")
        if question.startswith("is there a"):
            named = question.removeprefix("is there a ").removesuffix(" ?")
            assert answer == ("yes" if named in names else "no")
        if question == "what is at the top ?":
            assert answer in ("red circle", "white two")


def test_corpus_rows_say_what_is_in_the_scene(scenes):
    for scene in scenes[:20]:
        row = encode(scene)
        assert row["pixels"].shape == (96, 96, 3)
        for number, thing in enumerate(scene.objects):
            assert KINDS[row["kinds"][number]] == thing.kind
            x0, y0, x1, y1 = thing.box
            owned = np.argwhere(row["tokens"].reshape(8, 8) == number)
            assert len(owned)
            centre = (owned.mean(0)[::-1] + 0.5) * 24
            assert x0 - 12 <= centre[0] <= x1 + 12
            assert y0 - 12 <= centre[1] <= y1 + 12
        assert row["marked"] == (-1 if scene.marked is None else scene.marked)


def test_packed_turns_do_not_see_each_other(tmp_path, monkeypatch):
    """The logits of a turn in a pack are those of the turn alone behind the same image."""
    monkeypatch.setattr("training.embedded.corpus.CHUNK", 4)
    corpus = load_corpus(tmp_path, 4, 5, workers=1)
    trainer = train.Trainer(tmp_path, corpus, torch.device("cpu"))
    trainer.model.eval()
    packed = trainer.packer.pack(corpus, 0, random.Random(0))
    start = trainer.packer.start
    embed = trainer.model.model.language_model.embed_tokens
    with torch.no_grad():
        visual = trainer.visual_tokens(np.array([0]))
        prefix = torch.cat([embed(torch.tensor([trainer.packer.prefix])), visual], 1)
        tokens, positions, segments, _ = torch.from_numpy(packed)
        together = trainer.model.model.language_model(
            inputs_embeds=torch.cat([prefix, embed(tokens[None])], 1),
            position_ids=torch.cat([torch.arange(start), positions])[None],
            attention_mask=train.turn_mask(torch.nn.functional.pad(segments[None], (start, 0)), start),
        ).last_hidden_state[0, start:]
        assert segments.max() >= 4
        for segment in (1, 2, int(segments.max())):
            own = segments == segment
            alone = trainer.model.model.language_model(
                inputs_embeds=torch.cat([prefix, embed(tokens[own][None])], 1)
            ).last_hidden_state[0, start:]
            assert torch.allclose(together[own], alone, atol=1e-4)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr("training.embedded.corpus.CHUNK", 8)
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    plan = {
        "vision": train.Stage(steps=3, images=2, rate=1e-3, vision_rate=1e-3),
        "language": train.Stage(steps=4, images=2, rate=1e-3, vision_rate=3e-4),
    }
    monkeypatch.setattr(train, "STAGES", plan)
    corpus = load_corpus(tmp_path / "corpus", 8, 5, workers=1)

    def trained(folder, stop_after=None):
        folder.mkdir(exist_ok=True)
        trainer = train.Trainer(folder, corpus, torch.device("cpu"))
        if stop_after is not None:
            save, saves = trainer.save, []

            def save_then_stop(*arguments):
                save(*arguments)
                saves.append(arguments)
                if len(saves) == stop_after:
                    raise KeyboardInterrupt

            monkeypatch.setattr(trainer, "save", save_then_stop)
        for stage in plan:
            trainer.run(stage)
        return trainer

    whole = trained(tmp_path / "whole")
    for stop_after in (1, 3):
        folder = tmp_path / f"cut{stop_after}"
        with pytest.raises(KeyboardInterrupt):
            trained(folder, stop_after)
        resumed = trained(folder)
        for (name, expected), (_, found) in zip(
            whole.model.state_dict().items(), resumed.model.state_dict().items(), strict=True
        ):
            assert torch.allclose(expected, found, atol=1e-6), name
    assert [entry["step"] for entry in whole.history] == [2, 3, 2, 4]
    whole.export(tmp_path / "model")
    assert cm.load(tmp_path / "model").layers == 6


def test_a_corpus_without_marks_is_the_same_scenes_bare(tmp_path, monkeypatch):
    monkeypatch.setattr("training.embedded.corpus.CHUNK", 8)
    drawn, bare = (load_corpus(tmp_path, 8, 5, workers=1, marks=marks) for marks in (True, False))
    assert (bare.marked == -1).all()
    assert (drawn.marked >= 0).any()
    for field in ("colors", "kinds", "places", "tokens"):
        assert np.array_equal(getattr(drawn, field), getattr(bare, field))
    same = (drawn.pixels == bare.pixels).all((1, 2, 3))
    assert np.array_equal(same, drawn.marked == -1)


def test_a_checkpoint_of_other_scenes_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr("training.embedded.corpus.CHUNK", 8)
    marked, bare = (
        train.Trainer(tmp_path, load_corpus(tmp_path, 8, 5, workers=1, marks=marks), torch.device("cpu"))
        for marks in (True, False)
    )
    optimizer = torch.optim.AdamW(marked._parameters())
    marked.save("vision", 1, optimizer)
    assert marked.resume("vision", optimizer) == 1
    with pytest.raises(SystemExit, match=r"scenes with marks\. Give these another folder"):
        bare.resume("vision", optimizer)


def test_the_clock_ends_a_stage_and_what_was_reached_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("training.embedded.corpus.CHUNK", 4)
    corpus = load_corpus(tmp_path, 4, 5, workers=1, marks=False)
    seconds = iter(range(1000))
    monkeypatch.setattr(train.time, "perf_counter", lambda: float(next(seconds)))
    pace = train.Pace(minutes=0.1, images=2, rate=2.0)
    plan = train.Stage(steps=10**6, images=1, rate=1e-3, vision_rate=1e-3, share=0.5)
    monkeypatch.setattr(train, "STAGES", {"vision": plan})
    trainer = train.Trainer(tmp_path, corpus, torch.device("cpu"), pace)
    trainer.run("vision")
    # A half of six seconds, a second each time the clock is asked: at the start, and once a step.
    assert [(row["step"], row["seconds"]) for row in trainer.history] == [(2, 4.0)]
    again = train.Trainer(tmp_path, corpus, torch.device("cpu"), pace)
    again.run("vision")
    assert again.history == trainer.history
    trainer.export(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 8e6
    assert (tmp_path / "history.json").exists()
