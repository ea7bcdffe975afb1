"""YOLO: layouts of exporters, pixels, polygons, what is reported, real samples, another library's files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.reader_output import ingest_layer
from fakes.reader_parts import ReadDataset, read_dataset
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import _label_lines, coco_json, yolo
from synthgen.ingest.source_digests import folder_sha256, source_states
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import decode_mask

Shared = Callable[[str], Path]

NAMES = "names: [cat, dog]\n"
BOX = "0 0.5 0.5 0.2 0.4\n"


def write(root: Path, files: dict[str, str | bytes | tuple[int, int]]) -> Path:
    """Files by name: texts, bytes, and images of (width, height)."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):
            Image.new("RGB", content).save(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, split: str = "train", layer: str = "annotations", annotations: Path | None = None) -> ReadDataset:
    return read_dataset(yolo, yolo.files(root, split, annotations), layer)


def one_image(tmp_path: Path, labels: str | bytes, config: str = NAMES, layer: str = "annotations") -> ReadDataset:
    """A dataset of one image of 100 by 50 pixels with these labels."""
    content = {"data.yaml": f"train: images\n{config}", "images/a.png": (100, 50), "labels/a.txt": labels}
    return read(write(tmp_path, content), layer=layer)


# --- layouts ---------------------------------------------------------------------------------------------------------

