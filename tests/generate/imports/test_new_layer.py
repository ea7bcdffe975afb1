"""A layer of masks that were made elsewhere: what arrives, what is counted, kills, changed inputs."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import foreign_masks
from fakes.foreign_masks import PLACE, annotations, ellipse, layer_files, rows
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import coco_json
from synthgen.generate.imports.matching import MatchRules
from synthgen.generate.imports.new_layer import import_layer
from synthgen.generate.imports.replace_masks import replace_masks
from synthgen.generate.imports.request import ImportReport, ImportRequest, find_place
from synthgen.ingest.ingest import ingest
from synthgen.records.rle import encode_mask
from synthgen.records.sample import mask_provenance
from synthgen.storage.locks import lock_folder
from synthgen.storage.shard_store import Shard, ShardStore


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Any]:
    return foreign_masks.write_world(tmp_path)


def run(folder: Path, content: Any, layer: str = "imported", **options: Any) -> ImportReport:
    """Import a file's content, or a folder."""
    source = content
    if not isinstance(content, Path):
        source = folder / "masks.json"
        source.write_text(json.dumps(content))
    rules = MatchRules(
        **{name: options.pop(name) for name in ("mode", "min_box_iou", "any_category") if name in options}
    )
    return import_layer(
        ImportRequest(source=source, store=folder / "shards", place=PLACE, layer=layer, rules=rules, **options),
        lambda *_: None,
    )


def check_all_masks(folder: Path, world: dict[str, Any], layer: str = "imported") -> None:
    found = annotations(folder / "shards", layer)
    assert len(found) == len(world["annotations"])
    for one in world["annotations"]:
        assert found[one["id"]].segmentation == encode_mask(ellipse(one["bbox"]))
        assert found[one["id"]].bbox == tuple(one["bbox"])
        assert found[one["id"]].box_iou is not None and found[one["id"]].box_iou > 0.8


def test_instances_and_results(tmp_path: Path, world: dict[str, Any]) -> None:
    report = run(tmp_path, foreign_masks.with_masks(world))
    assert (report.imported, report.masks, report.written, report.shards) == (24, 24, 3, 3)
    assert report.unused == {} and report.without_mask == 0
    check_all_masks(tmp_path, world)
    assert run(tmp_path, foreign_masks.results(world), "results", model="sam2").imported == 24
    check_all_masks(tmp_path, world, "results")
    for number, one in enumerate(annotations(tmp_path / "shards", "results").values()):
        assert one.predicted_iou == round(0.5 + 0.001 * number, 4)
        assert (one.mask_source, mask_provenance(one)) == ("sam2", "machine")
    assert {a.mask_source for a in annotations(tmp_path / "shards", "imported").values()} == {"imported"}
    first, second = rows(tmp_path / "shards", "annotations"), rows(tmp_path / "shards", "results")
    assert [replace(s, annotations=()) for s in first] == [replace(s, annotations=()) for s in second]


@pytest.mark.parametrize("seed", range(3))
def test_numbers_and_order_of_a_file_do_not_matter(tmp_path: Path, world: dict[str, Any], seed: int) -> None:
    """Another program numbered images, annotations and categories anew."""
    rng = random.Random(seed)
    images = rng.sample(world["images"], len(world["images"]))
    new_image = {image["id"]: 100 - number for number, image in enumerate(images)}
    categories = [{**one, "id": 10 - one["id"]} for one in world["categories"]]
    changed = [
        {**one, "image_id": new_image[one["image_id"]], "category_id": 10 - one["category_id"]}
        for one in foreign_masks.with_masks(world)["annotations"]
    ]
    rng.shuffle(changed)
    changed = [{**one, "id": number} for number, one in enumerate(changed, start=1)]
    renamed = [{**image, "id": new_image[image["id"]], "file_name": f"x/{image['file_name']}"} for image in images]
    report = run(tmp_path, {"annotations": changed, "categories": categories, "images": renamed})
    assert report.imported == 24 and report.unused == {}
    check_all_masks(tmp_path, world)


@pytest.mark.parametrize("by_id", [True, False])
def test_id_maps(tmp_path: Path, by_id: bool) -> None:
    world = foreign_masks.write_world(tmp_path, images=5, objects=1)
    foreign_masks.write_id_maps(tmp_path / "maps", world, by_id=by_id)
    assert run(tmp_path, tmp_path / "maps").imported == 5
    check_all_masks(tmp_path, world)


