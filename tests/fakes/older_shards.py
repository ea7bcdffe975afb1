"""Shards as older releases wrote them: no identity, no digest of the footer, none of the parent's rows."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow.parquet as pq

from synthgen.storage.shard_store import Shard, ShardStore


def make_older(store: ShardStore, shards: Iterable[Shard]) -> None:
    for shard in shards:
        path, footer = store.root / shard.relative_path, dict(store.read_footer(shard) or {})
        if footer.get("parent"):
            footer["parent"] = {key: footer["parent"][key] for key in ("layer", "fingerprint")}
        footer.pop("identity")
        with pq.ParquetFile(path) as file:
            table, groups = file.read(), file.metadata.num_row_groups
            rows = (file.metadata.row_group(0).num_rows if groups else 0) or 64
        text = json.dumps(footer, sort_keys=True, ensure_ascii=False)
        pq.write_table(
            table.replace_schema_metadata({b"synthgen": text}), path, row_group_size=rows, compression="zstd"
        )