LAYOUTS: dict[str, tuple[dict[str, str], str, str, tuple[str, ...]]] = {
    # files beside the image and its label: (files, image, label, splits)
    "images/<split>": ({"data.yaml": "train: images/train\n" + NAMES}, "images/train/", "labels/train/", ("train",)),
    "without a yaml": ({"classes.txt": "cat\ndog\n"}, "images/val2017/", "labels/val2017/", ("val2017",)),
    "<split>/images": ({"classes.txt": "cat\ndog\n"}, "valid/images/", "valid/labels/", ("valid",)),
    "Roboflow": ({"data.yaml": "val: ../valid/images\n" + NAMES}, "valid/images/", "valid/labels/", ("val",)),
    "Label Studio": ({"classes.txt": "cat\ndog\n", "notes.json": "{}"}, "images/", "labels/", ("train",)),
    "labelImg": ({"classes.txt": "cat\ndog\n"}, "", "", ("train",)),
    "another machine": (
        {"data.yaml": "path: /srv/x/datasets/pets\ntrain: images/train\n" + NAMES},
        "images/train/", "labels/train/", ("train",),
    ),
    "an absolute path": (
        {"data.yaml": "train: C:\\work\\pets\\images\\train\n" + NAMES}, "images/train/", "labels/train/", ("train",),
    ),
    "a list of folders": (
        {"data.yaml": "train: [images/one, images/two]\n" + NAMES}, "images/two/", "labels/two/", ("train",),
    ),
    "a list of images": (
        {"data.yaml": "train: train.txt\n" + NAMES, "train.txt": "./images/train/a.png\n"},
        "images/train/", "labels/train/", ("train",),
    ),
    "CVAT Ultralytics": (
        {"data.yaml": "path: .\ntrain: train.txt\nnames:\n  1: dog\n", "train.txt": "data/images/train/a.png\n"},
        "images/train/", "labels/train/", ("train",),
    ),
    "CVAT darknet": (
        {
            "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
            "obj.names": "cat\ndog\n",
            "train.txt": "data/obj_train_data/a.png\n",
        },
        "obj_train_data/", "obj_train_data/", ("train",),
    ),
    "Datumaro darknet": (
        {"obj.data": "classes = 2\npart7 = data/part7.txt\nnames = data/obj.names\nbackup = backup/\n",
         "obj.names": "cat\ndog\n", "part7.txt": "data/obj_part7_data/a.png\n"},
        "obj_part7_data/", "obj_part7_data/", ("part7",),
    ),
    "darknet VOC": (
        {"data.yaml": "train: t.txt\n" + NAMES, "t.txt": "/srv/x/VOCdevkit/VOC2007/JPEGImages/a.png\n"},
        "JPEGImages/", "labels/", ("train",),
    ),
    "names in the split's folder": ({"train/classes.txt": "cat\ndog\n"}, "train/images/", "train/labels/", ("train",)),
    "JPEGImages": ({"classes.txt": "cat\ndog\n"}, "JPEGImages/", "labels/", ("train",)),
    "Roboflow darknet": ({"train/_darknet.labels": "cat\ndog\n"}, "train/", "train/", ("train",)),
    "a yaml of another name": ({"pets.yaml": "train: images\n" + NAMES}, "images/", "labels/", ("train",)),
    "labels beside images": ({"data.yaml": "train: train\n" + NAMES}, "train/", "train/", ("train",)),
    "a folder of both": ({"data.yaml": "train: train\n" + NAMES}, "train/images/", "train/labels/", ("train",)),
    "labelImg in one folder": ({"images/classes.txt": "cat\ndog\n"}, "images/", "images/", ("train",)),
    "subfolders": ({"data.yaml": "train: images\n" + NAMES}, "images/x/y/", "labels/x/y/", ("train",)),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_and_read(layout: str, tmp_path: Path) -> None:
    config, images, labels, splits = LAYOUTS[layout]
    root = write(tmp_path, {**config, f"{images}a.png": (100, 50), f"{labels}a.txt": "1 0.5 0.5 0.2 0.4\n"})
    assert yolo.recognize(root) == splits
    found = read(root, splits[0])
    assert list(found.images) == [f"{images}a.png"]
    [box] = found.images[f"{images}a.png"].annotations
    assert box.bbox == pytest.approx([40, 15, 20, 20]) and box.category == "dog" and not box.flags
    assert not set(found.findings)


def test_the_users_path_may_be_the_yaml_file(tmp_path: Path) -> None:
    root = write(
        tmp_path, {"data.yaml": "val: images/val\n" + NAMES, "images/val/a.png": (9, 9), "labels/val/a.txt": BOX}
    )
    path = root / "data.yaml"
    assert yolo.recognize(path) == ("val",)
    assert list(read(root, "val", annotations=path).images) == ["images/val/a.png"]


def test_the_file_alone_is_recognised_so_that_the_error_names_its_folders(tmp_path: Path) -> None:
    path = write(tmp_path, {"data.yaml": "path: /data/coco\ntrain: images/train\n" + NAMES}) / "data.yaml"
    assert yolo.recognize(path) == ("train",) and yolo.recognize(tmp_path) is None
    with pytest.raises(SynthgenError, match="names /data/coco/images/train"):
        yolo.files(tmp_path, "train", path)


def test_all_splits_of_a_dataset_are_found(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path, {f"images/{split}/{split}.png": (9, 9), f"labels/{split}/{split}.txt": BOX})
    write(tmp_path, {"data.yaml": "train: images/train\nval: images/val\ntest: images/test\n" + NAMES})
    assert yolo.recognize(tmp_path) == ("train", "val", "test")
    ids = [image.id for split in ("train", "val", "test") for image in read(tmp_path, split).images.values()]
    assert len(set(ids)) == 3
    (tmp_path / "data.yaml").unlink()
    assert yolo.recognize(tmp_path) == ("test", "train", "val")


@pytest.mark.parametrize(("images", "labels"), [("images/{}/", "labels/{}/"), ("{}/images/", "{}/labels/")])
def test_folders_that_are_no_splits_are_parts_of_one(images: str, labels: str, tmp_path: Path) -> None:
    names = [f"camera{i:03d}" for i in range(120)]
    for name in names:
        write(tmp_path, {f"{images.format(name)}a.png": (9, 9), f"{labels.format(name)}a.txt": BOX})
    assert yolo.recognize(tmp_path) == ("train",)
    found = read(tmp_path)
    assert list(found.images) == [f"{images.format(name)}a.png" for name in names]
    assert all(len(image.annotations) == 1 for image in found.images.values())


def test_a_dataset_in_a_folder_of_its_own_keeps_its_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path, {f"pets/images/{split}/a.png": (9, 9), f"pets/labels/{split}/a.txt": BOX})
    assert yolo.recognize(tmp_path) == ("train", "val")
    assert list(read(tmp_path, "val").images) == ["pets/images/val/a.png"]


