"""Open Images: layouts, parts of a release, masks and their boxes, verified labels, odd rows, the real sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.reader_output import ingest_layer
from fakes.reader_parts import ReadDataset, read_dataset
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import _csv_lines, openimages
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import decode_mask

Shared = Callable[[str], Path]
Content = str | bytes | tuple[int, int]

BOX_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
MASK_HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"
LABEL_HEADER = "ImageID,Source,LabelName,Confidence\n"
CLASSES = '/m/cat,Cat\n/m/dog,"Dog, large"\n'


def box(image: str, label: str = "/m/cat", corners: str = "0.1,0.5,0.2,0.6", flags: str = "0,0,0,0,0") -> str:
    return f"{image},xclick,{label},1,{corners},{flags}\n"


def write(root: Path, files: dict[str, Content]) -> Path:
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
    return read_dataset(openimages, openimages.files(root, split, annotations), layer)


def dataset(root: Path, boxes: str, **more: Content) -> Path:
    """A train split with the images a and b of 100 by 50 pixels."""
    files: dict[str, Content] = {
        "train-annotations-bbox.csv": BOX_HEADER + boxes,
        "class-descriptions-boxable.csv": CLASSES,
        "train/a.jpg": (100, 50),
        "train/b.jpg": (100, 50),
    }
    return write(root, files | more)


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boxes", "classes", "image"),
    [
        ("train-annotations-bbox.csv", "class-descriptions-boxable.csv", "train/a.jpg"),
        ("oidv6-train-annotations-bbox.csv", "oidv7-class-descriptions-boxable.csv", "images/train/a.jpg"),
        ("annotations/train-annotations-bbox.csv", "annotations/class-descriptions.csv", "images/train/a.jpg"),
        ("annotations/train-annotations-bbox.csv", "annotations/class-descriptions.csv", "train/images/a.jpg"),
        ("train/labels/detections.csv", "train/metadata/classes.csv", "train/data/a.jpg"),
        ("csv_folder/train-annotations-bbox.csv", "csv_folder/class-descriptions-boxable.csv", "train_a/a.jpg"),
        ("train-annotations-bbox.csv", "class-descriptions-boxable.csv", "images/a.jpg"),
        ("train-annotations-bbox.csv", "class-descriptions-boxable.csv", "a.jpg"),
    ],
)
def test_a_layout_is_recognised_and_read(boxes: str, classes: str, image: str, tmp_path: Path) -> None:
    write(tmp_path, {boxes: BOX_HEADER + box("a"), classes: CLASSES, image: (100, 50)})
    assert openimages.recognize(tmp_path) == ("train",)
    found = read(tmp_path)
    assert list(found.images) == [image] and not found.findings
    [row] = found.images[image].annotations
    assert row.bbox == pytest.approx([10, 10, 40, 20]) and row.category == "Cat" and not row.flags and row.id == 1


def test_the_users_path_may_be_the_file_of_boxes(tmp_path: Path) -> None:
    path = tmp_path / "annotations/validation-annotations-bbox.csv"
    write(tmp_path, {f"annotations/{path.name}": BOX_HEADER + box("a"), "images/validation/a.jpg": (100, 50)})
    assert openimages.recognize(path) == ("validation",)
    found = read(path.parent, "validation", annotations=path)
    assert [image.width for image in found.images.values()] == [100]
    with pytest.raises(SynthgenError, match="name that file"):
        openimages.files(tmp_path, "train", tmp_path / "images")


def test_images_of_another_dataset_beside_the_folder_are_not_taken(tmp_path: Path) -> None:
    write(tmp_path, {"train/other.jpg": (9, 9), "own/train-annotations-bbox.csv": BOX_HEADER + box("a")})
    with pytest.raises(SynthgenError, match="no image of 'train'"):
        read(tmp_path / "own")


def test_all_splits_are_found_in_the_usual_order(tmp_path: Path) -> None:
    for split in ("test", "validation", "train", "mine"):
        write(tmp_path, {f"{split}-annotations-bbox.csv": BOX_HEADER + box(split), f"{split}/{split}.jpg": (9, 9)})
    assert openimages.recognize(tmp_path) == ("train", "validation", "test", "mine")


@pytest.mark.parametrize(
    "files", [{}, {"boxes.csv": BOX_HEADER}, {"annotations/class-descriptions.csv": CLASSES, "images/a.jpg": (9, 9)}]
)
def test_other_folders_are_not_claimed(files: dict[str, Content], tmp_path: Path) -> None:
    assert openimages.recognize(write(tmp_path, files)) is None
    with pytest.raises(SynthgenError, match="train-annotations-bbox"):
        openimages.files(tmp_path, "train", None)


def test_of_two_releases_the_newer_one_is_read(tmp_path: Path) -> None:
    dataset(tmp_path, box("a"), **{"oidv6-train-annotations-bbox.csv": BOX_HEADER + box("a", "/m/dog")})
    found = read(tmp_path)
    assert found.images["train/a.jpg"].annotations[0].category == "Dog, large"
    assert found.findings["unread_labels"].examples[0][0] == "train-annotations-bbox.csv"


# --- parts of the release --------------------------------------------------------------------------------------------


def test_only_images_that_are_there_become_rows_and_the_others_are_counted(tmp_path: Path) -> None:
    dataset(tmp_path, box("x") + box("a") + box("x") + box("y") + box("a", "/m/dog"))
    found = read(tmp_path)
    assert {name: [row.id for row in image.annotations] for name, image in found.images.items()} == {
        "train/a.jpg": [2, 5], "train/b.jpg": [],
    }  # fmt: skip
    finding = found.findings["absent_image"]
    assert finding.count == 2 and finding.examples[0][1].startswith("3 boxes") and not finding.stops


def test_ids_stay_if_more_images_are_downloaded(tmp_path: Path) -> None:
    dataset(tmp_path, box("x") + box("a"))
    before = read(tmp_path).images["train/a.jpg"]
    write(tmp_path, {"train/x.jpg": (9, 9)})
    assert read(tmp_path).images["train/a.jpg"] == before


def test_without_any_image_the_error_names_the_folder(tmp_path: Path) -> None:
    write(tmp_path, {"train-annotations-bbox.csv": BOX_HEADER + box("a"), "train/README": "no image yet"})
    with pytest.raises(SynthgenError, match="--images"):
        read(tmp_path)


def test_a_folder_of_all_splits_gives_each_split_its_own_images(tmp_path: Path) -> None:
    write(tmp_path, {f"images/{name}.jpg": (100, 50) for name in "abc"})
    write(tmp_path, {"train-annotations-bbox.csv": BOX_HEADER + box("a"), "test-annotations-bbox.csv": BOX_HEADER})
    write(tmp_path, {"test-annotations-human-imagelabels.csv": LABEL_HEADER + "b,verification,/m/cat,1\n"})
    train, test = read(tmp_path, "train"), read(tmp_path, "test")
    assert (list(train.images), list(test.images)) == (["images/a.jpg"], ["images/b.jpg"])
    assert train.findings["image_not_named"].count == test.findings["image_not_named"].count == 2


def test_images_may_be_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "other", {"a.jpg": (200, 50), "z.jpg": (9, 9)})
    given = openimages.files(dataset(tmp_path / "own", box("a")), "train", None).with_image_folder(tmp_path / "other")
    found = read_dataset(openimages, given)
    assert found.images["a.jpg"].annotations[0].bbox == pytest.approx([20, 10, 80, 20])
    assert found.findings["image_not_named"].examples[0][0] == "z.jpg"


def test_a_photograph_has_one_key_wherever_it_lies(tmp_path: Path) -> None:
    keys = set()
    for place in ("train/a.jpg", "images/train/a.jpg"):
        root = write(tmp_path / place[:3], {"train-annotations-bbox.csv": BOX_HEADER + box("a"), place: (9, 9)})
        [sample] = ingest_layer(root / "store", openimages, openimages.files(root, "train", None), "annotations")
        keys.add((sample.image_id, sample.image_key))
    assert len(keys) == 1 and next(iter(keys))[1] == "openimages/a"


# --- boxes -----------------------------------------------------------------------------------------------------------


def test_groups_are_crowds_and_depictions_are_fake(tmp_path: Path) -> None:
    rows = [box("a", flags=flags) for flags in ("1,1,0,0,1", "0,0,1,0,0", "0,0,0,1,0", "-1,-1,-1,-1,-1")]
    found = read(dataset(tmp_path, "".join(rows)))
    marks = [(row.iscrowd, row.flags) for row in found.images["train/a.jpg"].annotations]
    assert marks == [(False, set()), (True, set()), (False, {"fake"}), (False, set())]


def test_columns_may_come_in_another_order_and_some_may_be_missing(tmp_path: Path) -> None:
    csv = "\ufefflabelname,XMAX,XMin,YMin,YMax,ImageID\r\n/m/dog,0.5,0.1,0.2,0.6,a\r\n"
    dataset(tmp_path, "", **{"train-annotations-bbox.csv": csv})
    [row] = read(tmp_path).images["train/a.jpg"].annotations
    assert row.bbox == pytest.approx([10, 10, 40, 20]) and row.category == "Dog, large"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    dataset(tmp_path, "", **{"train-annotations-bbox.csv": "ImageID,LabelName\na,/m/cat\n"})
    with pytest.raises(SynthgenError, match="no column XMin, XMax, YMin, YMax"):
        read(tmp_path)


def test_broken_rows_are_reported(tmp_path: Path) -> None:
    rows = box("a", corners="x,0.5,0.2,0.6") + "a,xclick,/m/cat\n" + 'a,"b\n' + box("a", corners="nan,0.5,0.2,0.6")
    found = read(dataset(tmp_path, rows + box("a")))
    annotations = found.images["train/a.jpg"].annotations
    assert [(row.id, row.flags) for row in annotations] == [(1, {"no_box"}), (4, {"no_box"}), (5, set())]
    assert found.findings["broken_row"].count == 2 and found.findings["broken_csv_line"].count == 2
    assert found.findings["broken_csv_line"].examples[0][0] == "train-annotations-bbox.csv line 3"


def test_a_line_without_end_is_one_broken_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_csv_lines, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(_csv_lines, "MAX_LINE_BYTES", 200)
    found = read(dataset(tmp_path, box("a") + "a," + "x" * 5_000 + "\n" + box("a", "/m/dog")))
    assert [row.id for row in found.images["train/a.jpg"].annotations] == [1, 3]
    assert found.findings["broken_csv_line"].count == 1


def test_an_image_without_a_readable_header_is_a_row_with_an_error(tmp_path: Path) -> None:
    found = read(dataset(tmp_path, box("a") + box("b"), **{"train/a.jpg": b"no image"}))
    assert str(found.images["train/a.jpg"].error).startswith("its image cannot be opened")
    assert found.images["train/a.jpg"].annotations[0].flags == {"no_box"}
    assert found.images["train/b.jpg"].error is None


# --- classes and image labels ----------------------------------------------------------------------------------------


def test_class_descriptions_may_have_a_first_line(tmp_path: Path) -> None:
    dataset(tmp_path, box("a"), **{"class-descriptions-boxable.csv": "LabelName,DisplayName\n" + CLASSES})
    assert set(read(tmp_path).names.values()) == {"Cat"}


def test_classes_without_descriptions_keep_their_ids(tmp_path: Path) -> None:
    dataset(tmp_path, box("a") + box("a", "/m/unknown"))
    found = read(tmp_path)
    assert found.findings["class_outside_names"].examples[0][0] == "/m/unknown"
    (tmp_path / "class-descriptions-boxable.csv").unlink()
    found = read(tmp_path)
    assert set(found.names.values()) == {"/m/cat", "/m/unknown"} and found.findings["no_class_names"].count == 2


def test_rejected_image_labels_are_negative_categories(tmp_path: Path) -> None:
    labels = "a,verification,/m/dog,0\na,verification,/m/cat,1\nx,verification,/m/cat,0\na,machine,/m/cat,0\n"
    labels += "a,crowdsource-verification,/m/dog,0\nb,verification,/m/cat,0.0\nbroken\n"
    dataset(tmp_path, box("a"), **{"train-annotations-human-imagelabels-boxable.csv": LABEL_HEADER + labels})
    found = read(tmp_path)
    absent = {name: [found.names[i] for i in image.neg_categories] for name, image in found.images.items()}
    assert absent == {"train/a.jpg": ["Dog, large"], "train/b.jpg": ["Cat"]}
    [a, b] = sorted(
        ingest_layer(tmp_path / "store", openimages, openimages.files(tmp_path, "train", None), "annotations"),
        key=lambda sample: sample.file_name,
    )
    assert a.neg_categories == ("Dog, large",) and b.neg_categories == ("Cat",)


def test_without_image_labels_nothing_is_known_to_be_absent(tmp_path: Path) -> None:
    given = openimages.files(dataset(tmp_path, box("a")), "train", None)
    assert all(sample.neg_categories == () for sample in ingest_layer(tmp_path / "s", openimages, given, "annotations"))


def test_a_rotation_in_the_list_of_images_is_reported_and_changes_no_box(tmp_path: Path) -> None:
    images = 'ImageID,Subset,Title,Rotation\na,train,"one, two",90.0\nb,train,x,0.0\nx,train,x,180\nb,train\n'
    found = read(dataset(tmp_path, box("a"), **{"train-images-boxable-with-rotation.csv": images}))
    assert found.images["train/a.jpg"].annotations[0].bbox == pytest.approx([10, 10, 40, 20])
    assert found.findings["rotation_ignored"].examples == (("a", "90.0 degrees"),)


# --- masks -----------------------------------------------------------------------------------------------------------


def masks(root: Path, rows: str, names: tuple[str, ...] = ("m.png",), folder: str = "masks/train") -> None:
    """Masks of 20 by 10 pixels, the left half of which is the object."""
    write(root, {"train-annotations-object-segmentation.csv": MASK_HEADER + rows})
    pixels = np.zeros((10, 20), np.uint8)
    pixels[:, :10] = 255
    for name in names:
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("1").save(root / folder / name)


def human(root: Path) -> dict[int, tuple[tuple[str, ...], int | None]]:
    """(flags, area of the mask) of the objects of image a, by their ids."""
    samples = ingest_layer(root / "store", openimages, openimages.files(root, "train", None), "human")
    [a] = [sample for sample in samples if sample.file_name == "train/a.jpg"]
    areas = {
        row.id: None if row.segmentation is None else int(decode_mask(row.segmentation).sum()) for row in a.annotations
    }
    return {row.id: (row.flags, areas[row.id]) for row in a.annotations}


@pytest.mark.parametrize("folder", ["masks/train", "train-masks", "masks", "masks/M"])
def test_a_mask_belongs_to_the_box_from_which_it_was_drawn(folder: str, tmp_path: Path) -> None:
    dataset(tmp_path, box("a", "/m/dog") + box("a") + box("b"))
    masks(tmp_path, "m.png,a,/m/cat,1234,0.100000,0.500000,0.200000,0.600000,0.8,\n", folder=folder)
    assert human(tmp_path) == {1: ((), None), 2: ((), 50 * 50)}
    assert not read(tmp_path).findings


def test_a_mask_without_a_box_is_an_object_of_its_own_in_both_layers(tmp_path: Path) -> None:
    dataset(tmp_path, box("a"))
    masks(tmp_path, "m.png,a,/m/dog,1,0.1,0.5,0.2,0.6,0.8,\nm.png,x,/m/dog,1,0.1,0.5,0.2,0.6,0.8,\n")
    found = human(tmp_path)
    assert list(found) == [1, 2**40 + 1] and found[2**40 + 1][1] == 2_500
    ids = [row.id for row in read(tmp_path).images["train/a.jpg"].annotations]
    assert ids == list(found)


def test_masks_below_the_images_are_not_images(tmp_path: Path) -> None:
    dataset(tmp_path, box("a"))
    masks(tmp_path, "m.png,a,/m/cat,1,0.1,0.5,0.2,0.6,,\n", folder="train/masks")
    assert set(read(tmp_path).images) == {"train/a.jpg", "train/b.jpg"}
    assert human(tmp_path) == {1: ((), 2_500)}


def test_equal_boxes_get_one_mask_each(tmp_path: Path) -> None:
    dataset(tmp_path, box("a") + box("a") + box("a"))
    masks(tmp_path, "m.png,a,/m/cat,1,0.1,0.5,0.2,0.6,,\nn.png,a,/m/cat,2,0.1,0.5,0.2,0.6,,\n", ("m.png", "n.png"))
    assert [area for _, area in human(tmp_path).values()] == [2_500, 2_500, None]


@pytest.mark.parametrize("name", ["gone.png", "../m.png", "", "/etc/passwd", ".hidden.png"])
def test_a_mask_that_cannot_be_read_sets_a_flag(name: str, tmp_path: Path) -> None:
    dataset(tmp_path, box("a"))
    masks(tmp_path, f"{name},a,/m/cat,1,0.1,0.5,0.2,0.6,,\n")
    write(tmp_path, {"masks/m.png": (9, 9), "masks/train/.hidden.png": (9, 9)})
    assert human(tmp_path) == {1: (("bad_segmentation",), None)}


# --- real files ------------------------------------------------------------------------------------------------------


def test_the_sample_of_datumaro(shared: Shared, tmp_path: Path) -> None:
    root = shared("data/formats/open-images__datumaro")
    assert openimages.recognize(root / "v6") == ("train", "test") and openimages.recognize(root / "v5") is None
    train, test = read(root / "v6", "train"), read(root / "v6", "test")
    assert set(train.images) == {"images/train/a.jpg", "images/train/b.jpg"} and set(test.images) == {
        "images/test/c.jpg"
    }
    [b] = train.images["images/train/b.jpg"].annotations
    [c] = test.images["images/test/c.jpg"].annotations
    assert b.category == "Generic label #0" and not b.iscrowd and not b.flags and c.iscrowd
    # The mask of the image b has its box.
    samples = ingest_layer(tmp_path, openimages, openimages.files(root / "v6", "train", None), "human")
    assert sum(row.segmentation is not None for sample in samples for row in sample.annotations) == 1
    absent = train.images["images/train/b.jpg"].neg_categories
    assert [train.names[number] for number in absent] == ["Generic label #0"]
    assert validate_dataset("openimages", root / "v6", ("train", "test")).is_ready
