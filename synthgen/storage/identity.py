"""The identity of a shard: its name, and what the footer of a file says that the file is, whatever its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthgen.errors import SynthgenError
from synthgen.storage.parquet_file import ForeignShardError

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_PLACE_TYPES: dict[str, type] = {"dataset": str, "split": str, "layer": str, "index": int, "num_shards": int}
_SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """The name of a shard: a slice of a dataset's images in one layer. It holds no open file."""

    dataset: str
    split: str
    layer: str
    index: int
    num_shards: int

    def __post_init__(self) -> None:
        for word in (self.dataset, self.split, self.layer):
            check_name(word)

    def __str__(self) -> str:
        return f"{self.dataset}/{self.split}/{self.layer}/{self.index:05d}-of-{self.num_shards:05d}"

    @property
    def relative_path(self) -> str:
        """Its path below the root of the store."""
        return f"{self}.parquet"

    def in_layer(self, layer: str) -> Shard:
        """The same slice of images in another layer."""
        return replace(self, layer=layer)


@dataclass(frozen=True, slots=True)
class ShardIdentity:
    """What a file is, whatever its name; the member "identity" of its footer.

    Attributes:
        shard: the shard that was written.
        num_rows: its images.
        content_sha256: the digest of its rows, see `records.content_digest`.
    """

    shard: Shard
    num_rows: int
    content_sha256: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        place = {name: getattr(self.shard, name) for name in _PLACE_TYPES}
        return {**place, "num_rows": self.num_rows, "content_sha256": self.content_sha256}


def check_name(name: str) -> str:
    """Return `name` if it is a valid name of a dataset, a split or a layer, which is a folder of the store.

    Args:
        name: any text, from the user or from a footer.

    Raises:
        SynthgenError: it is not valid, or would leave the store.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise SynthgenError(
            f"'{name}' cannot name a dataset, split or layer; use at most 200 letters, digits, '.', '_' and '-'"
        )
    return name


def parse_identity(footer: Mapping[str, Any]) -> ShardIdentity | None:
    """The identity in a footer; None = the shard is of an older release.

    Args:
        footer: our part of a shard's footer, as JSON.

    Raises:
        ArrowInvalid: it is none.
    """
    if (found := footer.get("identity")) is None:
        return None
    kinds = {**_PLACE_TYPES, "num_rows": int, "content_sha256": str}
    if any(type(found.get(name)) is not kind for name, kind in kinds.items()):
        raise pa.ArrowInvalid("the identity in its synthgen footer is incomplete")
    *place, num_rows, digest = (found[name] for name in kinds)
    if not all(map(NAME_PATTERN.fullmatch, place[:3])) or not _SHA256_PATTERN.fullmatch(digest):
        raise pa.ArrowInvalid("the identity in its synthgen footer is none")
    return ShardIdentity(Shard(*place), num_rows, digest)


def is_stale(footer: Mapping[str, Any], parent_sha256: str | None) -> bool:
    """Whether a shard was made from other rows than those of its parent shard now; False if either is unknown.

    Args:
        footer: the shard's.
        parent_sha256: the content digest of its parent shard now.
    """
    made_from = parent_digest(footer)
    return made_from is not None and parent_sha256 is not None and made_from != parent_sha256


def parent_digest(footer: Mapping[str, Any]) -> str | None:
    """The content digest of the parent rows that a shard was made from, by its `footer`; None = unknown, as in older
    releases.
    """
    digest = (footer.get("parent") or {}).get("content_sha256")
    return digest if isinstance(digest, str) else None


def parent_shard(shard: Shard, footer: Mapping[str, Any]) -> Shard | None:
    """The shard that a shard was made from; None = from annotation files.

    Args:
        shard: the shard itself.
        footer: our part of its footer, as JSON.
    """
    layer = (footer.get("parent") or {}).get("layer")
    return shard.in_layer(layer) if isinstance(layer, str) and NAME_PATTERN.fullmatch(layer) else None


def content_digest_of(footer: Mapping[str, Any]) -> str | None:
    """The digest of a shard's own rows, from its footer; None = unknown, as in older releases."""
    identity = parse_identity(footer)
    return None if identity is None else identity.content_sha256


def check_identity(path: Path, shard: Shard, footer: Mapping[str, Any], num_rows: int) -> None:
    """Check that the file at a place is the shard that belongs there. Shards of older releases do not say.

    Args:
        path: place of the file, for the error message.
        shard: which one belongs there.
        footer: our part of the file's footer, as JSON.
        num_rows: rows according to the Parquet footer.

    Raises:
        ForeignShardError: it is another one.
        ArrowInvalid: the identity contradicts the file.
    """
    if (identity := parse_identity(footer)) is None:
        return
    if identity.num_rows != num_rows:
        raise pa.ArrowInvalid(f"it has {num_rows:,} rows of {identity.num_rows:,}")
    if (other := identity.shard) != shard:
        is_renamed = (other.index, other.num_shards) == (shard.index, shard.num_shards)
        layer = f"{shard.dataset}/{shard.split}/{shard.layer}"
        adopt = f", or adopt a folder renamed on purpose: `synthgen migrate {layer} --rename`" if is_renamed else ""
        raise ForeignShardError(f"{path} is the shard {other}; move it there or out of the store{adopt}")