def test_a_split_of_the_yaml_that_is_not_there_is_reported(tmp_path: Path) -> None:
    content = {"data.yaml": "train: gone\nval: images\n" + NAMES, "images/a.png": (9, 9), "labels/a.txt": BOX}
    assert yolo.recognize(write(tmp_path, content)) == ("val",)
    assert read(tmp_path, "val").findings["split_not_found"].examples == (("data.yaml", "train: gone"),)
    with pytest.raises(SynthgenError, match="names gone"):
        yolo.files(tmp_path, "train", None)


@pytest.mark.parametrize("images", ["images/{}/", "{}/images/"])
@pytest.mark.parametrize("config", [True, False])
def test_a_split_without_labels_is_reported(images: str, config: bool, tmp_path: Path) -> None:
    yaml = "".join(f"{split}: {images.format(split)}\n" for split in ("train", "test")) + NAMES
    write(tmp_path, {f"{images.format(split)}a.png": (9, 9) for split in ("train", "test")})
    write(tmp_path, {f"{images.format('train').replace('images', 'labels')}a.txt": BOX})
    write(tmp_path, {"data.yaml": yaml} if config else {"classes.txt": "cat\ndog\n"})
    assert yolo.recognize(tmp_path) == ("train",)
    [example] = read(tmp_path).findings["unlabeled_split"].examples
    assert example == (images.format("test").rstrip("/"), "'test' has no labels")


def test_a_data_yaml_with_names_only_names_the_classes(tmp_path: Path) -> None:
    write(tmp_path, {"data.yaml": NAMES, "images/train/a.png": (9, 9), "labels/train/a.txt": BOX})
    assert yolo.recognize(tmp_path) == ("train",) == yolo.recognize(tmp_path / "data.yaml")
    [box] = read(tmp_path).images["images/train/a.png"].annotations
    assert box.category in ("cat", "dog")


def test_a_data_yaml_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"data.yaml": "names: [cat\n", "images/train/a.png": (9, 9), "labels/train/a.txt": BOX})
    assert yolo.recognize(tmp_path) == ("train",)
    with pytest.raises(SynthgenError, match=r"data\.yaml is not valid YAML"):
        yolo.files(tmp_path, "train", None)


def test_a_folder_of_yolo_datasets_is_not_one_dataset(tmp_path: Path) -> None:
    write(tmp_path, {"pets/classes.txt": "cat", "pets/images/a.png": (9, 9), "pets/labels/a.txt": BOX})
    assert yolo.recognize(tmp_path) is None
    assert yolo.recognize(tmp_path / "pets") == ("train",)


@pytest.mark.parametrize(
    "files",
    [
        {"images/a.png": (9, 9), "annotations.json": "{}"},
        {"images/train/a.png": (9, 9), "labels/train/a.png": (9, 9), "labels/train/classes.txt": "cat"},
        {"images/a.png": (9, 9), "labels/a.txt": "1.0 2.0 3.0 2.0 3.0 4.0 1.0 4.0 plane 0\n"},
        {"a.png": (9, 9), "README.txt": "Some pictures.\n", "prices.txt": "apple 1 2 3 4\n"},
        {"training/image_2/a.png": (9, 9), "training/label_2/a.txt": "Car 0.00 0 1.5 1 2 3 4 1 1 1 1 1 1 1\n"},
        {"config.yaml": "train:\n  epochs: 3\nnames: x\n", "a.png": (9, 9)},
        {},
    ],
)
def test_other_folders_are_not_claimed(files: dict[str, str | bytes | tuple[int, int]], tmp_path: Path) -> None:
    assert yolo.recognize(write(tmp_path, files)) is None
    with pytest.raises(SynthgenError) as why:
        yolo.files(tmp_path, "train", None)
    assert "\n" not in str(why.value)