def test_binary_masks(tmp_path: Path, world: dict[str, Any]) -> None:
    foreign_masks.write_binary_masks(tmp_path / "maps", world)
    (tmp_path / "maps" / "stranger").mkdir()
    (tmp_path / "maps" / "stranger" / "1.png").write_bytes(b"not an image")
    (tmp_path / "maps" / "0001" / "broken.png").write_bytes(b"not an image")
    report = run(tmp_path, tmp_path / "maps")
    assert report.imported == 24
    assert report.unused == {"bad_segmentation": 1, "no_image": 1}
    assert report.examples["no_image"] == ("stranger/1.png",)
    check_all_masks(tmp_path, world)


def test_what_finds_no_box_is_counted(tmp_path: Path, world: dict[str, Any]) -> None:
    content = foreign_masks.with_masks(world)
    given = content["annotations"]
    given[0]["segmentation"] = foreign_masks.coco_rle([0, 0, 4, 4])  # elsewhere; its id and box are right
    given[1] |= {"segmentation": {"size": [5, 5], "counts": [25]}}
    given[2] |= {"segmentation": {"size": list(foreign_masks.SIZE), "counts": [72 * 96]}}
    given[3]["segmentation"] = None
    given[4]["image_id"] = 4444
    given[5] |= {"category_id": given[5]["category_id"] % 3 + 1, "id": 999}
    given.append({**given[6], "id": 1000})
    report = run(tmp_path, content)
    reasons = ("bad_segmentation", "empty_mask", "no_image", "no_segmentation", "other_category", "taken")
    assert report.unused == dict.fromkeys(reasons, 1)
    assert set(report.examples) == set(reasons) and report.examples["no_image"] == ("annotation 5 of image 4444",)
    found = annotations(tmp_path / "shards", "imported")
    assert found[1].segmentation is not None and found[1].box_iou < 0.5  # type: ignore[operator]
    assert found[2].flags == ("bad_segmentation",) and found[3].flags == ("empty_mask",)
    assert [number for number, one in found.items() if "no_imported_mask" in one.flags] == [4, 5, 6]
    assert report.without_mask == 3 and report.imported == 19
    assert len(found) == 24


def test_a_second_run_does_nothing_and_another_file_is_refused(tmp_path: Path, world: dict[str, Any]) -> None:
    content = foreign_masks.with_masks(world)
    content["annotations"][4]["category_id"] = content["annotations"][4]["category_id"] % 3 + 1
    content["annotations"][4]["id"] = 999
    first = run(tmp_path, content)
    before = layer_files(tmp_path / "shards", "imported")
    again = run(tmp_path, content)
    assert again.written == 0 and again.unused == first.unused == {"other_category": 1}
    assert layer_files(tmp_path / "shards", "imported") == before
    with pytest.raises(SynthgenError, match="from another file; choose another --layer"):
        run(tmp_path, foreign_masks.with_masks(world))
    with pytest.raises(SynthgenError, match=r"min_box_iou=0\.5"):
        run(tmp_path, content, min_box_iou=0.25)
    assert layer_files(tmp_path / "shards", "imported") == before


