import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import cmllm_tools as cm
from cmllm_tools.bench.heldout import DESCRIPTIONS, HELDOUT
from cmllm_tools.data.formats.roc import read_roc
from cmllm_tools.evaluation.matching import reference_match, strict_match
from training.embedded.heldout import generate
from training.embedded.scenes import COLORS, KINDS


def test_heldout_set_is_in_the_public_format():
    questions, descriptions = read_roc(HELDOUT), read_roc(HELDOUT, DESCRIPTIONS)
    assert len(questions) == len(descriptions) >= 500
    for question, description in zip(questions[:60], descriptions[:60], strict=True):
        image = question.image
        assert image.size == (192, 192)
        mask, box = question.region("mask"), question.region("box")
        ys, xs = np.nonzero(mask.pixels)
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (box.x0, box.y0, box.x1, box.y1)
        point = question.region("point")
        assert mask.pixels[int(point.y), int(point.x)]
        assert all(mask.pixels[int(y), int(x)] for x, y in question.region("scribble").points)
        color, kind = question.names[0].split()
        assert color in COLORS
        assert kind in KINDS
        assert question.names[0] in question.objects
        assert len(set(question.objects)) == len(question.objects) >= 2
        assert question.question.startswith("Is the object a ")
        assert question.names[0] in question.question
        assert description.question == "Describe the object."
        assert description.id == question.id
    with pytest.raises(cm.DataError, match="box, mask, scribble or point; got 'star'"):
        questions[0].region("star")


def test_heldout_set_is_what_its_command_makes(tmp_path):
    generate(tmp_path, count=3)
    for number, again in enumerate(read_roc(tmp_path)):
        shipped = read_roc(HELDOUT)[number]
        assert again.data == shipped.data
        assert np.array_equal(np.asarray(again.image), np.asarray(shipped.image))
        assert again.region("mask") == shipped.region("mask")


def test_damaged_sets_say_what_is_wrong(tmp_path):
    with pytest.raises(cm.DataError, match="there is no"):
        read_roc(tmp_path)
    file = tmp_path / "question_roc.json"
    file.write_text('{"id": 1}\n')
    with pytest.raises(cm.DataError, match="line 1 lacks image_path, text"):
        read_roc(tmp_path)
    file.write_text("{\n")
    with pytest.raises(cm.DataError, match="line 1 is not"):
        read_roc(tmp_path)


def test_foreign_sets_without_objects_are_read(tmp_path):
    (tmp_path / "image/val2017").mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "image/val2017/7.jpg")
    line = {
        "id": 7,
        "image_path": "LVIS/val2017/7.jpg",
        "text": "Is the object <location> a cat or a dog?",
        "name": "cat",
        "synonyms": ["house_cat"],
        "bbox": [1, 2, 3, 4],
        "seg_mask": "7.png",
        "center_point": [2, 3],
        "scribble": [[2, 3], [3, 4]],
    }
    (tmp_path / "question_roc.json").write_text(json.dumps(line) + "\n")
    (example,) = read_roc(tmp_path)
    assert example.question == "Is the object a cat or a dog?"
    assert example.names == ("cat", "house_cat")
    assert example.objects == ()
    assert example.region("box") == cm.Box(1, 2, 4, 6)
    assert example.image.size == (30, 20)


@pytest.mark.parametrize(
    ("answer", "reference", "strict"),
    [
        ("cat", True, True),
        ("It is a cat.", True, True),
        ("Cat", False, True),
        ("dog", False, False),
        ("a cat or a dog", True, False),
        ("It is a dog, not a cat.", False, False),
        ("It is not a dog, it is a cat.", True, False),
        ("catalogue", True, False),
        ("a house cat", True, True),
    ],
)
def test_matchers(answer, reference, strict):
    names, others = ["cat", "house_cat"], ["dog"]
    assert reference_match(answer, names) is reference
    assert strict_match(answer, names, others) is strict


def test_an_example_for_the_analyses_is_named_as_the_question_names_it(example):
    given = example.example("point")
    assert given.region == example.region("point")
    assert given.answer in given.question
    assert len(given.alternatives) == 1
    assert given.alternatives[0] in given.question
    synonym = dataclasses.replace(example, data=example.data | {"name": "gem_stone", "synonyms": [example.names[0]]})
    assert synonym.example().answer == example.names[0]