def test_labels_alone_need_the_folder_of_the_images(tmp_path: Path) -> None:
    write(tmp_path / "labels_only", {"classes.txt": "cat", "labels/a.txt": BOX})
    write(tmp_path / "elsewhere", {"a.png": (100, 50)})
    root = tmp_path / "labels_only"
    assert yolo.recognize(root) == ("train",)
    given = yolo.files(root, "train", None)
    with pytest.raises(SynthgenError, match="--images"):
        read_dataset(yolo, given)
    found = read_dataset(yolo, given.with_image_folder(tmp_path / "elsewhere"))
    assert found.images["a.png"].annotations[0].bbox == pytest.approx([40, 15, 20, 20])


def test_images_elsewhere_replace_those_of_the_dataset(tmp_path: Path) -> None:
    write(tmp_path, {"images/train/a.png": (9, 9), "labels/train/a.txt": BOX, "other/a.png": (100, 50)})
    given = yolo.files(tmp_path, "train", None).with_image_folder(tmp_path / "other")
    assert read_dataset(yolo, given).images["a.png"].width == 100
    write(tmp_path, {"data.yaml": "train: [images/train, images/more]\n", "images/more/b.png": (9, 9)})
    with pytest.raises(SynthgenError, match="several"):
        read_dataset(yolo, yolo.files(tmp_path, "train", None).with_image_folder(tmp_path / "other"))


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"secret/images/a.png": (9, 9), "secret/labels/a.txt": BOX})
    for entry in ("../secret/images", str(tmp_path / "secret/images"), "x/../../secret/images", "secret\\images"):
        write(tmp_path / "data", {"data.yaml": f"train: '{entry}'\n" + NAMES})
        assert yolo.recognize(tmp_path / "data") is None
    listed = {"t.txt": "../secret/images/a.png\nimages/b.png", "images/b.png": (9, 9), "labels/b.txt": BOX}
    write(tmp_path / "data", {"data.yaml": "train: t.txt\n" + NAMES, **listed})
    assert read(tmp_path / "data").images["images/a.png"].error == "its image is missing"


# --- rows ------------------------------------------------------------------------------------------------------------


def test_boxes_become_pixels_of_the_image_as_it_is_shown(tmp_path: Path) -> None:
    write(tmp_path, {"classes.txt": "cat", "labels/a.txt": BOX, "images/.x": ""})
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    Image.new("RGB", (50, 100)).save(tmp_path / "images/a.jpg", exif=exif)
    image = read(tmp_path).images["images/a.jpg"]
    assert (image.width, image.height) == (100, 50)
    assert image.annotations[0].bbox == pytest.approx([40, 15, 20, 20])


def test_a_polygon_has_its_tight_box_and_a_mask(tmp_path: Path) -> None:
    polygon = "1 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n"
    found = one_image(tmp_path, polygon + BOX)
    a, b = found.images["images/a.png"].annotations
    assert a.bbox == pytest.approx([10, 10, 40, 20]) and a.category == "dog" and a.payload is None
    assert b.category == "cat"
    assert found.findings["mixed_rows"].examples[0][1] == "1 boxes and 1 polygons"
    [sample] = ingest_layer(tmp_path / "store", yolo, yolo.files(tmp_path, "train", None), "human")
    first, second = sample.annotations
    assert first.segmentation is not None and second.segmentation is None
    assert decode_mask(first.segmentation).sum() == 800 and first.mask_source == "human"


def test_keypoints_and_confidences_are_reported_and_their_boxes_used(tmp_path: Path) -> None:
    pose = BOX.strip() + " 0.1 0.1 2 0.2 0.2 1\n"
    found = one_image(tmp_path, pose + BOX.strip() + " 0.87\n", NAMES + "kpt_shape: [2, 3]\n")
    assert [a.bbox for a in found.images["images/a.png"].annotations] == [pytest.approx([40, 15, 20, 20])] * 2
    assert found.findings["keypoints_ignored"].count == found.findings["confidence_ignored"].count == 1


def test_keypoints_without_their_shape_are_not_taken_for_a_polygon(tmp_path: Path) -> None:
    found = one_image(tmp_path, BOX.strip() + " 0.1 0.1 2 0.2 0.2 1\n")
    assert "kpt_shape" in found.findings["broken_row"].examples[0][1]


