"""Counts of samples: they travel in parts and add up."""

from __future__ import annotations

import json

from synthgen.dataloading.sample_stats import MAX_NAMED_FAILURES, SampleStats


def test_counts_travel_in_parts_and_add_up() -> None:
    whole, reader, host = SampleStats(["a", "b"]), SampleStats(["a", "b"]), SampleStats(["a", "b"])
    for i in range(50):
        for seen in (whole, reader):
            seen.count(i % 2, {"images": 1, "mask/no_score": i})
            seen.record_failure(i % 2, f"{i}.png: \x1b[31m gone")
        if i % 7 == 0:
            host.merge_state(json.loads(json.dumps(reader.pop_state())))
            assert reader.state_dict() == {"counts": [{}, {}], "names": [[], []]}
    host.merge_state(reader.pop_state())
    assert host.state_dict() == whole.state_dict() and host.format_table() == whole.format_table()
    assert len(host.failures[0]) == MAX_NAMED_FAILURES and "\x1b" not in "".join(host.format_table())
    again = SampleStats(["a", "b"])
    again.merge_state(json.loads(json.dumps(host.state_dict())))
    assert again.state_dict() == host.state_dict()
