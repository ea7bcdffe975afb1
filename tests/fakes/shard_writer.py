"""A process that commits the same shards again and again until it is killed: `python shard_writer.py STORE SHARDS`."""

from __future__ import annotations

import itertools
import sys

from synthgen.records.sample import Annotation, Rle, Sample
from synthgen.storage.shard_store import Shard, ShardStore

IMAGES = 40


def samples(index: int) -> list[Sample]:
    """The content of shard `index`: the same in every process."""
    rle = Rle((480, 640), b"a9d0" * 200)
    return [
        Sample(
            number,
            f"key/{number}",
            f"{number}.jpg",
            480,
            640,
            tuple(Annotation(10 * number + i, (i, 2, 3, 4), f"c{i}", segmentation=rle) for i in range(10)),
        )
        for number in range(IMAGES * index, IMAGES * (index + 1))
    ]


def main() -> None:
    store, count = ShardStore(sys.argv[1]), int(sys.argv[2])
    made = [samples(index) for index in range(count)]
    for done, index in enumerate(itertools.cycle(range(count))):
        store.commit(Shard("d", "train", "masks", index, count), made[index], {"fingerprint": "f"})
        if done == 0:  # what is loaded late is loaded; from here on it commits all the time
            sys.stdout.write("ready\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