def test_a_broken_row_stays_as_an_object_without_a_box(tmp_path: Path) -> None:
    found = one_image(tmp_path, "0 0,5 0.5 0.2 0.4\n" + BOX + "0 0.5\nperson 0.5 0.5 0.1 0.1\n1 nan 0.5 0.1 0.1\n")
    flags = [a.flags for a in found.images["images/a.png"].annotations]
    assert flags == [{"no_box"}, set(), {"no_box"}, {"no_box"}, {"no_box"}]
    finding = found.findings["broken_row"]
    assert finding.count == 4 and len(finding.examples) == 3
    assert finding.examples[0][0] == "images/a.png" and "line 1" in finding.examples[0][1]


def test_tabs_line_ends_byte_order_marks_and_blank_lines_change_nothing(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf0.0\t0.5 0.5  0.2 0.4\r\n\r\n  \r\n1 5e-1 0.5 0.2 4.0E-01"
    found = one_image(tmp_path, text)
    assert [a.category for a in found.images["images/a.png"].annotations] == ["cat", "dog"]
    assert all(a.bbox == pytest.approx([40, 15, 20, 20]) for a in found.images["images/a.png"].annotations)
    assert not found.findings


def test_a_tiny_number_in_scientific_notation_is_one(tmp_path: Path) -> None:
    [box] = one_image(tmp_path, "0 0.5 0.5 1e-05 0.4\n").images["images/a.png"].annotations
    assert box.bbox[2] == pytest.approx(0.001)


@pytest.mark.parametrize("row", ["0 50 25 20 20\n", "0 50 25 20 20 80 25\n"])
def test_values_in_pixels_stop_a_job(row: str, tmp_path: Path) -> None:
    found = one_image(tmp_path, row * 20)
    assert found.findings["pixel_rows"].stops and found.findings["pixel_rows"].count == 20
    report = validate_dataset("yolo", tmp_path)
    assert not report.is_ready and "pixel_rows" in report.verdict


def test_one_value_in_pixels_does_not_stop_a_job(tmp_path: Path) -> None:
    found = one_image(tmp_path, "0 50 25 20 20\n" + BOX * 3 + "0 0.99 0.5 0.1 0.1\n")
    assert found.findings["pixel_rows"].count == 1 and not found.findings["pixel_rows"].stops


# --- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("names: [cat, 7, no, 'null']\n", {0: "cat", 1: "7", 2: "no", 3: "null"}),
        ("names:\n  3: cat\n  1: dog\n", {3: "cat", 1: "dog"}),
        ("names:\n- ' cat '\n- dog\nnc: 2\n", {0: "cat", 1: "dog"}),
        ("names: {cat: 0, dog: 4}\n", {0: "cat", 4: "dog"}),
    ],
)
def test_names_of_all_forms(config: str, names: dict[int, str], tmp_path: Path) -> None:
    assert one_image(tmp_path, BOX, config).names == names


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    found = one_image(tmp_path, BOX + "3 0.5 0.5 0.1 0.1\n", "")
    assert found.names == {0: "class_0", 3: "class_3"}
    assert found.findings["no_class_names"].count == 2
    assert set(one_image(tmp_path, BOX, "nc: 2\n").names.values()) == {"class_0", "class_1"}


def test_a_class_outside_the_names_is_reported(tmp_path: Path) -> None:
    found = one_image(tmp_path, "7 0.5 0.5 0.1 0.1\n-1 0.5 0.5 0.1 0.1\n" + BOX, NAMES + "nc: 3\n")
    assert found.findings["class_outside_names"].count == 2
    assert found.findings["class_outside_names"].examples[1] == ("class 7", "1 rows have it")
    assert found.findings["other_class_count"].examples == (("nc", "says 3, and there are 2 names"),)
    [split] = validate_dataset("yolo", tmp_path).splits
    assert {f.code: f.count for f in split.findings}["unknown_category"] == 2


# --- images and labels -----------------------------------------------------------------------------------------------


