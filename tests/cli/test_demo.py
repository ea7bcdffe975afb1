"""`synthgen demo` runs the other commands to their end."""

from __future__ import annotations

import re

import pytest

from synthgen.storage.shard_store import ShardStore


@pytest.mark.slow
def test_the_demo_ends_with_captions_and_a_network_that_learned_them(synthgen, tmp_path):
    code, told = synthgen("demo", "--folder", "demo")
    assert code == 0, told
    store = ShardStore(tmp_path / "demo/shards")
    assert [layer for _, _, layer in store.list_layers()] == ["annotations", "captions", "masks"]
    (shard,) = store.list_shards("demo", "train", "captions")
    flat = [a for s in store.read_samples(shard) for a in s.annotations]
    assert sum(bool(a.captions and a.segmentation) for a in flat) == len(flat) - 1  # a crowd
    galaxies = [c.text for a in flat if a.category == "galaxy" for c in a.captions]
    assert galaxies
    assert not any(text.startswith("the ") for text in galaxies)  # there are more of them than are boxed
    assert (tmp_path / "demo/pictures/sheet.png").exists()
    assert len(list((tmp_path / "demo/training").glob("*.png"))) == 13
    for task in ("instance", "referring", "detection", "foreground"):  # what the model saw
        assert re.search(rf"demo/train/\w+ {task} +\d+\.\d\d %", told), told
    assert re.search(r"masks refused: \d+ stability_score", told)
    assert "400 steps learned; the network is demo/run/step-00000400.pt" in told
    assert float(re.search(r"AP50 +(\d+\.\d+)", told)[1]) > 60  # of what it learned by heart
    assert (tmp_path / "demo/predictions/coffee.jpg.found.png").exists()
    assert "Look at demo/training/sheet.png" in told
    assert "\n  synthgen show  demo/toy.yaml\n" in told
