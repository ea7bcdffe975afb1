"""Ingest: reproducible bytes, resumed and interrupted runs, refused changes, bounded memory."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.ingest_runs import ingest_layer, read_layer_files, write_annotations

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, ImageBatch, coco_json
from synthgen.ingest import ingest, layer_source, source_digests
from synthgen.records.recipe import fingerprint
from synthgen.storage.shard_store import Shard, ShardStore

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("layer", coco_json.LAYERS)
def test_same_job_same_bytes_wherever_and_whenever(tmp_path, layer):
    first = write_annotations(tmp_path / "x" / "boxes.json")
    second = DatasetFiles({"instances": tmp_path / "elsewhere.json"}, tmp_path)
    shutil.copyfile(first.sources["instances"], second.sources["instances"])
    os.utime(second.sources["instances"], (1e9, 1e9))
    ingest_layer(tmp_path / "a", first, layer)
    ingest_layer(tmp_path / "b" / "c", second, layer)
    assert read_layer_files(tmp_path / "a", layer) == read_layer_files(tmp_path / "b" / "c", layer)
    assert not any(b"boxes.json" in data for data in read_layer_files(tmp_path / "a", layer).values())


def test_the_footer_says_what_made_the_shard(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    report = ingest_layer(tmp_path / "s", files, shard_size=50)
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
            "version": layer_source.INGEST_VERSION,
            "sources": {"instances": source_digests.file_sha256(files.sources["instances"])},
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
    monkeypatch.setattr(layer_source, "MAX_FOOTER_NAMES", 4)
    ingest_layer(tmp_path, write_annotations(tmp_path / "boxes.json", images=40, boxes=40), shard_size=1)
    store = ShardStore(tmp_path)
    for shard in store.list_shards("d", "train", "annotations"):
        (sample,) = store.read_samples(shard)
        footer = store.read_footer(shard)
        assert footer is not None and footer["categories"] == sorted({a.category for a in sample.annotations})


def test_a_complete_layer_is_not_read_again(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    before = ingest_layer(tmp_path, files)

    class Unread:
        LAYERS = coco_json.LAYERS
        __name__ = "coco_json"

        def read(self, *_: object) -> Iterator[ImageBatch]:
            raise AssertionError

    again = ingest.ingest(ShardStore(tmp_path), Unread(), files, name="d", split="train")  # type: ignore[arg-type]
    assert again == replace(before, committed=0)


@pytest.mark.parametrize("layer", coco_json.LAYERS)
def test_only_missing_shards_are_made(tmp_path, layer):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path, files, layer)
    whole = read_layer_files(tmp_path, layer)
    store = ShardStore(tmp_path)
    shards = store.list_shards("d", "train", layer)
    for shard in shards[::3]:
        (tmp_path / shard.relative_path).unlink()
    kept = {
        shard: (tmp_path / shard.relative_path).stat().st_mtime_ns for shard in store.list_shards("d", "train", layer)
    }
    report = ingest_layer(tmp_path, files, layer)
    assert report.committed == len(shards[::3]) and report.annotations == 3000
    assert read_layer_files(tmp_path, layer) == whole
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


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """Two competing ingests, killed four times or more: no half file, and in the end an undisturbed one's bytes."""
    files = write_annotations(tmp_path / "boxes.json", images=300, boxes=6000)
    started = time.monotonic()
    ingest_layer(tmp_path / "calm", files, "human", shard_size=5)
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
    assert ingest_layer(tmp_path / "wild", files, "human", shard_size=5).annotations == 6000
    assert read_layer_files(tmp_path / "wild", "human") == read_layer_files(tmp_path / "calm", "human")
    assert not list(folder.glob(".*"))
    assert partial, "no kill hit an ingest that was writing; the test shows nothing"


def test_another_file_is_refused(tmp_path):
    ingest_layer(tmp_path, write_annotations(tmp_path / "boxes.json"))
    whole = read_layer_files(tmp_path)
    files = write_annotations(tmp_path / "boxes.json", seed=1)
    with pytest.raises(
        SynthgenError, match=r"boxes.json is not what d/train/annotations was made from \(.*\); add --update"
    ):
        ingest_layer(tmp_path, files)
    assert read_layer_files(tmp_path) == whole


