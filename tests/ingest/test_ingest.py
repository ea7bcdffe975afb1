"""Ingest: nothing lost or doubled in any order, in bounded memory; killed, resumed, repeated: the same bytes."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch, coco_json
from synthgen.ingest import external_sort, image_table, ingest
from synthgen.ingest.sharding import split_into_shards
from synthgen.records.recipe import fingerprint
from synthgen.storage.shard_store import Shard, ShardStore

ROOT = Path(__file__).parents[2]


def write(path: Path, *, images: int = 200, boxes: int = 3000, order: str = "iac", seed: int = 0) -> DatasetFiles:
    """A COCO-style file with its members in some order, annotations shuffled."""
    rng = random.Random(seed)
    parts = {
        "i": ("images", [{"id": i, "file_name": f"{i}.jpg", "height": 90, "width": 120} for i in range(images)]),
        "a": (
            "annotations",
            [
                {
                    "id": i,
                    "image_id": rng.randrange(images),
                    "category_id": rng.randrange(5),
                    "bbox": [rng.uniform(-5, 100), rng.uniform(0, 60), rng.uniform(0, 30), rng.uniform(0, 30)],
                    "segmentation": [[1, 1, 20 + i % 7, 1, 20, 20]],
                }
                for i in rng.sample(range(boxes), boxes)
            ],
        ),
        "c": ("categories", [{"id": i, "name": f"c{i}"} for i in range(5)]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(parts[key] for key in order)))
    return DatasetFiles({"instances": path}, path.parent)


def run(store: Path, files: DatasetFiles, layer: str = "annotations", **options: Any) -> ingest.IngestReport:
    return ingest.ingest(ShardStore(store), coco_json, files, name="d", split="train", layer=layer, **options)


def contents(store: Path, layer: str = "annotations") -> dict[str, bytes]:
    """Every file of a layer but its diary."""
    folder = ShardStore(store).layer_folder("d", "train", layer)
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "_log"}


def samples(store: Path, layer: str = "annotations") -> list[Any]:
    found = ShardStore(store)
    return [sample for shard in found.list_shards("d", "train", layer) for sample in found.read_samples(shard)]


# --- laws of sorting and cutting


@st.composite
def datasets(draw: st.DrawFn) -> list[ImageBatch | AnnotationBatch | Categories]:
    """Batches in any order: image ids that repeat, annotations of images that are not listed, payloads or none."""
    extremes = st.sampled_from([-(2**63), 2**63 - 1, -1, 0])
    identity = st.one_of(st.integers(0, 30), extremes)
    with_payloads, looked_over = draw(st.booleans()), draw(st.booleans())
    batches: list[ImageBatch | AnnotationBatch | Categories] = [Categories({1: "one"}), Categories({2: "two"})]
    for ids in draw(st.lists(st.lists(identity, max_size=12), max_size=3)):
        names = [f"{i}.jpg" for i in ids]
        size = np.full(len(ids), 50, np.int32)
        lists = [draw(st.lists(st.integers(1, 3), max_size=3)) for _ in ids] if looked_over else None
        batches.append(ImageBatch(np.array(ids, np.int64), names, [""] * len(ids), size, size, None, lists, lists))
    for rows in draw(st.lists(st.lists(st.tuples(identity, identity, st.integers(1, 3)), max_size=25), max_size=4)):
        count = len(rows)
        table = np.array(rows, np.int64).reshape(-1, 3)
        payloads = [draw(st.none() | st.binary(max_size=40)) for _ in rows] if with_payloads else None
        bbox = np.arange(4.0 * count).reshape(-1, 4)
        odd = np.arange(count) % 2 == 1
        batches.append(
            AnnotationBatch(table[:, 0], table[:, 1], bbox, table[:, 2], odd, {"fake": ~odd, "no_box": odd}, payloads)
        )
    return draw(st.permutations(batches))


@settings(max_examples=300)
@given(datasets(), st.integers(0, 7), st.sampled_from([1, 200, 2**20]), st.integers(0, 10_000))
def test_cut_equals_a_dictionary(batches, shard_size, bound, expect):
    """Against the plain way: a dictionary of all images and lists of their annotations."""
    images: list[tuple[int, int]] = []  # (id, place in the stream)
    lacking: list[list[int]] = []  # category ids, by place
    owned: dict[int, list[tuple[int, int, list[float], int, bool, bytes | None]]] = {}
    place = 0
    for batch in batches:
        if isinstance(batch, ImageBatch):
            images += [(i, len(images) + k) for k, i in enumerate(batch.image_id.tolist())]
            lacking += batch.neg_categories or []
        elif isinstance(batch, AnnotationBatch):
            for k, owner in enumerate(batch.image_id.tolist()):
                payload = batch.payload[k] if batch.payload is not None else None
                row = (int(batch.id[k]), place, batch.bbox[k].tolist(), int(batch.category[k]), bool(batch.iscrowd[k]))
                owned.setdefault(owner, []).append((*row, payload))
                place += 1
    listed = {i for i, _ in images}
    images += [(i, len(images) + k) for k, i in enumerate(sorted(set(owned) - listed))]
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "MAX_RUN_BYTES", bound)
        patch.setattr(external_sort, "_BLOCK_RECORDS", 7)
        patch.setattr(external_sort, "_MAX_RANGES", 5)
        patch.setattr(image_table, "_MAX_BITMAP_SIZE", bound)
        if not images:
            with pytest.raises(SynthgenError, match="list no images"):
                next(split_into_shards(batches, "d", Path(scratch), expected_bytes=expect, shard_size=shard_size))
            return
        cuts = list(split_into_shards(batches, "d", Path(scratch), expected_bytes=expect, shard_size=shard_size))
        assert list(Path(scratch).iterdir()) == []  # what is read back is deleted
    size = shard_size or 16
    assert [(c.index, c.num_shards, c.total_images) for c in cuts] == [
        (i, -(-len(images) // size), len(images)) for i in range(-(-len(images) // size))
    ]
    seen: set[int] = set()
    rows = iter(sorted(images))
    for one in cuts:
        columns = one.columns
        assert len(columns.image_id) == min(size, len(images) - one.index * size)
        ends = columns.offsets.tolist()
        assert ends[0] == 0 and ends[-1] == len(columns.id) == len(columns.bbox)
        for k, (start, end) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            image_id, position = next(rows)
            assert columns.image_id[k] == image_id
            if lacking:  # 3 has no name; an image that the file does not list was not looked over
                ids = lacking[position] if position < len(lacking) else []
                theirs = [{1: "one", 2: "two"}[i] for i in ids if i != 3]
                assert columns.neg_categories[k] == columns.not_exhaustive_categories[k] == theirs
            else:
                assert columns.neg_categories is columns.not_exhaustive_categories is None
            again, known = image_id in seen, image_id in listed
            error = columns.error[k]
            assert (error is None) == (known and not again)
            assert error is None or ("same id" in error if again else "lists no image" in error)
            key = columns.image_key[k]
            assert key == (f"d/{image_id}.jpg" if known else f"d/unlisted/{image_id}")
            mine = [] if again else sorted(owned.get(image_id, []))
            seen.add(image_id)
            assert columns.id[start:end].tolist() == [row[0] for row in mine]
            assert columns.bbox[start:end].tolist() == [row[2] for row in mine]
            names = [columns.categories[code] for code in columns.category[start:end]]
            assert names == [{1: "one", 2: "two", 3: ""}[row[3]] for row in mine]
            assert columns.iscrowd[start:end].tolist() == [row[4] for row in mine]
            assert columns.flags["crowd"][start:end].tolist() == [row[4] for row in mine]
            if mine:
                assert columns.flags["fake"][start:end].tolist() == [not row[4] for row in mine]
            payloads = one.payloads[start:end] if one.payloads else [None] * len(mine)
            assert payloads == [row[5] for row in mine]
    assert next(rows, None) is None


@pytest.mark.parametrize("order", ["iac", "aic", "cai", "cia"])
@pytest.mark.parametrize("bound", [2**10, 2**25])
@pytest.mark.parametrize("layer", coco_json.LAYERS)
def test_the_order_of_the_file_does_not_matter(tmp_path, monkeypatch, order, bound, layer):
    monkeypatch.setattr(external_sort, "MAX_RUN_BYTES", bound)
    run(tmp_path / "a", write(tmp_path / "a.json"), layer)
    run(tmp_path / "b", write(tmp_path / "b.json", order=order), layer)
    assert samples(tmp_path / "a", layer) == samples(tmp_path / "b", layer)


def test_ranges_stay_within_the_bound(tmp_path, monkeypatch):
    """However the annotations lie: at most the bound is read back at once, or one image."""
    monkeypatch.setattr(external_sort, "MAX_RUN_BYTES", 64 * 100)
    rng = np.random.default_rng(0)
    image_id = np.concatenate([np.full(5000, 7), rng.integers(0, 50, 4000), rng.integers(0, 100_000, 4000)])
    rng.shuffle(image_id)
    ids = np.unique(image_id)
    for known in (np.empty(0, np.int64), ids[:10], ids):
        kept = external_sort.ExternalSorter(tmp_path, expected_bytes=10**6)
        for part in np.array_split(image_id, 20):
            none = np.zeros(len(part), np.int64)
            kept.add(AnnotationBatch(part, none, np.zeros((len(part), 4)), none, none == 1), known)
        total = 0
        for taken in kept.sorted_runs(ids):
            owners, counts = np.unique(taken.image_id, return_counts=True)
            assert counts.sum() - counts.max() <= 100 and (owners == np.sort(owners)).all()
            total += len(taken.image_id)
        assert total == len(image_id) and not list(tmp_path.iterdir())


def test_auto_shard_size(tmp_path):
    for images, shards in ((1, 1), (17, 2), (1024, 64), (6400, 64), (64_001, 65)):
        batch = ImageBatch(
            np.arange(images), [f"{i}.jpg" for i in range(images)], [""] * images, *[np.ones(images, int)] * 2
        )
        assert next(split_into_shards([batch], "d", tmp_path)).num_shards == shards


# --- same job, same bytes


@pytest.mark.parametrize("layer", coco_json.LAYERS)
def test_same_job_same_bytes_wherever_and_whenever(tmp_path, layer):
    first = write(tmp_path / "x" / "boxes.json")
    second = DatasetFiles({"instances": tmp_path / "elsewhere.json"}, tmp_path)
    shutil.copyfile(first.sources["instances"], second.sources["instances"])
    os.utime(second.sources["instances"], (1e9, 1e9))
    run(tmp_path / "a", first, layer)
    run(tmp_path / "b" / "c", second, layer)
    assert contents(tmp_path / "a", layer) == contents(tmp_path / "b" / "c", layer)
    assert not any(b"boxes.json" in data for data in contents(tmp_path / "a", layer).values())


def test_the_footer_says_what_made_the_shard(tmp_path):
    files = write(tmp_path / "boxes.json")
    report = run(tmp_path / "s", files, shard_size=50)
    store = ShardStore(tmp_path / "s")
    counts = {"images": 0, "annotations": 0, "masks": 0, "errors": 0}
    for shard in store.list_shards("d", "train", "annotations"):
        footer = store.read_footer(shard)
        assert footer is not None
        assert footer["recipe"] == {
            "stage": "ingest",
            "dataset": "d",
            "reader": "coco_json",
            "split": "train",
            "layer": "annotations",
            "shard_size": 50,
            "version": ingest.INGEST_VERSION,
            "sources": {"instances": ingest.file_sha256(files.sources["instances"])},
        }
        assert footer["fingerprint"] == fingerprint(footer["recipe"]) and footer["parent"] is None
        assert footer["categories"] == [f"c{i}" for i in range(5)]
        for key in counts:
            counts[key] += footer["counts"][key]
        flags = [flag for s in store.read_samples(shard) for a in s.annotations for flag in a.flags]
        assert footer["counts"]["flags"] == {flag: flags.count(flag) for flag in set(flags)}
    assert counts == {"images": 200, "annotations": 3000, "masks": 0, "errors": 0}
    assert (report.shards, report.committed, report.images, report.annotations) == (4, 4, 200, 3000)
    assert report.flags["clipped"] > 0


def test_of_very_many_names_a_footer_lists_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "MAX_FOOTER_NAMES", 4)
    run(tmp_path, write(tmp_path / "boxes.json", images=40, boxes=40), shard_size=1)
    store = ShardStore(tmp_path)
    for shard in store.list_shards("d", "train", "annotations"):
        (sample,) = store.read_samples(shard)
        footer = store.read_footer(shard)
        assert footer is not None and footer["categories"] == sorted({a.category for a in sample.annotations})


# --- resuming


def test_a_complete_layer_is_not_read_again(tmp_path):
    files = write(tmp_path / "boxes.json")
    before = run(tmp_path, files)

    class Unread:
        LAYERS = coco_json.LAYERS
        __name__ = "coco_json"

        def read(self, *_: object) -> Iterator[ImageBatch]:
            raise AssertionError

    again = ingest.ingest(ShardStore(tmp_path), Unread(), files, name="d", split="train")  # type: ignore[arg-type]
    assert again == replace(before, committed=0)


@pytest.mark.parametrize("layer", coco_json.LAYERS)
def test_only_missing_shards_are_made(tmp_path, layer):
    files = write(tmp_path / "boxes.json")
    run(tmp_path, files, layer)
    whole = contents(tmp_path, layer)
    store = ShardStore(tmp_path)
    shards = store.list_shards("d", "train", layer)
    for shard in shards[::3]:
        (tmp_path / shard.relative_path).unlink()
    kept = {
        shard: (tmp_path / shard.relative_path).stat().st_mtime_ns for shard in store.list_shards("d", "train", layer)
    }
    report = run(tmp_path, files, layer)
    assert report.committed == len(shards[::3]) and report.annotations == 3000
    assert contents(tmp_path, layer) == whole
    assert all((tmp_path / shard.relative_path).stat().st_mtime_ns == then for shard, then in kept.items())


SCRIPT = """
import sys
from pathlib import Path
from synthgen.ingest.ingest import ingest
from synthgen.formats.readers import DatasetFiles, coco_json
from synthgen.storage.shard_store import ShardStore
file = Path(sys.argv[1])
print("ready", flush=True)
ingest(ShardStore(sys.argv[2]), coco_json, DatasetFiles({"instances": file}, file.parent), name="d", split="train",
       layer="human", shard_size=5)
