"""Too long names and phrases: an error that names the place, or a row with a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes.ingest_runs import ingest_layer
from fakes.peak_memory import linux_only

from synthgen.errors import SynthgenError
from synthgen.formats.readers import Categories, DatasetFiles, ImageBatch
from synthgen.ingest import text_limits
from synthgen.ingest.text_limits import check_captions, check_category_names, shorten_file_names
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.sample import Annotation, Caption, Sample
from synthgen.storage.shard_store import ShardStore


def write_file(path: Path, *, category: str = "cat", file_names: tuple[str, ...] = ("1.jpg",), boxes: int = 1) -> Path:
    content = {
        "images": [{"id": i, "file_name": name, "height": 90, "width": 90} for i, name in enumerate(file_names)],
        "categories": [{"id": 7, "name": category}],
        "annotations": [{"id": i, "image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4]} for i in range(boxes)],
    }
    path.write_text(json.dumps(content))
    return path


def test_a_category_name_that_is_too_long_is_refused_with_its_place(tmp_path):
    path = write_file(tmp_path / "boxes.json", category="x" * 1001)
    told = (
        rf"{path}: the name of category 7 has 1,001 characters \('x{{40}}\.\.\.'\), and at most 1,000 are allowed; "
        "shorten it in the file"
    )
    with pytest.raises(SynthgenError, match=told):
        ingest_layer(tmp_path / "store", DatasetFiles({"instances": path}, tmp_path))
    with pytest.raises(SynthgenError, match=told):
        validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path, check_images="none")
    assert not ShardStore(tmp_path / "store").list_layers()
    write_file(path, category="x" * 1000)
    assert ingest_layer(tmp_path / "store", DatasetFiles({"instances": path}, tmp_path)).committed == 1


def test_outer_blanks_count_too():
    with pytest.raises(SynthgenError, match="the name of category 3 has 2,001 characters"):
        check_category_names(Categories({3: "x"}, padded={3: "x" + " " * 2000}), "a file")
    check_category_names(Categories({3: "x"}, padded={3: "x" + " " * 999}), "a file")


def test_a_file_name_that_no_file_can_have_is_the_error_of_its_row(tmp_path):
    long = ["a/" * 2048 + "x", "a/" * 2048 + "y", "é" * 2048]
    path = write_file(tmp_path / "boxes.json", file_names=("1.jpg", *long))
    ingest_layer(tmp_path / "store", DatasetFiles({"instances": path}, tmp_path))
    store = ShardStore(tmp_path / "store")
    (shard,) = store.list_shards("d", "train", "annotations")
    first, *others, last = store.read_samples(shard)
    assert first.error is None and last.error is None and last.file_name == long[2], "4,096 bytes may be"
    assert [one.error for one in others] == ["its file name has 4,097 bytes, more than a path can have"] * 2
    names = [one.file_name for one in others]
    assert len(set(names)) == 2 and all(name.startswith("a/a/") and len(name) == 167 for name in names)
    assert len({one.image_key for one in others}) == 2 and max(len(one.image_key) for one in others) < 200


def test_a_readers_own_error_and_key_stay():
    size = np.zeros(2, np.int32)
    batch = ImageBatch(np.arange(2), ["x" * 5000, "y"], ["k" * 5000, ""], size, size, ["broken", None])
    short = shorten_file_names(batch)
    assert short.error == ["broken", None] and short.file_name[1] == "y" and short.image_key[1] == ""
    assert len(short.image_key[0]) == 167
    ordinary = ImageBatch(np.arange(1), ["x" * 1000], [""], size[:1], size[:1])
    assert shorten_file_names(ordinary) is ordinary


def test_a_phrase_that_is_too_long_is_refused(monkeypatch):
    def sample(length: int) -> Sample:
        spoken = Caption("x" * length, "human")
        return Sample(1, "d/1", "1.jpg", 9, 9, (Annotation(5, (0, 0, 1, 1), "cat", captions=(spoken,)),))

    check_captions(sample(10_000), "refs.json")
    with pytest.raises(SynthgenError, match=r"refs\.json: a phrase of annotation 5 has 10,001 characters \('xx.*short"):
        check_captions(sample(10_001), "refs.json")


MEMORY = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from fakes.ingest_runs import ingest_layer
from fakes.peak_memory import measure_rise
from synthgen.formats.readers import DatasetFiles
with measure_rise() as rise:
    try:
        ingest_layer(Path({root!r}, "store"), DatasetFiles({{"instances": Path({path!r})}}, Path({root!r})))
    except Exception as why:
        print(type(why).__name__)
print(rise.mib)
"""


@linux_only
@pytest.mark.parametrize(("characters", "boxes", "limit_mib"), [(1_000_000, 1500, 40), (1000, 50_000, 200)])
def test_a_name_on_many_boxes_does_not_fill_the_memory(tmp_path, characters, boxes, limit_mib):
    """One of a million characters took 2.4 GiB."""
    path = write_file(tmp_path / "boxes.json", category="x" * characters, boxes=boxes)
    program = MEMORY.format(tests=str(Path(__file__).parents[1]), root=str(tmp_path), path=str(path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *error, grown = done.stdout.split()
    assert error == (["SynthgenError"] if characters > text_limits.MAX_CATEGORY_CHARS else [])
    assert float(grown) < limit_mib
