"""Manifests with key names of earlier versions: they read as with the new names, and one warning lists these."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from synthgen.dataloading.manifest import OTHER_NETWORKS, Manifest, load_manifest
from synthgen.dataloading.renamed_keys import RENAMED_KEYS, find_renamed_keys, rename_manifest_keys
from synthgen.errors import SynthgenError

OLD = """
name: old
mixture: [{shards: coco/train2017/human, task: instance}]
augment: {crop_semantic: 256, semantic_long: 1024, semantic_colours: false}
model: {dim: 64, levels: 3, encoder_feedforward: 128, denoising: 2}
schedule: {accumulate: 2, clip: 0.5, ema: 0.99, checkpointing: true, keep: 1}
readers: {workers: 0}
"""

NEW = """
name: old
mixture: [{shards: coco/train2017/human, task: instance}]
augment: {semantic_crop_size: 256, semantic_max_size: 1024, semantic_color_jitter: false}
model: {hidden_dim: 64, num_feature_levels: 3, encoder_dim_feedforward: 128, denoising_groups: 2}
schedule: {accumulation_steps: 2, max_grad_norm: 0.5, ema_decay: 0.99, activation_checkpointing: true,
  keep_checkpoints: 1}
dataloader: {num_workers: 0}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.yaml"
    path.write_text(text)
    return path


def test_old_keys_read_as_the_new_ones(tmp_path: Path) -> None:
    assert load_manifest(write(tmp_path, OLD)) == load_manifest(write(tmp_path, NEW))


def test_old_keys_of_a_captioner_read_as_the_new_ones(tmp_path: Path) -> None:
    source = "name: x\nmixture: [{shards: coco/train2017/captions, task: captioning}]\n"
    old = write(tmp_path, source + "captioner: {weights: random, words: ./words, train_words: true, regions: 4}\n")
    found = load_manifest(old).captioner
    assert found is not None
    assert (found.tokenizer, found.train_embeddings, found.regions_per_image) == (f"{tmp_path}/./words", True, 4)


def test_one_warning_names_each_old_key_with_its_new_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, OLD)
    with caplog.at_level(logging.WARNING):
        load_manifest(path)
        load_manifest(path)
    (message,) = caplog.messages
    for section, names in RENAMED_KEYS.items():
        if section != "captioner":
            prefix = f"{section}." if section else ""
            assert all(f"{prefix}{old} is now {prefix}{new}" in message for old, new in names.items())


def test_new_keys_give_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_manifest(write(tmp_path, NEW))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (OLD.replace("clip: 0.5", "clip: 0.5, max_grad_norm: 0.5"), r"schedule\.clip: no such key"),
        (OLD + "dataloader: {num_workers: 1}\n", r"readers: no such key"),
        (OLD.replace("dim: 64", "dim: 33"), r"model\.hidden_dim: should be a multiple of 32, got 33"),
        (OLD.replace("dim: 64", "dim: 64, dim: 32"), r"model\.dim: said 2 times"),
    ],
)
def test_errors_in_old_keys_are_reported(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SynthgenError, match=sentence):
        load_manifest(write(tmp_path, text))


def test_every_new_name_is_a_key_and_no_old_name_is() -> None:
    for section, names in RENAMED_KEYS.items():
        kind = OTHER_NETWORKS.get(section) if section else Manifest
        kind = kind or type(Manifest.model_fields[section].default)
        keys = set(getattr(kind, "model_fields", None) or kind.__dataclass_fields__)
        assert set(names.values()) <= keys
        assert not names.keys() & keys


def test_values_of_any_type_are_kept() -> None:
    odd = {"model": 3, "schedule": None, "readers": [1], "augment": {"dim": 1}}
    assert rename_manifest_keys(odd) == {"model": 3, "schedule": None, "dataloader": [1], "augment": {"dim": 1}}
    assert list(find_renamed_keys(odd)) == [("readers", "dataloader")]