"""


def test_killed_at_random_moments(tmp_path):
    """Two competing ingests, killed four times or more: no half file, and in the end an undisturbed one's bytes."""
    files = write(tmp_path / "boxes.json", images=300, boxes=6000)
    started = time.monotonic()
    run(tmp_path / "calm", files, "human", shard_size=5)
    calm = time.monotonic() - started
    rng = random.Random(0)
    folder = ShardStore(tmp_path / "wild").layer_folder("d", "train", "human")
    partial = False
    for attempt in range(16):
        if attempt >= 4 and partial:  # on a busy machine they take longer than the one undisturbed did
            break
        command = [sys.executable, "-c", SCRIPT, str(files.sources["instances"]), str(tmp_path / "wild")]
        pair = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
        for process in pair:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.1, 0.9) * calm * (1 + attempt / 4))
        for process in pair:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        there = ShardStore(tmp_path / "wild").list_shards("d", "train", "human")
        partial = partial or 0 < len(there) < 60
        for shard in there:
            assert sum(1 for _ in ShardStore(tmp_path / "wild").read_samples(shard)) == 5
        for shard in there[::2]:
            (tmp_path / "wild" / shard.relative_path).unlink()
    assert run(tmp_path / "wild", files, "human", shard_size=5).annotations == 6000
    assert contents(tmp_path / "wild", "human") == contents(tmp_path / "calm", "human")
    assert not list(folder.glob(".*"))
    assert partial, "no kill hit an ingest that was writing; the test shows nothing"


