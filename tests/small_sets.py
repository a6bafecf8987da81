"""Small invented sets in the exact public formats and folder layouts, made of the embedded model's held-out scenes."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

import cmllm_tools as cm


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def corners(example):
    x0, y0, x1, y1 = example.region("box").bounds
    return [x0, y0, x1 - x0, y1 - y0]


def scenes(count):
    return cm.bench.held_out()[:count]


def roc(data: Path, count=4) -> Path:
    """`DATA/ROC`, as the reference's DATASETS.md lays it out."""
    root = data / "ROC"
    rows = []
    for number, scene in enumerate(scenes(count)):
        name = f"{number:012d}"
        save(scene.image, root / f"LVIS/image/val2017/{name}.jpg")
        save(Image.fromarray(scene.region("mask").pixels), root / f"LVIS/mask/{name}.png")
        rows.append(
            {
                "id": 7000 + number,
                "image_path": f"LVIS/val2017/{name}.jpg",
                "text": scene.data["text"],
                "name": scene.names[0].replace(" ", "_"),
                "synonyms": [scene.names[0].replace(" ", "_"), "thing_(object)"],
                "bbox": corners(scene),
                "seg_mask": f"{name}.png",
                "center_point": scene.data["center_point"],
                "scribble": scene.data["scribble"],
            }
        )
    lines(root / "question_roc.json", rows)
    return root


def rtc(data: Path, count=4) -> Path:
    root = data / "RTC"
    rows = []
    for number, scene in enumerate(scenes(count)):
        save(scene.image, root / f"COCO-Text/image/COCO_train2014_{number:012d}.jpg")
        save(Image.fromarray(scene.region("mask").pixels), root / f"COCO-Text/mask/{number}.png")
        label, other = scene.names[0], next(name for name in scene.objects if name != scene.names[0])
        rows.append(
            {
                "question_id": number,
                "image": f"COCO_train2014_{number:012d}.jpg",
                "text": f"Is the text <location> of the image '{other}' or '{label}'? please select only one.",
                "label": label,
                "box": corners(scene),
                "mask": f"{number}.png",
            }
        )
    lines(root / "question_rtc.json", rows)
    return root


def refcocog(data: Path, count=3) -> Path:
    root = data / "RD/RefCOCOg"
    entries = []
    for number, scene in enumerate(scenes(count)):
        save(scene.image, root / f"COCO2014/train2014/COCO_train2014_{500 + number // 2:012d}.jpg")
        expressions = [f"the {scene.names[0]}", f"a {scene.names[0]} in the scene"]
        entries.append({"image_id": 500 + number // 2, "expressions": expressions, "bbox": corners(scene)})
    (root / "refcocog.json").write_text(json.dumps({"test": entries}), encoding="utf-8")
    return root


def screenspot(data: Path, count=3) -> Path:
    root = data / "RD/ScreenSpot"
    asked = ("What is this icon used for?", "What does this text say?")
    rows = []
    for number, scene in enumerate(scenes(count)):
        save(scene.image, root / f"image/web_{number}.png")
        # With the folder and without it.
        path = f"image/web_{number}.png" if number % 2 else f"web_{number}.png"
        rows.append(
            {"id": number, "image_path": path, "text": asked[number % 2], "name": scene.names[0], "bbox": corners(scene)}
        )
    lines(root / "question_screenspot.json", rows)
    return root


def vip_bench(data: Path, count=3) -> Path:
    root = data / "ViP-Bench"
    meta, asked = {}, []
    for number, scene in enumerate(scenes(count)):
        save(scene.image, root / f"source_image/v1_{number}.png")
        drawn = scene.image.copy()
        ImageDraw.Draw(drawn).rectangle(scene.region("box").bounds, outline="red", width=3)
        save(drawn, root / f"bbox/images/v1_{number}_0.png")
        x, y, width, height = corners(scene)
        # labelme gives two corners in the order in which they were drawn, or a polygon.
        two = {"label": "obj", "points": [[x + width, y], [x, y + height]], "shape_type": "rectangle"}
        shapes = [two]
        if number == 1:
            around = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
            one = {"label": "obj1", "points": around, "shape_type": "polygon"}
            shapes = [one, two | {"label": "obj2"}]
        sides = {"imageWidth": scene.image.width, "imageHeight": scene.image.height}
        labelme = {"imagePath": f"v1_{number}.png", "shapes": shapes, **sides}
        (root / f"source_image/v1_{number}.json").write_text(json.dumps(labelme), encoding="utf-8")
        meta[f"v1_{number}"] = {
            "image_source": f"v1_{number}.png",
            "image": f"v1_{number}_0.png",
            "question": "Is <obj1> left of <obj2>?" if number == 1 else "What is <obj>?",
            "answer": f"{scene.names[0]}<OR>it" if number else f"{scene.names[0]}<AND>one",
            "capability": ["rec", "ocr"] if number else ["rec"],
        }
        text = "What is within the red rectangle?"
        asked.append({"image": f"v1_{number}_0.png", "text": text, "question_id": number, "category": "default"})
    (root / "vip-bench-meta-data.json").write_text(json.dumps(meta), encoding="utf-8")
    lines(root / "bbox/questions.jsonl", asked)
    return root


def coco(data: Path, count=3, refs=True) -> Path:
    root = data / "coco"
    found = {"images": [], "annotations": [], "categories": [{"id": 5, "name": "shape"}]}
    said = []
    for number, scene in enumerate(scenes(count)):
        save(scene.image, root / f"val2017/{number:012d}.jpg")
        sides = {"width": scene.image.width, "height": scene.image.height}
        found["images"].append({"id": number, "file_name": f"{number:012d}.jpg", **sides})
        x, y, width, height = corners(scene)
        around = [x, y, x + width, y, x + width, y + height, x, y + height]
        place = {"image_id": number, "category_id": 5, "bbox": [x, y, width, height], "segmentation": [around]}
        found["annotations"].append({"id": 90 + number, **place})
        sentences = [{"sent": f"the {scene.names[0]}", "raw": f"The {scene.names[0]}"}]
        said.append({"ref_id": number, "ann_id": 90 + number, "split": "testA", "sentences": sentences})
    folder = root / "annotations"
    folder.mkdir(parents=True)
    (folder / "instances_val2017.json").write_text(json.dumps(found), encoding="utf-8")
    if refs:
        (folder / "refs.json").write_text(json.dumps({"refs": said}), encoding="utf-8")
    return root


def folder(data: Path, count=4) -> Path:
    root = data / "own"
    rows = ["image,question,x0,y0,x1,y1,x,y,mask,answer,names,alternatives,id"]
    for number, scene in enumerate(scenes(count)):
        save(scene.image, root / f"images/{number}.png")
        save(Image.fromarray(scene.region("mask").pixels), root / f"masks/{number}.png")
        box, point = scene.region("box"), scene.region("point")
        places = (f"{box.x0},{box.y0},{box.x1},{box.y1},,,", f",,,,{point.x},{point.y},", f",,,,,,{number}.png")
        other = next(name for name in scene.objects if name != scene.names[0])
        named = f"{scene.names[0]},{scene.names[0]}|thing,{other},own-{number}"
        rows.append(f'{number}.png,"{scene.question}",{places[number % 3]},{named}')
    (root / "examples.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


SETS = {
    "roc": roc,
    "rtc": rtc,
    "refcocog": refcocog,
    "screenspot": screenspot,
    "vip-bench": vip_bench,
    "coco": coco,
    "folder": folder,
}


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
