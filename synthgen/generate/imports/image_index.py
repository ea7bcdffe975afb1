"""Finds the image of a layer by its id or file name, in some 40 bytes an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from synthgen.ingest.folder_listing import file_hashes
from synthgen.storage.shard_store import Shard, ShardStore


class ImageIndex:
    """The images of a layer, numbered through all shards. Names are compared by their hashes.

    Attributes:
        starts: int64 [S + 1]; shard s has the images [starts[s], starts[s + 1]).

    Args:
        store: where the shards lie.
        shards: the layer's, in order.
        stems: names are compared without their suffix.
    """

    def __init__(self, store: ShardStore, shards: Sequence[Shard], *, stems: bool = False) -> None:
        self._stems = stems
        ids: list[NDArray[np.int64]] = []
        names: list[NDArray[np.int64]] = []
        bases: list[NDArray[np.int64]] = []
        counts = []
        for shard in shards:
            count = 0
            for batch in store.read_columns(shard, ["image_id", "file_name"]):
                ids.append(np.array(batch.column("image_id").to_pylist(), np.int64))
                texts = [self._clean(name) for name in batch.column("file_name").to_pylist()]
                names.append(file_hashes(texts))
                bases.append(file_hashes([text.rpartition("/")[2] for text in texts]))
                count += len(texts)
            counts.append(count)
        empty = np.empty(0, np.int64)
        self.starts = np.append(0, np.cumsum(counts)).astype(np.int64)
        self._name, self._base = np.concatenate([empty, *names]), np.concatenate([empty, *bases])
        self._by_id = _UniqueKeys(np.concatenate([empty, *ids]), keep_first=True)
        self._by_name, self._by_base = _UniqueKeys(self._name), _UniqueKeys(self._base)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def find_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the images with these ids: int64 [N], -1 = there is none.

        Args:
            ids: int64 [N].
        """
        return self._by_id.find(ids)

    def find_names(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The numbers of the images with these names, or else with their last parts, if only one image has it.

        Args:
            names: N paths with forward slashes or backslashes.

        Returns:
            int64 [N], -1 = there is none.
        """
        texts = [self._clean(name) for name in names]
        found = self._by_name.find(file_hashes(texts))
        bases = self._by_base.find(file_hashes([text.rpartition("/")[2] for text in texts]))
        return np.where(found < 0, bases, found)

    def find_exact(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The numbers of the images with exactly these names.

        Args:
            names: N paths with forward slashes or backslashes.

        Returns:
            int64 [N], -1 = there is none.
        """
        return self._by_name.find(file_hashes([self._clean(name) for name in names]))

    def find_images(self, ids: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int64]:
        """The numbers of the images that a file lists: by id if the name agrees or is not given, else by name.

        Args:
            ids: int64 [N].
            names: N file names; "" = not given.

        Returns:
            int64 [N], -1 = there is none.
        """
        by_id = self.find_ids(ids)
        last = file_hashes([self._clean(name).rpartition("/")[2] for name in names])
        given = np.array([bool(name) for name in names], np.bool_)
        agrees = (by_id >= 0) & (~given | (self._base[by_id] == last)) if len(self) else by_id >= 0
        return np.where(agrees, by_id, np.where(given, self.find_names(names), -1))

    def _clean(self, name: str) -> str:
        text = name.replace("\\", "/").removeprefix("./")
        return str(PurePosixPath(text).with_suffix("")) if self._stems and text.strip("./") else text


class _UniqueKeys:
    """Rows by key. A key that several rows have is found nowhere, or at the first of them."""

    def __init__(self, keys: NDArray[np.int64], *, keep_first: bool = False) -> None:
        self._keys, self._rows, counts = np.unique(keys, return_index=True, return_counts=True)
        if not keep_first:
            self._keys, self._rows = self._keys[counts == 1], self._rows[counts == 1]

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(self._keys):
            return np.full(len(keys), -1, np.int64)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._rows[place], -1).astype(np.int64)