# --- refusals


def test_another_file_is_refused(tmp_path):
    run(tmp_path, write(tmp_path / "boxes.json"))
    whole = contents(tmp_path)
    files = write(tmp_path / "boxes.json", seed=1)
    with pytest.raises(SynthgenError, match="from other annotation files than those there now; choose another --name"):
        run(tmp_path, files)
    assert contents(tmp_path) == whole


def test_another_shard_size_is_refused(tmp_path):
    files = write(tmp_path / "boxes.json")
    run(tmp_path, files)
    with pytest.raises(SynthgenError, match=r"was made with shard_size 0 \(now 7\); choose another --name, or delete"):
        run(tmp_path, files, shard_size=7)


def test_a_layer_of_another_stage_is_refused(tmp_path):
    files = write(tmp_path / "boxes.json")
    recipe = {"stage": "masks", "plugin": "grabcut", "dataset": "d"}
    ShardStore(tmp_path).commit(Shard("d", "train", "human", 0, 1), [], {"recipe": recipe, "fingerprint": "x"})
    with pytest.raises(SynthgenError, match=r"was made by another stage \(grabcut\)"):
        run(tmp_path, files, "human")


def test_a_layer_that_the_dataset_does_not_have(tmp_path):
    with pytest.raises(SynthgenError, match=r"no layer 'masks' of its own \(have: annotations, human\)"):
        run(tmp_path, write(tmp_path / "boxes.json"), "masks")


