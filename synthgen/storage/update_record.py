"""The record of a layer's updates: which version of the annotation files its shards hold, and which images belong in
each shard.

An update replaces only the shards whose rows change, so the recipes of the others name earlier files. The record says
what all of them together hold, by the digests of their rows. It is written before the first shard is replaced and after
the last one: a layer with a record without digests was left in the middle of an update, and nothing reads it.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from synthgen.errors import SynthgenError
from synthgen.storage.atomic import write_text_atomic

#: Name of the file in the layer's folder.
RECORD_NAME = "_update.json"

#: What an update does with images that the annotation files do not list any more.
REMOVED_CHOICES = ("drop", "keep")

_MAX_BYTES = 2**28
_SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """An update of a layer that an ingest made.

    Attributes:
        sources: SHA-256 of the annotation files by role.
        image_names: the digest of matched file names; None = names are not matched.
        removed: one of `REMOVED_CHOICES`.
        first_ids: the least image id that belongs in each shard but the first. It stays the same in all later updates.
        digests: the digest of the rows of each shard; None = the update is not finished.
    """

    sources: Mapping[str, str]
    image_names: str | None
    removed: str
    first_ids: Sequence[int]
    digests: Sequence[str] | None = None

    def holds(self, index: int, digest: str) -> bool:
        """Whether a shard may have these rows: those of the finished update, or any while it is not finished.

        Args:
            index: of the shard.
            digest: of its rows.
        """
        return self.digests is None or (index < len(self.digests) and self.digests[index] == digest)


def read_update_record(folder: Path) -> UpdateRecord | None:
    """The record of the layer in `folder`; None = the layer was never updated.

    Args:
        folder: the layer's folder; it may be missing. The record is not trusted.

    Raises:
        SynthgenError: the record is damaged.
    """
    path = folder / RECORD_NAME
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
        return _parse_record(found)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as why:
        if why.errno == errno.ENAMETOOLONG:  # whoever writes there says it
            return None
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check its permissions") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise SynthgenError(f"{path} is damaged; delete it, and ingest the dataset again with --update") from None


def write_update_record(folder: Path, record: UpdateRecord) -> None:
    """Write the record of the layer in `folder` atomically. The same record gives the same bytes.

    Args:
        folder: the layer's folder, which must exist.
        record: what to write.
    """
    write_text_atomic(folder / RECORD_NAME, json.dumps({"version": 1, **asdict(record)}, sort_keys=True))


def describe_unfinished(folder: Path) -> str | None:
    """A sentence if the layer in `folder` was left in the middle of an update; None if not.

    Args:
        folder: the layer's folder; it may be missing.

    Raises:
        SynthgenError: the record is damaged.
    """
    record = read_update_record(folder)
    if record is None or record.digests is not None:
        return None
    return (
        f"an update of {folder} has not finished, so its shards are of two versions of the annotation files; "
        "run the command that updates it again, with --update"
    )


def _parse_record(found: Any) -> UpdateRecord:
    """The record in parsed JSON; another exception than `SynthgenError` if it is not valid."""
    sources, names, removed = found["sources"], found["image_names"], found["removed"]
    first_ids, digests = found["first_ids"], found["digests"]
    is_valid = (
        found["version"] == 1
        and all(isinstance(text, str) for text in (*sources.keys(), *sources.values()))
        and isinstance(names, str | None)
        and removed in REMOVED_CHOICES
        and all(type(number) is int and -(2**63) <= number < 2**63 for number in first_ids)
        and all(low <= high for low, high in pairwise(first_ids))
        and (digests is None or (len(digests) == len(first_ids) + 1 and all(map(_SHA256_PATTERN.fullmatch, digests))))
    )
    if not is_valid:
        raise ValueError
    return UpdateRecord(sources, names, removed, tuple(first_ids), digests if digests is None else tuple(digests))