def test_a_killed_import_is_finished_with_the_same_bytes(
    tmp_path: Path, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = foreign_masks.with_masks(world)
    run(tmp_path, content, "calm")
    commit = ShardStore.commit

    def dying(store: ShardStore, shard: Shard, *arguments: Any) -> Path:
        if shard.index == 1:
            raise KeyboardInterrupt
        return commit(store, shard, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "commit", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, content, "killed")
    assert len(layer_files(tmp_path / "shards", "killed")) == 1
    assert run(tmp_path, content, "killed").written == 2
    calm, killed = (rows(tmp_path / "shards", layer) for layer in ("calm", "killed"))
    assert calm == killed
    store = ShardStore(tmp_path / "shards")
    for index in range(3):
        footers = [store.read_footer(Shard("boxes", "train", layer, index, 3)) for layer in ("calm", "killed")]
        for footer in footers:
            assert footer is not None and footer["identity"].pop("layer") in ("calm", "killed")
        assert footers[0] == footers[1]
    assert not list((tmp_path / "shards").rglob("*.tmp"))


@pytest.mark.parametrize("fingerprint", [{}, {"fingerprint": "of an updated file"}])
def test_a_layer_is_made_again_where_its_boxes_changed(
    tmp_path: Path, world: dict[str, Any], fingerprint: dict[str, str]
) -> None:
    content = foreign_masks.with_masks(world)
    run(tmp_path, content)
    store = ShardStore(tmp_path / "shards")
    shard = store.list_shards(*PLACE)[1]
    samples, footer = list(store.read_samples(shard)), dict(store.read_footer(shard) or {})
    footer.pop("identity")
    first = samples[0].annotations[0]
    samples[0] = replace(samples[0], annotations=(replace(first, category="plate2"), *samples[0].annotations[1:]))
    store.commit(shard, samples, {**footer, **fingerprint})
    before = layer_files(tmp_path / "shards", "imported")
    assert run(tmp_path, content).written == 1
    after = layer_files(tmp_path / "shards", "imported")
    assert [name for name in before if before[name] != after[name]] == ["00001-of-00003.parquet"]
    assert annotations(tmp_path / "shards", "imported")[first.id].flags == ("no_imported_mask",)


def test_masks_by_people_stay_where_the_boxes_of_other_images_change(tmp_path: Path, world: dict[str, Any]) -> None:
    content = foreign_masks.with_masks(world)
    run(tmp_path, content)
    better = {**content, "annotations": [dict(content["annotations"][n]) for n in (1, 2, 4)]}
    for one in better["annotations"]:
        x, y, w, h = one["bbox"]
        one["segmentation"] = foreign_masks.coco_rle([x + 1, y + 1, w - 3, h - 2])
    (tmp_path / "better.json").write_text(json.dumps(better))
    into = ImportRequest(
        source=tmp_path / "better.json", store=tmp_path / "shards", place=(*PLACE[:2], "imported"), replaces=True
    )
    assert replace_masks(into, lambda *_: None).imported == 3
    reviewed = annotations(tmp_path / "shards", "imported")
    store = ShardStore(tmp_path / "shards")
    shard = store.list_shards(*PLACE)[0]
    samples, footer = list(store.read_samples(shard)), dict(store.read_footer(shard) or {})
    footer.pop("identity")
    moved = replace(samples[0].annotations[1], category="another")  # the annotation 2
    samples[0] = replace(samples[0], annotations=(samples[0].annotations[0], moved, *samples[0].annotations[2:]))
    store.commit(shard, samples, footer)
    report = run(tmp_path, content)
    assert (report.written, report.dropped) == (1, 1)
    after = annotations(tmp_path / "shards", "imported")
    assert after[2].segmentation is None and {n: a for n, a in after.items() if n != 2} == {
        n: a for n, a in reviewed.items() if n != 2
    }
    footer = store.read_footer(shard.in_layer("imported")) or {}
    assert footer["replaced"]["reviewed"] == 2 and len(footer["replaced"]["sources"]) == 1
    assert (run(tmp_path, content).written, run(tmp_path, content).dropped) == (0, 0)


def test_a_layer_in_use_is_not_deleted(tmp_path: Path, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    commit, ours = ShardStore.commit, []

    def locked_commit(store: ShardStore, shard: Shard, *arguments: Any) -> Path:
        for layer in ("annotations", "imported"):
            with lock_folder(tmp_path / "shards/boxes/train" / layer) as (_, is_ours):
                ours.append(is_ours)
        return commit(store, shard, *arguments)

    monkeypatch.setattr(ShardStore, "commit", locked_commit)
    run(tmp_path, foreign_masks.with_masks(world))
    assert ours == [False] * 6


def test_folders_named_by_numbers_hold_the_masks_of_their_image(tmp_path: Path, world: dict[str, Any]) -> None:
    """Images and masks are both named by numbers from 1."""
    numbered = {image["id"]: f"{image['id']}.png" for image in world["images"]}
    images = [{**image, "file_name": numbered[image["id"]]} for image in world["images"]]
    firsts = {
        image["id"]: min(a["id"] for a in world["annotations"] if a["image_id"] == image["id"]) for image in images
    }
    own = [{**a, "id": a["id"] - firsts[a["image_id"]] + 1} for a in world["annotations"]]
    (tmp_path / "numbered.json").write_text(json.dumps({**world, "images": images, "annotations": own}))
    files = coco_json.files(tmp_path / "photos", "train", tmp_path / "numbered.json")
    ingest(ShardStore(tmp_path / "numbered"), coco_json, files, name="boxes", split="train")
    for one in own:
        place = tmp_path / "masks" / str(one["image_id"])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ellipse(one["bbox"]).astype(np.uint8) * 255).save(place / f"{one['id']}.png")
    request = ImportRequest(source=tmp_path / "masks", store=tmp_path / "numbered", place=PLACE)
    assert import_layer(request, lambda *_: None).imported == 24
    for sample in rows(tmp_path / "numbered", "imported"):
        assert all(a.segmentation == encode_mask(ellipse(list(a.bbox))) for a in sample.annotations)


def test_a_dataset_without_sizes_takes_that_of_the_masks(tmp_path: Path, world: dict[str, Any]) -> None:
    images = [{key: one[key] for key in ("id", "file_name")} for one in world["images"]]
    (tmp_path / "plain.json").write_text(json.dumps({**world, "images": images}))
    files = coco_json.files(tmp_path / "nowhere", "train", tmp_path / "plain.json")
    store = ShardStore(tmp_path / "plain")
    ingest(store, coco_json, files, name="boxes", split="train")
    assert rows(tmp_path / "plain", "annotations")[0].height == 0
    source = tmp_path / "masks.json"
    source.write_text(json.dumps(foreign_masks.results(world)))
    request = ImportRequest(source=source, store=tmp_path / "plain", place=PLACE)
    assert import_layer(request, lambda *_: None).imported == 24
    assert {(s.height, s.width) for s in rows(tmp_path / "plain", "imported")} == {foreign_masks.SIZE}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "none of the 0 masks"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}], "none of the 1 annotations .* has a segmentation"),
        ([{"image_id": 77, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}], "annotation of image 77"),
        ({"images": []}, "no 'annotations'"),
        ([{"category_id": 1}], "image_id"),
    ],
)
def test_a_wrong_file_writes_nothing(tmp_path: Path, world: dict[str, Any], content: Any, message: str) -> None:
    with pytest.raises(SynthgenError, match=message) as refused:
        run(tmp_path, content)
    assert refused.value.exit_code == 2
    assert not (tmp_path / "shards/boxes/train/imported").exists()