def test_another_shard_size_is_refused(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path, files)
    with pytest.raises(SynthgenError, match=r"was made with shard_size 0 \(now 7\); choose another --name, or delete"):
        ingest_layer(tmp_path, files, shard_size=7)


def test_a_layer_of_another_stage_is_refused(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    recipe = {"stage": "masks", "plugin": "grabcut", "dataset": "d"}
    ShardStore(tmp_path).commit(Shard("d", "train", "human", 0, 1), [], {"recipe": recipe, "fingerprint": "x"})
    with pytest.raises(SynthgenError, match=r"was made by another stage \(grabcut\)"):
        ingest_layer(tmp_path, files, "human")


def test_a_layer_that_the_dataset_does_not_have(tmp_path):
    with pytest.raises(SynthgenError, match=r"no layer 'masks' of its own \(have: annotations, human\)"):
        ingest_layer(tmp_path, write_annotations(tmp_path / "boxes.json"), "masks")


def test_a_file_that_changes_while_it_is_read(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")

    def touch(what: str, done: int, total: int) -> None:
        os.utime(files.sources["instances"], (1, 1))

    with pytest.raises(SynthgenError, match="changed while it was read; run the same command again"):
        ingest_layer(tmp_path / "s", files, on_progress=touch)
    assert not (tmp_path / "s").exists()


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(SynthgenError, match=r"cannot read .*gone.json \(No such file"):
        ingest_layer(tmp_path / "s", DatasetFiles({"instances": tmp_path / "gone.json"}, tmp_path))


def test_a_damaged_file_leaves_nothing(tmp_path):
    files = write_annotations(tmp_path / "boxes.json")
    text = files.sources["instances"].read_bytes()
    files.sources["instances"].write_bytes(text[: len(text) // 2])
    with pytest.raises(SynthgenError, match="the file ends inside record"):
        ingest_layer(tmp_path / "s", files)
    assert not (tmp_path / "s").exists()


def test_source_changed(tmp_path, monkeypatch):
    files = write_annotations(tmp_path / "boxes.json")
    path = files.sources["instances"]
    store = ShardStore(tmp_path)

    def changed() -> str | None:
        return ingest.describe_source_change(store, coco_json, files, name="d", split="train")

    assert changed() is None  # no layer yet
    ingest_layer(tmp_path, files)
    with monkeypatch.context() as patch:
        patch.setattr(source_digests, "RACY_SECONDS", 0)
        patch.setattr(source_digests, "file_sha256", lambda _: pytest.fail("an unchanged file is not read"))
        assert changed() is None
    os.utime(path, (1, 1))
    assert changed() is None  # the same content
    (store.layer_folder("d", "train", "annotations") / "_log" / "source.json").write_text("[1")
    assert changed() is None  # a diary may be damaged
    path.write_bytes(path.read_bytes().replace(b"c4", b"c9"))
    sentence = changed()
    assert sentence is not None and str(path) in sentence and "choose another --name" in sentence


def test_a_file_changed_with_its_size_and_time_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(source_digests, "RACY_SECONDS", 0)
    files = write_annotations(tmp_path / "boxes.json")
    path, store = files.sources["instances"], ShardStore(tmp_path)
    ingest_layer(tmp_path, files)
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"c4", b"c9"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    sentence = ingest.describe_source_change(store, coco_json, files, name="d", split="train")
    assert sentence is not None and str(path) in sentence
    with pytest.raises(SynthgenError, match="is not what d/train/annotations was made from"):
        ingest_layer(tmp_path, files)


def count_hashing(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed from here on."""
    hashed: list[Path] = []
    real = source_digests.file_sha256
    monkeypatch.setattr(source_digests, "file_sha256", lambda path: (hashed.append(path), real(path))[1])
    return hashed


def test_the_digest_of_a_file_that_was_just_written_is_not_trusted_once(tmp_path, monkeypatch):
    """It may be changed again within one tick of the clock. A later look finds it old enough."""
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path, files)
    hashed, real = count_hashing(monkeypatch), time.time_ns
    for hours, count in ((0, 1), (0, 2), (1, 3), (2, 3), (0, 3)):
        monkeypatch.setattr(time, "time_ns", lambda hours=hours: real() + hours * 3600 * 10**9)
        assert ingest.describe_source_change(ShardStore(tmp_path), coco_json, files, name="d", split="train") is None
        assert len(hashed) == count
    ingest_layer(tmp_path, files)
    assert len(hashed) == 3


def test_a_time_in_the_future_is_no_reason_to_hash_again_and_again(tmp_path, monkeypatch):
    files = write_annotations(tmp_path / "boxes.json")
    os.utime(files.sources["instances"], (4e9, 4e9))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)
    ingest_layer(tmp_path, files)
    hashed = count_hashing(monkeypatch)
    assert ingest.describe_source_change(ShardStore(tmp_path), coco_json, files, name="d", split="train") is None
    assert hashed == []


@pytest.mark.parametrize(
    "log",
    [
        "[1",
        "{}",
        '{"checked_ns": "x", "files": {}}',
        '{"checked_ns": 9e999, "files": {}}',
        '{"checked_ns": 1, "files": {"instances": [1]}}',
        '{"checked_ns": 1, "files": {"instances": [1, "2", null, 4, "x"]}}',
        '{"checked_ns": 1, "files": {"instances": [[1], 2, 3, 4, "x"]}}',
        '{"checked_ns": 1, "files": 3}',
        '{"instances": [SIZE, MTIME, "0000"]}',  # of an older release
    ],
)
def test_a_log_that_cannot_be_trusted_is_not(tmp_path, monkeypatch, log):
    files = write_annotations(tmp_path / "boxes.json")
    ingest_layer(tmp_path, files)
    found = files.sources["instances"].stat()
    path = ShardStore(tmp_path).layer_folder("d", "train", "annotations") / "_log" / "source.json"
    path.write_text(log.replace("SIZE", str(found.st_size)).replace("MTIME", str(found.st_mtime_ns)))
    hashed = count_hashing(monkeypatch)
    assert ingest.describe_source_change(ShardStore(tmp_path), coco_json, files, name="d", split="train") is None
    assert hashed == [files.sources["instances"]]


def test_progress_is_reported_in_order(tmp_path):
    files = write_annotations(tmp_path / "boxes.json", images=300, boxes=20_000)
    told: list[tuple[str, int, int]] = []
    ingest_layer(tmp_path, files, on_progress=lambda *now: told.append(now))
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


def test_crowds_become_objects_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1}
    content = {"images": [{"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}], "annotations": [box]}
    path.write_text(json.dumps({**content, "categories": [{"id": 1, "name": "cat"}]}))
    files = DatasetFiles({"instances": path}, tmp_path)
    plain = ingest_layer(tmp_path / "a", files)
    assert plain.flags == {"crowd": 1} and not plain.has_usable_box
    both = [
        ingest_layer(tmp_path / "b", files, crowds_as_objects=True),
        ingest_layer(tmp_path / "c", replace(files, crowds_as_objects=True)),
    ]
    assert both[0] == both[1] and both[0].flags == {} and both[0].has_usable_box
    recipes = {}
    for name in "abc":
        store = ShardStore(tmp_path / name)
        [shard] = store.list_shards("d", "train", "annotations")
        recipes[name] = (store.read_footer(shard) or {})["recipe"]
    assert recipes["b"] == recipes["c"] == {**recipes["a"], "crowds_as_objects": True}
    with pytest.raises(SynthgenError, match=r"with crowds_as_objects None \(now True\)"):
        ingest_layer(tmp_path / "a", files, crowds_as_objects=True)
    with pytest.raises(SynthgenError, match=r"with crowds_as_objects True \(now None\)"):
        ingest_layer(tmp_path / "b", files)
    crowds = replace(files, crowds_as_objects=True)
    stores = ShardStore(tmp_path / "a"), ShardStore(tmp_path / "b")
    told = [
        ingest.describe_source_change(s, coco_json, f, name="d", split="train") for s in stores for f in (files, crowds)
    ]
    assert told[0] is None and told[3] is None
    assert "was made without --crowds-as-objects" in str(told[1]) and "was made with --crowds" in str(told[2])
