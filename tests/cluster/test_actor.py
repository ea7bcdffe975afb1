"""Errors of an actor that cannot start."""

from __future__ import annotations

import pytest

from synthgen.generate.job import Job

pytest.importorskip("ray", reason="Ray is not installed")

from synthgen.cluster import actor


@pytest.mark.parametrize("flag", ["--store", "--images"])
def test_a_node_says_what_it_does_not_see(tmp_path, flag):
    places = {"--store": tmp_path, "--images": tmp_path} | {flag: tmp_path / "elsewhere"}
    told = actor.WorkerActor(
        Job("masks", "d", "train", "annotations", "masks", "box_fill", *places.values(), {})
    ).start()
    assert told is not None
    assert told.startswith("node ")
    wanted = f"does not see {tmp_path / 'elsewhere'}; all nodes must reach the same {flag} by the same path"
    assert told.endswith(wanted)
