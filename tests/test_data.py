import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from small_sets import SETS, coco, folder, refcocog, roc, rtc, scenes, screenspot, vip_bench

import cmllm_tools as cm
from cmllm_tools.bench.heldout import HELDOUT
from cmllm_tools.data import format as formats
from cmllm_tools.data.prompts import choices_of, others_of


@pytest.mark.parametrize("name", SETS)
def test_each_public_format_is_found_read_and_asked(tmp_path, mllm, name):
    root = SETS[name](tmp_path)
    dataset = cm.data.read(root)
    assert dataset.name == name
    assert len(set(dataset.ids)) == len(dataset) >= 3
    for scene, example in zip(scenes(len(dataset)), dataset, strict=True):
        assert example.answer
        assert example.where
        prompt = mllm.prepare(example.image, example.question)
        assert prompt.image.size == scene.image.size
        for region in example.regions:
            region.check(*prompt.image.size)
            assert prompt.layout.inside(region).sum() > 0
    assert cm.data.check(dataset, progress=False).faults == ()


def test_a_folder_of_several_sets_is_read_by_the_name_of_one(tmp_path):
    roc(tmp_path), rtc(tmp_path)
    with pytest.raises(cm.DataError, match=r"needs a format or the folder of one; .* has roc, rtc"):
        cm.data.read(tmp_path)
    assert cm.data.read(tmp_path, "rtc").name == "rtc"
    assert cm.data.read(tmp_path / "ROC" / "question_roc.json").name == "roc"


def test_roc_has_its_regions_names_prompts_and_splits(tmp_path):
    root = roc(tmp_path)
    scene = scenes(1)[0]
    for kind in ("box", "mask", "scribble", "point"):
        assert cm.data.read(root, region=kind)[0].region == scene.region(kind)
    example = cm.data.read(root)[0]
    assert example.id == 7000
    assert example.where == "question_roc.json, line 1"
    # The name and its synonyms as they stand there, as the published matcher reads the two otherwise.
    assert example.names == (scene.data["name"].replace(" ", "_"),) * 2 + ("thing_(object)",)
    assert example.question == scene.data["text"].replace("<location> ", "")
    x, y, width, height = scene.data["bbox"]
    located = cm.data.read(root, located=True)[0].question
    assert f"object box @ [{x}, {y}, {x + width}, {y + height}] a " in located
    assert located.endswith(" Answer the question using a single word or phrase.")
    placed = cm.data.read(root, place=True)[0].question
    assert placed.replace(" {place}", "") == example.question
    with pytest.raises(cm.SettingsError, match="either the place in words or"):
        cm.data.read(root, place=True, located=True)
    row = json.loads((root / "question_roc.json").read_text().splitlines()[0])
    (root / "question_roc.json").write_text("".join(json.dumps(row | {"id": at}) + "\n" for at in range(1748)))
    dataset = cm.data.read(root)
    assert dataset.splits == {"test": 1548, "val": 200}
    assert dataset.split("val").ids == tuple(range(1548, 1748))
    with pytest.raises(cm.DataError, match="must be 'test' or 'val'; got 'train'"):
        dataset.split("train")


def test_the_other_sets_have_their_published_questions(tmp_path):
    scene = scenes(1)[0]
    x0, y0, x1, y1 = (int(each) for each in scene.region("box").bounds)
    place = f"box @ [{x0}, {y0}, {x1}, {y1}]"
    text = cm.data.read(rtc(tmp_path))[0]
    assert "<location>" not in text.question
    assert text.alternatives == (next(name for name in scene.objects if name != scene.names[0]),)
    assert place in cm.data.read(tmp_path / "RTC", located=True)[0].question
    described = cm.data.read(refcocog(tmp_path))
    assert described.ids == (500, "500#2", 501)
    assert described[0].question == "Can you provide a description of the region in a sentence?"
    assert described[0].names == (f"the {scene.names[0]}", f"a {scene.names[0]} in the scene")
    assert cm.data.read(tmp_path / "RD/RefCOCOg", located=True)[0].question.endswith(f"marked by {place}.")
    screen = cm.data.read(screenspot(tmp_path), located=True)[0]
    assert screen.question.startswith(f"What is this icon in {place} used for? Respond with")


def test_vip_bench_has_plain_images_with_regions_and_drawn_ones_with_words(tmp_path):
    root = vip_bench(tmp_path)
    plain, drawn = cm.data.read(root), cm.data.read(root, split="bbox")
    assert plain[0].question == "What is the object?"
    assert plain[0].region == (scenes(1)[0].region("box"),)
    assert plain[1].question == "Is object 1 left of object 2?"
    assert len(plain[1].regions) == 2
    assert plain[1].tags == ("rec", "ocr")
    assert drawn[0].question == "What is within the red rectangle?"
    assert drawn[0].image.parts[-3:] == ("bbox", "images", "v1_0_0.png")
    with pytest.raises(cm.DataError, match=r"set's file .*questions\.jsonl"):
        cm.data.read(root, split="human")


