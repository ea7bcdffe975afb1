"""`Layer.to_coco` and `Layer.export`: pycocotools reads the masks back; ids, atomic writes, hostile content."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import scored_layers
from pycocotools.coco import COCO

from synthgen.errors import SynthgenError
from synthgen.export.options import ExportOptions
from synthgen.export.source import ExportSource
from synthgen.layers.layer import Layer, load_layer
from synthgen.layers.layer_export import export_coco_file
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Annotation, Caption, Rle, Sample


def open_layer(root: Path, samples: list[Sample]) -> Layer:
    scored_layers.commit_layer(root, samples, sizes=(len(samples),))
    return load_layer(root / "store", scored_layers.LAYER)


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    return open_layer(tmp_path, scored_layers.make_samples(60))


def test_pycocotools_reads_the_masks_back(layer: Layer, tmp_path: Path) -> None:
    done = layer.to_coco(tmp_path / "new" / "out.json")
    coco = COCO(str(done.path))
    samples = [sample for sample in layer if sample.error is None]
    assert sorted(coco.imgs) == [sample.image_id for sample in samples]
    annotations = {a.id: (sample, a) for sample in samples for a in sample.annotations}
    assert coco.anns.keys() == annotations.keys()
    assert (done.images, done.annotations, done.left_out) == ({"train": 59}, {"train": len(annotations)}, {})
    assert done.left_out_images == {"error": 1}
    masks = 0
    for number, record in coco.anns.items():
        sample, a = annotations[number]
        assert record["image_id"] == sample.image_id
        assert tuple(record["bbox"]) == a.bbox
        assert coco.cats[record["category_id"]]["name"] == a.category
        assert ("segmentation" in record) == (a.segmentation is not None)
        if a.segmentation is None:
            assert record["area"] == a.bbox[2] * a.bbox[3]
            continue
        masks += 1
        mask = decode_mask(a.segmentation)
        assert np.array_equal(coco.annToMask(record), mask)
        assert record["area"] == mask.sum()
        for name in ("predicted_iou", "stability_score", "box_iou", "soft_iou"):
            assert record.get(name) == getattr(a, name)
        assert record.get("captions", []) == [caption.text for caption in a.captions]
    assert masks > 50


def test_ids_of_categories_do_not_depend_on_a_filter(layer: Layer, tmp_path: Path) -> None:
    every, birds = tmp_path / "every.json", tmp_path / "birds.json"
    layer.to_coco(every)
    done = layer.filter(categories=["bird"]).to_coco(birds)
    whole, part = json.loads(every.read_text()), json.loads(birds.read_text())
    assert part["categories"] == whole["categories"] == [
        {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "bird"},
    ]  # fmt: skip
    assert part["images"] == whole["images"]
    assert part["annotations"] == [a for a in whole["annotations"] if a["category_id"] == 3]
    assert 0 < done.annotations["train"] == len(part["annotations"])
    assert "grabcut side=256" in whole["info"]["description"]
    again = tmp_path / "again.json"
    layer.to_coco(again)
    assert again.read_bytes() == every.read_bytes()


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    own = (
        scored_layers.not_finite(1, has_mask=True),
        scored_layers.not_finite(2, has_mask=False),
        Annotation(3, (1.0, 2.0, 3.0, 4.0), "dog", iscrowd=True, flags=("crowd",)),
        Annotation(4, (1.0, 2.0, 3.0, 4.0), "fish"),
    )
    layer = open_layer(tmp_path, [Sample(1, "toy/1", "a.png", *scored_layers.SIZE, own)])
    done = layer.to_coco(tmp_path / "all.json")
    content = json.loads(done.path.read_text())
    assert done.left_out == {"no_box": 1, "unlisted_category": 1}
    assert [a["id"] for a in content["annotations"]] == [1, 3]
    assert content["annotations"][0]["bbox"] == [5.0, 3.0, 6.0, 4.0], "the box of the mask"
    assert content["annotations"][1]["iscrowd"] == 1
    done = layer.to_coco(tmp_path / "masks.json", masks_only=True)
    assert (done.annotations, done.left_out) == ({"train": 1}, {"no_mask": 2, "unlisted_category": 1})


def test_ids_that_collide_are_refused_or_numbered_anew(tmp_path: Path) -> None:
    box = (1.0, 2.0, 3.0, 4.0)
    first = Sample(5, "toy/5", "a.png", *scored_layers.SIZE, (Annotation(9, box, "cat"), Annotation(7, box, "cat")))
    second = Sample(6, "toy/6", "b.png", *scored_layers.SIZE, (Annotation(9, box, "dog"),))
    layer = open_layer(tmp_path, [first, second])
    path = tmp_path / "out.json"
    path.write_text("earlier")
    with pytest.raises(SynthgenError, match=r"two annotations have the id 9, .*; number them anew: renumber=true"):
        layer.to_coco(path)
    assert path.read_text() == "earlier"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "photos", "store"], "no temporary file is left"
    layer.to_coco(path, renumber=True)
    content = json.loads(path.read_text())
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3]
    assert [a["image_id"] for a in content["annotations"]] == [1, 1, 2]
    assert [image["id"] for image in content["images"]] == [1, 2]
    (tmp_path / "twice").mkdir()
    with pytest.raises(SynthgenError, match=r"two images have the id 5"):
        open_layer(tmp_path / "twice", [first, replace(second, image_id=5)]).to_coco(path)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (Rle((3, 4), b"<"), r"its mask is 3 x 4, not 40 x 60"),
        (Rle(scored_layers.SIZE, b"00"), r"mask of 40 x 60"),
        (Rle(scored_layers.SIZE, b"\xff\x00"), r"mask of 40 x 60"),
    ],
)
def test_a_damaged_mask_is_refused_with_its_place(tmp_path: Path, mask: Rle, sentence: str) -> None:
    own = (Annotation(4, (1.0, 1.0, 2.0, 2.0), "cat", segmentation=mask),)
    layer = open_layer(tmp_path, [Sample(1, "toy/1", "a.png", *scored_layers.SIZE, own)])
    with pytest.raises(SynthgenError, match=rf"annotation 4 of image a\.png: {sentence}.*; make its shard again"):
        layer.to_coco(tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    name = '../../"],"images":[\x1b[2J\u202e.png'
    own = (Annotation(1, (1.0, 1.0, 2.0, 2.0), "cat", captions=(Caption('</script>"\n', "human"),)),)
    layer = open_layer(tmp_path, [Sample(1, "toy/1", name, *scored_layers.SIZE, own)])
    done = layer.to_coco(tmp_path / "out.json")
    text = done.path.read_bytes()
    assert b"\x1b" not in text
    content = json.loads(text)
    assert content["images"][0]["file_name"] == name
    assert content["annotations"][0]["captions"] == ['</script>"\n']


def test_an_empty_layer_is_valid_json(layer: Layer, tmp_path: Path) -> None:
    done = layer[:0].to_coco(tmp_path / "out.json")
    content = json.loads(done.path.read_text())
    assert (content["images"], content["annotations"]) == ([], [])
    assert COCO(str(done.path)).imgs == {}


def test_a_path_that_cannot_be_written_is_refused(layer: Layer, tmp_path: Path) -> None:
    with pytest.raises(SynthgenError, match=r"cannot write .*; choose another path"):
        layer.to_coco(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SynthgenError, match=r"choose another path"):
        layer.to_coco(tmp_path / "file" / "out.json")


def source(stream: Callable[[], Iterator[Sample]], count: int) -> ExportSource:
    return ExportSource("toy/train/masks", {}, scored_layers.CATEGORIES, (), (), count, False, None, stream, lambda: ())


def test_samples_are_written_as_they_come(tmp_path: Path) -> None:
    """No more than one sample is alive at a time."""
    alive: list[int] = []

    class Counted:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    most = 0

    def stream() -> Iterator[Sample]:
        nonlocal most
        for number in range(1, 200):
            token = Counted()
            most = max(most, len(alive))
            yield Sample(number, "k", f"{number}.png", 4, 4)
            del token

    done = export_coco_file(source(stream, 199), tmp_path / "out.json", masks_only=False, renumber=False)
    assert done.images == {"train": 199} and most == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_the_layer(tmp_path: Path) -> None:
    """What Python allocates grows by the ids alone, a small part of the file."""
    base = scored_layers.make_samples(100)[:99]

    def stream(turns: int) -> Iterator[Sample]:
        for turn in range(turns):
            for sample in base:
                own = tuple(replace(a, id=turn * 10_000 + a.id) for a in sample.annotations)
                yield replace(sample, image_id=turn * 1_000 + sample.image_id, annotations=own)

    def measure(turns: int) -> tuple[int, int]:
        own = source(lambda: stream(turns), 99 * turns)
        tracemalloc.start()
        done = export_coco_file(own, tmp_path / "out.json", masks_only=False, renumber=False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert done.images == {"train": 99 * turns}
        return peak, done.path.stat().st_size

    measure(10)  # the buffers of files and encoders
    small, large = measure(10), measure(40)
    assert large[1] - small[1] > 1_000_000
    assert large[0] - small[0] < (large[1] - small[1]) / 5


def test_a_reversed_layer_has_a_subset_as_well(layer: Layer, tmp_path: Path) -> None:
    options = ExportOptions(max_images=5, image_mode="none")
    found = [one.export("coco", tmp_path / str(i), options=options) for i, one in enumerate((layer, layer[::-1]))]
    names = [
        sorted(
            image["file_name"]
            for image in json.loads((one.path / "annotations/instances_train.json").read_text())["images"]
        )
        for one in found
    ]
    assert names[0] == names[1] and sum(found[0].images.values()) in (4, 5), "the last image has an error"
