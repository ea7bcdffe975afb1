"""All readers: each is a plugin, validation reads each, its flags are in the schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.sample import ANNOTATION_FLAGS

Shared = Callable[[str], Path]


@pytest.mark.parametrize("name", plugins.list_plugins("formats.readers"))
def test_every_reader_is_a_dataset(name: str, tmp_path: Path) -> None:
    module: Any = plugins.load_plugin("formats.readers", name)
    assert module.__doc__ and "\n" not in module.__doc__.splitlines()[0]
    assert module.SPLITS and module.LAYERS[0] == "annotations"
    assert callable(module.read) and (len(module.LAYERS) == 1 or callable(module.complete))
    for split in module.SPLITS:
        with pytest.raises(SynthgenError) as why:
            module.files(tmp_path / "nowhere", split, None)
        assert "\n" not in str(why.value)


@pytest.mark.parametrize("name", plugins.list_plugins("formats.readers"))
def test_a_reader_that_examines_masks_has_all_that_it_takes(name: str) -> None:
    module: Any = plugins.load_plugin("formats.readers", name)
    if not hasattr(module, "mask_problems"):
        return
    assert "human" in module.LAYERS
    for payload, flags in ((b"[[1, 1, 5, 1, 5, 5]]", set()), (b"[[1]]", {"bad_segmentation"})):
        found = module.mask_problems(payload, 9, 9)
        assert set(found) == flags <= set(ANNOTATION_FLAGS) and all(found.values())
        assert module.mask_problems(module.shorten_mask(payload), 9, 9) == found


def test_flags_are_in_the_contract() -> None:
    assert {"part", "bad_segmentation", "no_box"} <= set(ANNOTATION_FLAGS)


def test_the_doctor_reads_them_all(tmp_path: Path, shared: Shared) -> None:
    for name, folder, counts in (
        ("ade20k", "data/ade20k_sample", (3, 25)),
        ("ade20k_full", "data/ade20k_sample", (3, 139)),
        ("foreground", "data/davis2016", (91, 91)),
        ("semantic_folder", "data/camvid", (74, 713)),
    ):
        found = validate_dataset(name, shared(folder))
        [split] = found.splits
        assert found.is_ready and (split.images, split.boxes) == counts
        assert not {f.code for f in split.findings} - {"unused_category", "part", "same_annotation_id_elsewhere"}


def test_the_doctors_next_command_names_the_split_that_is_there(shared: Shared) -> None:
    found = validate_dataset("ade20k", shared("data/ade20k_sample"))
    assert found.next.endswith("--split validation")