def test_images_without_labels_and_labels_without_images_are_reported(tmp_path: Path) -> None:
    content = {
        "images/a.png": (9, 9), "labels/a.txt": BOX, "images/b.png": (9, 9), "images/c.png": (9, 9), "labels/c.txt": "",
        "labels/gone.txt": BOX, "labels/deep/gone.txt": BOX, "labels/README.txt": "Labels of some images.",
    }  # fmt: skip
    found = read(write(tmp_path, {"classes.txt": "cat", "labels/classes.txt": "cat", **content}))
    assert {name: len(image.annotations) for name, image in found.images.items()} == {
        "images/a.png": 1, "images/b.png": 0, "images/c.png": 0,
    }  # fmt: skip
    assert all(image.error is None for image in found.images.values())
    assert found.findings["no_label_file"].examples == (("images/b.png", "no label file has its name"),)
    assert found.findings["label_without_image"].count == 2


def test_a_label_file_of_two_images_belongs_to_the_first(tmp_path: Path) -> None:
    content = {"images/a.jpg": (9, 9), "images/a.png": (9, 9), "images/a.b.jpg": (9, 9), "labels/a.txt": BOX}
    found = read(write(tmp_path, {"classes.txt": "cat", **content}))
    assert len(found.images["images/a.jpg"].annotations) == 1 and found.images["images/a.jpg"].error is None
    assert not found.images["images/a.png"].annotations
    assert "images/a.jpg" in str(found.images["images/a.png"].error)
    assert found.findings["shared_label_file"].examples == (("images/a.png", "its label file went to images/a.jpg"),)
    assert found.images["images/a.b.jpg"].error is None


def test_a_label_file_of_two_listed_images_belongs_to_the_first(tmp_path: Path) -> None:
    lists = {"data.yaml": "train: t.txt\n" + NAMES, "t.txt": "images/a.png\nimages/a.jpg\nimages/b.jpg\nimages/b.png"}
    images = {f"images/{name}": (9, 9) for name in ("a.png", "a.jpg", "b.png", "b.jpg")}
    found = read(write(tmp_path, {**lists, **images, "labels/a.txt": BOX}))
    assert len(found.images["images/a.png"].annotations) == 1 and not found.images["images/a.jpg"].annotations
    assert "an earlier image" in str(found.images["images/a.jpg"].error)
    assert found.images["images/b.png"].error is None


def test_a_folder_of_labels_may_be_named(tmp_path: Path) -> None:
    write(tmp_path, {"images/a.png": (100, 50), "drawn/a.txt": BOX, "labels/a.txt": BOX + BOX, "classes.txt": "cat"})
    found = read(tmp_path, annotations=tmp_path / "drawn")
    assert [row.category for row in found.images["images/a.png"].annotations] == ["cat"]


def test_the_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    found = read(write(tmp_path, {"classes.txt": "cat", "images/A.PNG": (9, 9), "labels/A.TXT": BOX}))
    assert len(found.images["images/A.PNG"].annotations) == 1 and not found.findings


def test_a_list_names_the_images_and_odd_lines_are_reported(tmp_path: Path) -> None:
    lines = "images/b.png\r\nimages/a.png\n\nimages/gone.png\nnot an image\nimages/a.png\n/etc/passwd\n" + "x" * 9_000
    content = {"data.yaml": "train: train.txt\n" + NAMES, "train.txt": lines, "images/z.png": (9, 9)}
    for name in "ab":
        content |= {f"images/{name}.png": (100, 50), f"labels/{name}.txt": BOX}
    found = read(write(tmp_path, {**content, "labels/gone.txt": BOX}))
    assert list(found.images) == ["images/b.png", "images/a.png", "images/gone.png"]
    assert found.images["images/gone.png"].error == "its image is missing"
    assert found.images["images/gone.png"].annotations[0].flags == {"no_box"}
    assert found.findings["broken_list_line"].count == 4


def test_a_folder_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    content = {
        "data.yaml": "train: [images, images/x, images]\n" + NAMES,
        "images/x/a.png": (9, 9),
        "labels/x/a.txt": BOX,
    }
    assert list(read(write(tmp_path, content)).images) == ["images/x/a.png"]


