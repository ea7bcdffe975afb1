"""Sharding: shards equal to a plain dictionary's, whatever the order of the file; automatic shard size."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.ingest_runs import ingest_layer, write_annotations
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, ImageBatch, SourceFinding, coco_json
from synthgen.ingest import external_sort, image_table
from synthgen.ingest.sharding import split_into_shards
from synthgen.storage.shard_store import ShardStore


def samples(store: Path, layer: str = "annotations") -> list[Any]:
    found = ShardStore(store)
    return [sample for shard in found.list_shards("d", "train", layer) for sample in found.read_samples(shard)]


@st.composite
def datasets(draw: st.DrawFn) -> list[ImageBatch | AnnotationBatch | Categories]:
    """Batches in any order.

    Image ids repeat, with one file name or two; annotations have images that are not listed, payloads or none.
    """
    extremes = st.sampled_from([-(2**63), 2**63 - 1, -1, 0])
    identity = st.one_of(st.integers(0, 30), extremes)
    with_payloads, looked_over = draw(st.booleans()), draw(st.booleans())
    batches: list[ImageBatch | AnnotationBatch | Categories] = [Categories({1: "one"}), Categories({2: "two"})]
    for ids in draw(st.lists(st.lists(identity, max_size=12), max_size=3)):
        names = [f"{i}{draw(st.sampled_from(['', '', '', 'b']))}.jpg" for i in ids]
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
    images: list[tuple[int, int, str]] = []  # (id, place in the stream, file name)
    firsts: dict[int, str] = {}
    place_of_image = 0
    lacking: list[list[int]] = []  # category ids, by place
    owned: dict[int, list[tuple[int, int, list[float], int, bool, bytes | None]]] = {}
    place = 0
    for batch in batches:
        if isinstance(batch, ImageBatch):
            for i, name in zip(batch.image_id.tolist(), batch.file_name, strict=True):
                if firsts.get(i) != name:  # an image that is listed again with its name is one row
                    firsts.setdefault(i, name)
                    images.append((i, place_of_image, name))
                place_of_image += 1
            lacking += batch.neg_categories or []
        elif isinstance(batch, AnnotationBatch):
            for k, owner in enumerate(batch.image_id.tolist()):
                payload = batch.payload[k] if batch.payload is not None else None
                row = (int(batch.id[k]), place, batch.bbox[k].tolist(), int(batch.category[k]), bool(batch.iscrowd[k]))
                owned.setdefault(owner, []).append((*row, payload))
                place += 1
    listed = set(firsts)
    repeated = place_of_image - len(images)
    conflicts = len(images) - len(listed)
    images += [(i, place_of_image + k, "") for k, i in enumerate(sorted(set(owned) - listed))]
    reported: list[SourceFinding] = []
    options: dict[str, Any] = {"expected_bytes": expect, "shard_size": shard_size, "report": reported.append}
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "MAX_RUN_BYTES", bound)
        patch.setattr(external_sort, "_BLOCK_RECORDS", 7)
        patch.setattr(external_sort, "_MAX_RANGES", 5)
        patch.setattr(image_table, "_MAX_BITMAP_SIZE", bound)
        if not images:
            with pytest.raises(SynthgenError, match="list no images"):
                next(split_into_shards(batches, "d", Path(scratch), **options))
            return
        cuts = list(split_into_shards(batches, "d", Path(scratch), **options))
        assert list(Path(scratch).iterdir()) == []  # what is read back is deleted
    assert {one.code: one.count for one in reported} == {
        code: count for code, count in (("same_image_id", conflicts), ("repeated_image", repeated)) if count
    }
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
            image_id, position, name = next(rows)
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
            assert key == (f"d/{name}" if known else f"d/unlisted/{image_id}")
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
    ingest_layer(tmp_path / "a", write_annotations(tmp_path / "a.json"), layer)
    ingest_layer(tmp_path / "b", write_annotations(tmp_path / "b.json", order=order), layer)
    assert samples(tmp_path / "a", layer) == samples(tmp_path / "b", layer)


def test_auto_shard_size(tmp_path):
    for images, shards in ((1, 1), (17, 2), (1024, 64), (6400, 64), (64_001, 65)):
        batch = ImageBatch(
            np.arange(images), [f"{i}.jpg" for i in range(images)], [""] * images, *[np.ones(images, int)] * 2
        )
        assert next(split_into_shards([batch], "d", tmp_path)).num_shards == shards