@pytest.mark.slow
def test_coco_has_masks_refs_and_names(tmp_path):
    dataset = cm.data.read(coco(tmp_path / "refs"))
    assert dataset.splits == {"testA": 3}
    assert dataset[0].names == (f"The {scenes(1)[0].names[0]}",)
    assert cm.data.read(tmp_path / "refs/coco", question="What is it?")[0].question == "What is it?"
    plain = cm.data.read(coco(tmp_path / "plain", refs=False), region="mask")
    assert plain[0].answer == "shape"
    assert plain[0].question == "What is the object in the region?"
    box = scenes(1)[0].region("box")
    # Pillow draws a polygon with its border.
    assert np.abs(np.array(plain[0].region.bounds) - box.bounds).max() <= 1
    file = tmp_path / "plain/coco/annotations/instances_val2017.json"
    data = json.loads(file.read_text())
    mask = scenes(1)[0].region("mask").pixels
    changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    data["annotations"][0]["segmentation"] = {"counts": counts, "size": [*mask.shape]}
    file.write_text(json.dumps(data))
    assert (cm.data.read(tmp_path / "plain/coco", region="mask")[0].region.pixels == mask).all()


def test_a_folder_with_a_table_has_boxes_points_and_masks(tmp_path):
    dataset = cm.data.read(folder(tmp_path))
    assert [type(example.region).__name__ for example in dataset] == ["Box", "Point", "Mask", "Box"]
    assert dataset.ids == ("own-0", "own-1", "own-2", "own-3")
    assert dataset[0].names == (scenes(1)[0].names[0], "thing")
    assert len(dataset[0].alternatives) == 1
    (tmp_path / "own/examples.csv").write_text(
        "image,question,x0,y0,x1,y1\n0.png,what?,1,2,three,4\n0.png,\n1.png,what?,,,,,\n"
    )
    dataset = cm.data.read(tmp_path / "own")
    for number, message in enumerate(
        (r"line 2 has a bad x1: it must be a number; got 'three'", "line 3 has a bad question", "line 4 has more cells")
    ):
        with pytest.raises(cm.DataError, match=message):
            _ = dataset[number]


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    root = roc(tmp_path)
    for path in [*root.rglob("*.jpg"), *root.rglob("*.png")]:
        path.write_bytes(b"no image")
    dataset = cm.data.read(root, region="mask").shuffled(3)[1:]
    assert len(dataset) == 3
    with pytest.raises(cm.ImageError, match=r"question_roc\.json, line \d: .* cannot be read as an image"):
        _ = dataset[0]


def test_a_set_is_cut_shuffled_and_shared_out():
    dataset = cm.data.read(HELDOUT)[:11]
    assert dataset.shuffled(1).ids == dataset.shuffled(1).ids != dataset.ids
    assert sorted(dataset.shuffled(1).ids) == sorted(dataset.ids)
    shards = [dataset.shard(number, 3).ids for number in (1, 2, 3)]
    assert sorted(sum(shards, ())) == sorted(dataset.ids)
    with pytest.raises(cm.SettingsError, match=r"number of a shard must be a whole number in 1..3"):
        dataset.shard(4, 3)


def test_a_line_that_is_wrong_is_wrong_alone(tmp_path):
    root = roc(tmp_path)
    file = root / "question_roc.json"
    good = file.read_text().splitlines()
    bad = json.loads(good[1])
    file.write_text("\n".join([good[0], "{", json.dumps(bad | {"bbox": [1, 2, 0, 4]}), "", good[3]]))
    dataset = cm.data.read(root)
    assert dataset.ids == (7000, "line 2", 7001, 7003)
    assert dataset[3].id == 7003
    with pytest.raises(cm.DataError, match=r"question_roc\.json, line 2 is not JSON"):
        _ = dataset[1]
    with pytest.raises(cm.DataError, match=r"question_roc\.json, line 3 has a bad bbox: it must be x, y, width"):
        _ = dataset[2]


@pytest.mark.parametrize("name", ["../../secret.png", "/passwd", "..", "nul\0byte", ""])
@pytest.mark.parametrize("kind", ["roc", "rtc", "screenspot", "vip-bench", "coco", "folder"])
def test_no_path_of_a_file_leads_out_of_its_folder(tmp_path, kind, name):
    root = SETS[kind](tmp_path)
    Image.new("RGB", (30, 20)).save(tmp_path / "secret.png")
    field = {"roc": "image_path", "rtc": "image", "screenspot": "image_path", "vip-bench": "image_source"}.get(kind)
    if kind == "folder":
        (root / "examples.csv").write_text(f"image,question,x,y\n{name},what?,1,1\n")
    elif kind == "coco":
        file = root / "annotations/instances_val2017.json"
        data = json.loads(file.read_text())
        data["images"][0]["file_name"] = name
        file.write_text(json.dumps(data))
    else:
        file = next(root.glob("*.json"))
        data = file.read_text()
        first = json.loads(data)["v1_0"] if kind == "vip-bench" else json.loads(data.splitlines()[0])
        file.write_text(json.dumps({"v1_0": first | {field: name}} if kind == "vip-bench" else first | {field: name}))
    with pytest.raises(cm.DataError, match=r"leads out of the set's|names no file|must have words"):
        _ = cm.data.read(root)[0]


