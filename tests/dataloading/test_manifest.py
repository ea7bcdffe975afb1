"""Manifests: values, defaults, paths of the store, files that are no manifest."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest
from fakes.manifest_files import check_text, manifest_with_source
from hypothesis import given
from hypothesis import strategies as st

from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.manifest_check import ManifestReport
from synthgen.dataloading.source_config import TrainSource
from synthgen.errors import SynthgenError
from synthgen.storage.shard_store import Shard

GOOD = "{shards: coco/train2017/human, task: instance}"


def test_thousands_of_mistakes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("name: x\nmixture:\n" + "  - 3\n" * 2_000)
    with pytest.raises(SynthgenError) as why:
        load_manifest(path)
    lines = str(why.value).splitlines()
    assert lines[0] == f"{path} has 2,000 mistakes"
    assert len(lines) == 102
    assert lines[-1] == "  ... and 1,900 more"


@pytest.mark.parametrize("place", ["shards: a/b/{}, task: instance", "shards: a/b/c, task: {}", "{}: 1", "shards: {}"])
def test_a_long_word_makes_a_short_message(tmp_path: Path, place: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(manifest_with_source(place.format("w" * 70_000)))
    with pytest.raises(SynthgenError) as why:
        load_manifest(path)
    assert all(len(line) < 400 for line in str(why.value).splitlines())


@pytest.mark.parametrize("folder_name", ["words", "./words", "sub/../words"])
def test_a_captioners_words_are_a_folder_whatever_it_is_called(folder: Path, folder_name: str) -> None:
    more = f"captioner: {{weights: random, train_embeddings: true, tokenizer: {folder_name}}}"
    found = check_text(folder, manifest_with_source("shards: coco/train2017/captions, task: captioning", more))
    assert isinstance(found, ManifestReport), found
    assert found.manifest.captioner is not None
    assert found.manifest.captioner.tokenizer == f"{folder}/{folder_name}"


def test_a_manifest_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "m.yaml"
    path.parent.mkdir()
    path.write_text(
        """
name: x_1.0
seed: 7
store: ../shards
mixture:
  - {shards: coco/train2017/captions, task: referring, ratio: 3, images: photos, share: 0.3, min_box_iou: 0.5,
     drop_reasons: [only_category, repeats], caption_sources: [human, ofa base], mask_weight: box_iou, max_texts: 20}
exclude: [exclude/a.txt, /abs/b.txt]
augment: {size: 512, scale: [0.5, 1]}
model: {backbone: resnet50, queries: learnable, learnable_queries: 400}
schedule: {steps: 90_000, lr: 1e-4, milestones: [0.5], max_grad_norm: null, ema_decay: 0.999}
dataloader: {num_workers: 0}
"""
    )
    found = load_manifest(path)
    assert found == Manifest.model_validate_json(found.model_dump_json())  # nothing is lost
    assert (found.name, found.seed, found.store) == ("x_1.0", 7, path.parent / "../shards")
    (one,) = found.mixture
    assert isinstance(one, TrainSource)
    assert (one.ratio, one.share, one.images, one.min_box_iou) == (3.0, 0.3, path.parent / "photos", 0.5)
    assert (one.drop_reasons, one.caption_sources) == (("only_category", "repeats"), ("human", "ofa base"))
    assert found.exclude == (path.parent / "exclude/a.txt", Path("/abs/b.txt"))
    assert (found.augment.size, found.augment.scale, found.augment.flip) == (512, (0.5, 1.0), 0.5)
    assert (found.model.queries, found.model.learnable_queries) == ("learnable", 400)
    assert (found.schedule.steps, found.schedule.lr, found.schedule.max_grad_norm) == (90_000, 1e-4, None)
    assert found.schedule.backbone_lr == 2e-5
    assert (found.dataloader.num_workers, found.dataloader.cache_mib) == (0, 0)
    assert pickle.loads(pickle.dumps(found)) == found  # it travels to worker processes


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(f"name: x\nmixture: [{GOOD}]\n")
    found = load_manifest(tmp_path / "m.yaml")
    assert (found.model.queries, found.model.learnable_queries, found.model.conditional_queries) == ("mixed", 100, 300)
    schedule = found.schedule
    assert (schedule.lr, schedule.backbone_lr, schedule.warmup_steps, schedule.weight_decay) == (2e-4, 2e-5, 10, 0.05)
    assert (schedule.milestones, schedule.batch_size, schedule.max_grad_norm) == ((0.9, 0.95), 32, 0.01)
    assert abs(schedule.steps * schedule.batch_size / 118_287 - 50) < 1  # epochs of COCO


def test_who_says_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"name: x\nmixture: [{GOOD}]\n")
    monkeypatch.delenv("SYNTHGEN_STORE", raising=False)
    assert load_manifest(path).store == Path("shards")
    monkeypatch.setenv("SYNTHGEN_STORE", "/of/the/environment")
    assert load_manifest(path).store == Path("/of/the/environment")
    path.write_text(f"name: x\nstore: own\nmixture: [{GOOD}]\n")
    assert load_manifest(path).store == tmp_path / "own"
    assert load_manifest(path, store=Path("flag")).store == Path("flag")


def test_the_first_share_of_a_layer_is_by_its_plan() -> None:
    shards = [Shard("a", "b", "c", i, 10) for i in range(10)]
    third = TrainSource(shards="a/b/c", task="instance", share=0.3)
    assert third.select_shards(shards) == shards[:3]
    assert third.select_shards(shards[2:]) == shards[2:3]  # what is not there yet leaves the others as they are
    assert TrainSource(shards="a/b/c", task="instance", share=0.01).select_shards(shards) == shards[:1]
    assert TrainSource(shards="a/b/c", task="instance").select_shards(shards) == shards


def test_places_that_hold_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(SynthgenError, match=r"no manifest .*nix; check its name"):
        load_manifest(tmp_path / "nix")
    with pytest.raises(SynthgenError, match="is a folder; name a manifest"):
        load_manifest(tmp_path)
    with pytest.raises(SynthgenError, match="is no ordinary file"):
        load_manifest(Path("/dev/zero"))
    (tmp_path / "latin.yaml").write_bytes("name: größe".encode("latin-1"))
    with pytest.raises(SynthgenError, match=r"is no text in UTF-8 \(byte 8\)"):
        load_manifest(tmp_path / "latin.yaml")
    (tmp_path / "wide.yaml").write_text("name: x", encoding="utf-16")
    with pytest.raises(SynthgenError, match="is no text in UTF-8"):
        load_manifest(tmp_path / "wide.yaml")


def test_a_file_of_a_gibibyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(2**30)
    begun = time.process_time()
    with pytest.raises(SynthgenError, match="is larger than"):
        load_manifest(path)
    assert time.process_time() - begun < 0.5


@given(st.text())
def test_any_text_is_a_manifest_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(SynthgenError):
        load_manifest(path)