def test_a_file_that_changes_while_it_is_read(tmp_path):
    files = write(tmp_path / "boxes.json")

    def touch(what: str, done: int, total: int) -> None:
        os.utime(files.sources["instances"], (1, 1))

    with pytest.raises(SynthgenError, match="changed while it was read; run the same command again"):
        run(tmp_path / "s", files, on_progress=touch)
    assert contents(tmp_path / "s") == {}


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(SynthgenError, match=r"cannot read .*gone.json \(No such file"):
        run(tmp_path / "s", DatasetFiles({"instances": tmp_path / "gone.json"}, tmp_path))


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = write(tmp_path / "boxes.json")
    monkeypatch.setattr(external_sort._RangeFile, "write", full)
    with pytest.raises(SynthgenError, match="no space left"):
        run(tmp_path / "s", files)
    assert contents(tmp_path / "s") == {}


def test_a_damaged_file_leaves_nothing(tmp_path):
    files = write(tmp_path / "boxes.json")
    text = files.sources["instances"].read_bytes()
    files.sources["instances"].write_bytes(text[: len(text) // 2])
    with pytest.raises(SynthgenError, match="the file ends inside record"):
        run(tmp_path / "s", files)
    assert contents(tmp_path / "s") == {}


# --- has the source changed?


def test_source_changed(tmp_path, monkeypatch):
    files = write(tmp_path / "boxes.json")
    path = files.sources["instances"]
    store = ShardStore(tmp_path)

    def changed() -> str | None:
        return ingest.describe_source_change(store, files, name="d", split="train")

    assert changed() is None  # no layer yet
    run(tmp_path, files)
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "file_sha256", lambda _: pytest.fail("an unchanged file is not read"))
        assert changed() is None
    os.utime(path, (1, 1))
    assert changed() is None  # the same content
    (store.layer_folder("d", "train", "annotations") / "_log" / "source.json").write_text("[1")
    assert changed() is None  # a diary may be damaged
    path.write_bytes(path.read_bytes().replace(b"c4", b"c9"))
    sentence = changed()
    assert sentence is not None and str(path) in sentence and "choose another --name" in sentence


def test_progress_is_told_in_order(tmp_path):
    files = write(tmp_path / "boxes.json", images=300, boxes=20_000)
    told: list[tuple[str, int, int]] = []
    run(tmp_path, files, on_progress=lambda *now: told.append(now))
    size = files.sources["instances"].stat().st_size
    reading = [done for what, done, total in told if what == "reading" and total == size]
    writing = [done for what, done, total in told if what == "writing" and total == 300]
    assert len(reading) + len(writing) == len(told)
    assert reading == sorted(reading) and reading[-1] == size and len(reading) > 2
    assert writing == sorted(writing) and writing[-1] == 300


@pytest.mark.slow
def test_the_benchmark_runs_and_memory_stays_small(tmp_path):
    command = [sys.executable, "benchmarks/ingest.py", "--scale", "0.03", "--no-baselines", "--folder", str(tmp_path)]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    row = next(line for line in table.splitlines() if line.startswith("ours")).split()
    assert "52,268 images, 762,227 boxes" in " ".join(row) and float(row[3]) < 0.4
    assert not list(tmp_path.iterdir())