def test_what_is_no_set_says_what_is_one(tmp_path):
    with pytest.raises(cm.DataError, match=r"there is no .*nowhere"):
        cm.data.read(tmp_path / "nowhere")
    with pytest.raises(cm.DataError, match=r"has none of these: .*roc: question_roc\.json"):
        cm.data.read(tmp_path)
    with pytest.raises(cm.SettingsError, match="The format must be 'coco', "):
        cm.data.read(tmp_path, "voc")
    with pytest.raises(cm.SettingsError, match="A roc set is read with region, located, place; got seed too"):
        cm.data.read(HELDOUT, seed=3)
    with pytest.raises(cm.SettingsError, match=r"kind of region of a roc set must be 'box'.* got 'star'"):
        cm.data.read(HELDOUT, region="star")


def test_examples_at_hand_are_a_set():
    examples = [cm.data.Example(each.image, "what?", each.region("box"), id="one") for each in scenes(2)]
    dataset = cm.data.read(HELDOUT)
    assert cm.data.Dataset.of(examples).ids == ("one", "one#2")
    assert dataset[:2].ids == (0, 1)
    assert "roc" in repr(dataset)
    assert repr(dataset) in dataset._repr_html_() or "examples" in dataset._repr_html_()
    with pytest.raises(cm.DataError, match=r"must be several of data\.Example"):
        cm.data.Dataset.of(["a"])


def test_a_format_is_a_class_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", dict(cm.data.all_formats()))

    @cm.data.register
    @dataclass(frozen=True)
    class Lines(cm.data.Format):
        name = "lines"
        files = ("lines.txt",)

        def rows(self, file):
            return [cm.data.Row(at, f"line {at}", text) for at, text in enumerate(file.read_text().splitlines(), 1)]

        def example(self, file, row):
            return cm.data.Example(Image.new("RGB", (9, 9)), row.data, cm.Point(1, 1))

    (tmp_path / "lines.txt").write_text("what?\nwho?\n")
    assert [example.question for example in cm.data.read(tmp_path)] == ["what?", "who?"]
    with pytest.raises(cm.SettingsError, match="must have a name of its own; there is a roc in"):
        cm.data.register(type("Other", (cm.data.Format,), {"name": "roc", "files": ("x",)}))
    with pytest.raises(cm.SettingsError, match=r"must be a subclass of data\.Format"):
        cm.data.register(int)


@pytest.mark.parametrize(
    ("question", "choices"),
    [
        ("Is the object a red six or a magenta diamond?", ("red six", "magenta diamond")),
        ("Is the object a cat or an owl?", ("cat", "owl")),
        ("Is the object <location> an apple or a pear?", ("apple", "pear")),
        ("Is the text of the image 'EXIT' or 'NO or a way'? please select only one.", ("EXIT", "NO or a way")),
        ("What is it?", ()),
    ],
)
def test_choices_are_read_from_the_question(question, choices):
    assert choices_of(question) == choices
    if choices:
        assert others_of(question, [choices[0].upper()]) == (choices[1],)
        # Neither or both named so: it is not clear which is wrong.
        assert others_of(question, ["dog"]) == ()
        assert others_of(question, choices) == ()


def test_a_check_names_what_is_wrong_by_its_line(tmp_path):
    root = roc(tmp_path, 8)
    file = root / "question_roc.json"
    rows = [json.loads(each) for each in file.read_text().splitlines()]
    rows[1]["image_path"] = "val2017/nowhere.jpg"
    rows[2]["bbox"] = [180, 10, 40, 40]
    rows[3]["synonyms"] = "none"
    wide = root / "LVIS/image/val2017/wide.jpg"
    Image.new("RGB", (400, 100)).save(wide)
    rows[4] |= {"image_path": "val2017/wide.jpg", "bbox": [10, 10, 30, 30]}
    whole = (root / "LVIS/image" / "val2017" / rows[5]["image_path"].rpartition("/")[2]).read_bytes()
    (root / "LVIS/image/val2017/cut.jpg").write_bytes(whole[: len(whole) // 2])
    rows[5]["image_path"] = "val2017/cut.jpg"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = cm.data.check(cm.data.read(root), progress=False)
    assert [(fault.where.rpartition(" ")[2], fault.kind) for fault in found.faults] == [
        ("2", "image"),
        ("3", "region"),
        ("4", "malformed"),
        ("6", "image"),
    ]
    assert [each.where for each in found.cropped] == ["question_roc.json, line 5"]
    assert found.bad == 4
    table = found.table()
    assert "8 examples" in table
    assert "question_roc.json, line 4  malformed  has a bad synonyms: it must be a list" in table
    assert "not within the centre square: line 5" in table
    assert json.loads(json.dumps(found.to_json()))["outside_centre_square"] == [
        {"where": each.where, "id": each.id} for each in found.cropped
    ]
    assert "and 3 more" in found.table(1)