LINE = {
    "id": 7,
    "image_path": "LVIS/val2017/7.jpg",
    "text": "Is the object <location> a cat or a dog?",
    "name": "cat",
    "synonyms": ["house_cat"],
    "bbox": [1, 2, 3, 4],
    "seg_mask": "7.png",
    "center_point": [2, 3],
    "scribble": [[2, 3], [3, 4]],
    "objects": [{"name": "cat", "bbox": [1, 2, 3, 4]}],
}
BAD = [None, True, 1.5, 10**400, "", "half \ud800", [], [1], [[1, 2], [3]], {}, {"name": 3}, float("nan"), ["1", "2"]]


@pytest.mark.parametrize("field", LINE)
def test_malformed_fields_are_named_by_file_and_line(tmp_path, field):
    """Each field in turn replaced by each of many values; what is a right value of one passes."""
    good = {"text": ["half \ud800"], "name": ["half \ud800"], "synonyms": [[], ["1", "2"]], "objects": [[]]}
    good |= {"id": ["", "half \ud800", 10**400]}
    file = tmp_path / "question_roc.json"
    for value in BAD:
        file.write_text(f"{json.dumps(LINE)}\n\n{json.dumps(LINE | {field: value})}\n", encoding="utf-8")
        if any(value is each or value == each for each in good.get(field, [])):
            assert len(read_roc(tmp_path)) == 2
        else:
            with pytest.raises(cm.DataError, match=r"line of .*question_roc\.json must be .*; line 3 "):
                read_roc(tmp_path)


@pytest.mark.parametrize("line", [b"[]", b"3", b"null", b'"x"', b"[" * 100_000, b"\xff\xfe", b'{"id": NaN}', b"1" * 5000])
def test_lines_that_are_no_objects_are_named_by_file_and_line(tmp_path, line):
    (tmp_path / "question_roc.json").write_bytes(json.dumps(LINE).encode() + b"\r\n" + line + b"\n")
    with pytest.raises(cm.DataError, match=r"question_roc\.json must be .*; line 2 "):
        read_roc(tmp_path)


def test_a_line_may_hold_line_separators_of_other_alphabets(tmp_path):
    line = json.dumps(LINE | {"text": "one \u2028 two \x85?"}, ensure_ascii=False)
    (tmp_path / "question_roc.json").write_text("\ufeff" + line + "\n", encoding="utf-8")
    assert read_roc(tmp_path)[0].question == "one \u2028 two \x85?"


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("image_path", "/passwd"),
        ("image_path", "a/.."),
        ("image_path", "../../x"),
        ("image_path", ".."),
        ("image_path", "out/secret.png"),
        ("image_path", "nul\0byte"),
        ("seg_mask", "../secret.png"),
        ("seg_mask", "/etc/passwd"),
        ("seg_mask", "link.png"),
        ("seg_mask", "."),
    ],
)
def test_a_set_does_not_reach_files_outside_its_folders(tmp_path, field, name):
    root = tmp_path / "set"
    for folder in ("image", "mask"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "secret.png")
    (root / "image/out").symlink_to(tmp_path)
    (root / "mask/link.png").symlink_to(tmp_path / "secret.png")
    (root / "question_roc.json").write_text(json.dumps(LINE | {field: name}))
    with pytest.raises(cm.DataError, match=r"question_roc\.json must be .*; line 1 (leads out of the set's|names no file)"):
        read_roc(root)


def test_the_folders_of_a_set_may_be_links(tmp_path):
    (tmp_path / "data/val2017").mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "data/val2017/7.jpg")
    (tmp_path / "image").symlink_to(tmp_path / "data")
    (tmp_path / "question_roc.json").write_text(json.dumps(LINE))
    (example,) = read_roc(tmp_path)
    assert example.image.size == (30, 20)


def test_images_of_a_set_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "question_roc.json").write_text(json.dumps(LINE))
    (example,) = read_roc(tmp_path)
    with pytest.raises(cm.ImageError, match="no image at"):
        _ = example.image
    with pytest.raises(cm.ImageError, match="no image at"):
        example.region("mask")