def test_an_image_that_cannot_be_read_is_a_row_with_an_error(tmp_path: Path) -> None:
    found = one_image(write(tmp_path, {"images/b.png": b"no image", "labels/b.txt": BOX}), BOX)
    assert found.images["images/a.png"].error is None
    assert str(found.images["images/b.png"].error).startswith("its image cannot be opened")
    assert str(tmp_path) not in str(found.images["images/b.png"].error)
    assert found.images["images/b.png"].annotations[0].flags == {"no_box"}


@pytest.mark.parametrize(
    ("labels", "error"),
    [(b"0 0.5\0 0.5", "not text"), (BOX.encode() * 60, "has more than 0 MiB"), (b"0\n" * 11, "more than 10 rows")],
)
def test_a_label_file_that_cannot_be_read_is_an_error_of_its_image(
    labels: bytes, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_label_lines, "MAX_FILE_BYTES", 1_000)
    monkeypatch.setattr(_label_lines, "MAX_ROWS", 10)
    found = one_image(write(tmp_path, {"images/b.png": (9, 9), "labels/b.txt": BOX}), labels)
    assert error in str(found.images["images/a.png"].error)
    assert found.images["images/b.png"].error is None and len(found.images["images/b.png"].annotations) == 1


def test_a_pipe_and_a_dead_link_do_not_block(tmp_path: Path) -> None:
    write(tmp_path, {"images/a.png": (9, 9), "images/b.png": (9, 9), "images/c.png": (9, 9), "labels/c.txt": BOX})
    os.mkfifo(tmp_path / "labels/a.txt")
    (tmp_path / "labels/b.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "images/d.png")
    found = read(tmp_path)
    assert all("not a file" in str(found.images[f"images/{name}.png"].error) for name in "ab")
    assert found.images["images/d.png"].error == "its image is missing"


def test_a_file_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"images/a.png": (9, 9), "labels/a.txt": BOX})
    (tmp_path / "images/a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/images/\xff.png"))
    (tmp_path / "labels/a.txt").rename(os.fsdecode(os.fsencode(tmp_path) + b"/labels/\xff.txt"))
    [image] = read(tmp_path).images.values()
    assert "UTF-8" in str(image.error)


def test_the_digest_changes_with_a_label_and_with_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, {"images/a.png": (9, 9), "labels/a.txt": BOX})
    given = yolo.files(tmp_path, "train", None)
    assert given.content_roles == {"labels"}
    before = folder_sha256(given.sources["labels"], of="contents"), source_states(given)
    write(tmp_path, {"labels/a.txt": BOX.replace("0.4", "0.3")})
    assert folder_sha256(given.sources["labels"], of="contents") != before[0] and source_states(given) != before[1]


def test_the_order_is_that_of_the_names_and_ids_depend_on_nothing_else(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in (10, 2, 33, 4)]
    for place in ("one", "two"):
        for name in names if place == "one" else reversed(names):
            write(tmp_path / place, {f"images/{name}": (9, 9), f"labels/{name[:-4]}.txt": BOX})
    one, two = read(tmp_path / "one"), read(tmp_path / "two")
    assert one == two and list(one.images) == [f"images/{name}" for name in sorted(names)]
    assert [a.id for image in one.images.values() for a in image.annotations] == [1, 2, 3, 4]


# --- real samples, and files of another library ----------------------------------------------------------------------


def test_the_export_of_roboflow(shared: Shared) -> None:
    root = shared("data/formats/yolo-det__roboflow-cones")
    assert yolo.recognize(root) == yolo.recognize(root / "data.yaml") == ("val", "test")
    found = [read(root, split) for split in ("val", "test")]
    assert [len(one.images) for one in found] == [6, 14]
    boxes = [a for one in found for image in one.images.values() for a in image.annotations]
    assert Counter(a.category for a in boxes) == {"cone": 29, "cube": 16}
    assert {(image.height, image.width) for one in found for image in one.images.values()} == {(640, 640)}
    assert set(found[0].findings) == {"split_not_found"}