def test_wrong_places_and_names(tmp_path: Path, world: dict[str, Any]) -> None:
    store = tmp_path / "shards"
    assert (
        find_place(store, "boxes") == find_place(store, "boxes/train/") == find_place(store, "/".join(PLACE)) == PLACE
    )
    for text in ("", "box", "boxes/val", "boxes/train/masks", "boxes/train/annotations/x"):
        with pytest.raises(SynthgenError):
            find_place(store, text)
    files = coco_json.files(tmp_path / "photos", "train", tmp_path / "boxes.json")
    ingest(ShardStore(store), coco_json, files, name="boxes", split="val")
    with pytest.raises(SynthgenError, match=r"several splits \(boxes/train, boxes/val\)"):
        find_place(store, "boxes")
    for layer in ("annotations", "human", "../x", ""):
        with pytest.raises(SynthgenError):
            run(tmp_path, foreign_masks.results(world), layer)
    for source in (tmp_path / "nothing", tmp_path / "shards"):
        with pytest.raises(SynthgenError, match="no "):
            run(tmp_path, source)
    (store / "boxes/train/annotations/00001-of-00003.parquet").unlink()
    with pytest.raises(SynthgenError, match="2 of 3 shards"):
        run(tmp_path, foreign_masks.results(world))


def test_masks_of_an_earlier_layer_are_replaced_and_others_stay(tmp_path: Path, world: dict[str, Any]) -> None:
    """A layer of masks may give the boxes: what the file lacks keeps its mask."""
    run(tmp_path, foreign_masks.with_masks(world), "first", model="old")
    some = {**world, "annotations": foreign_masks.with_masks(world)["annotations"][:5]}
    (tmp_path / "some.json").write_text(json.dumps(some))
    request = ImportRequest(
        source=tmp_path / "some.json", store=tmp_path / "shards", place=(*PLACE[:2], "first"), model="new", layer="two"
    )
    report = import_layer(request, lambda *_: None)
    assert (report.imported, report.masks, report.without_mask) == (5, 24, 0)
    sources = [one.mask_source for one in annotations(tmp_path / "shards", "two").values()]
    assert sources == ["new"] * 5 + ["old"] * 19
    np.testing.assert_equal(len(rows(tmp_path / "shards", "two")), 8)
