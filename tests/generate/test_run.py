"""Runs of a job: what their log counts."""

from __future__ import annotations

from pathlib import Path

from fakes.mask_jobs import do, make_job


def test_the_diary_counts_what_happened(tmp_path: Path) -> None:
    import json

    job = make_job(tmp_path)
    (tmp_path / "photos" / "0005.png").unlink()
    do(job)
    folder = tmp_path / "store/world/train/masks/_log"
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [m["masks"] for m in metrics] == [8, 0, 8]
    assert [m["error"] is None for m in metrics] == [True, False, True]
    failures = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    assert [f["shard"] for f in failures] == ["world/train/masks/00001-of-00003"]
    status = json.loads((folder / "status.json").read_text())
    assert (status["committed"], status["failed"], status["masks"]) == (2, 1, 16)