def test_the_export_of_label_studio(shared: Shared) -> None:
    root = shared("data/formats/yolo-det__labelstudio-sdk")
    assert yolo.recognize(root) == ("train",)
    found = read(root)
    boxes = [a for image in found.images.values() for a in image.annotations]
    assert len(found.images) == 7 and not found.findings
    assert Counter(a.category for a in boxes) == {"closed_door": 10, "opened_door": 1, "bus": 8, "number": 6}


def test_polygons_of_coco_with_gaps_in_the_ids(shared: Shared, tmp_path: Path) -> None:
    root = shared("data/formats/yolo-seg__coco128-lightly")
    assert yolo.recognize(root) == ("val",)
    given = yolo.files(root, "val", None)
    found = read_dataset(yolo, given, "human")
    rows = [a for image in found.images.values() for a in image.annotations]
    assert len(found.images) == 14 and len(rows) == 46 and len({a.category for a in rows}) == 23
    assert all(a.payload is not None and not a.flags and isinstance(a.category, str) for a in rows)
    samples = ingest_layer(tmp_path, yolo, given, "human")
    assert sum(a.segmentation is not None for s in samples for a in s.annotations) == 46


def test_boxes_that_labelformat_writes_are_cocos(shared: Shared, tmp_path: Path) -> None:
    formats = pytest.importorskip("labelformat.formats")
    coco = shared("data/coco_tiny")
    path = coco / "annotations/instances_val2017.json"
    formats.YOLOv8ObjectDetectionOutput(tmp_path / "data.yaml", "val").save(formats.COCOObjectDetectionInput(path))
    (tmp_path / "images").symlink_to(coco / "val2017")
    theirs = read_dataset(coco_json, coco_json.files(coco, "val", path))
    assert yolo.recognize(tmp_path) == ("val",)
    ours = read(tmp_path, "val")
    assert list(ours.names.values()) == list(theirs.names.values())
    expected = {f"images/{name}": image for name, image in theirs.images.items()}
    assert set(ours.images) == set(expected)
    for name, image in expected.items():
        boxes = image.annotations
        assert (image.height, image.width) == (ours.images[name].height, ours.images[name].width)
        assert [a.category for a in ours.images[name].annotations] == [a.category for a in boxes]
        for a, b in zip(ours.images[name].annotations, boxes, strict=True):
            assert a.bbox == pytest.approx(b.bbox, abs=1e-9)


def test_polygons_that_labelformat_writes_are_cocos(shared: Shared, tmp_path: Path) -> None:
    formats = pytest.importorskip("labelformat.formats")
    coco = shared("data/coco_tiny")
    content = json.loads((coco / "annotations/instances_val2017.json").read_text())
    # The library writes one polygon a row. So only objects of one part can be compared.
    content["annotations"] = [a for a in content["annotations"] if not a["iscrowd"] and len(a["segmentation"]) == 1]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    formats.YOLOv8InstanceSegmentationOutput(tmp_path / "data.yaml", "val").save(
        formats.COCOInstanceSegmentationInput(path)
    )
    (tmp_path / "images").symlink_to(coco / "val2017")
    ours = read(tmp_path, "val", layer="human")
    theirs = {image["id"]: f"images/{image['file_name']}" for image in content["images"]}
    expected: dict[str, list[list[float]]] = {}
    for one in content["annotations"]:
        expected.setdefault(theirs[one["image_id"]], []).append(one["segmentation"][0])
    assert sum(map(len, expected.values())) > 50
    for name, polygons in expected.items():
        payloads = [json.loads(a.payload or b"") for a in ours.images[name].annotations]
        for [mine], own in zip(payloads, polygons, strict=True):
            assert points(mine) == points(own)


def points(polygon: list[float]) -> set[tuple[float, float]]:
    """The points, rounded; the library leaves out one that is there twice."""
    rounded = [round(value, 6) + 0.0 for value in polygon]
    return set(zip(rounded[::2], rounded[1::2], strict=True))
