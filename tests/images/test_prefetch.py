"""Prefetched images: order, limits on images and bytes in flight, early closing."""

from __future__ import annotations

import threading
import time
import warnings

import numpy as np
import pytest
from fakes.image_files import save_image
from PIL import Image

from synthgen.images import prefetch
from synthgen.images.decode import ImageError
from synthgen.images.prefetch import prefetch_images
from synthgen.records.sample import Sample

# As `records.images` asks for on import; pytest has its own filters for each test.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")


def sample(number: int, name: str, height: int = 12, width: int = 20, **fields) -> Sample:
    return Sample(number, f"toy/{number}", name, height, width, **fields)


@pytest.mark.parametrize("threads", [1, 4])
def test_order_is_kept_and_a_bad_file_stops_nobody(folder, threads):
    samples = [sample(i, f"{i}.png") for i in range(40)]
    samples[3] = sample(3, "bad.png")
    samples[7] = sample(7, "missing.png")
    samples[9] = sample(9, "../9.png")
    samples[11] = sample(11, "11.png", 5, 5)
    samples[13] = sample(13, "13.png", error="an earlier stage's reason")
    samples[15] = sample(15, "15.png", 0, 0)
    found = list(prefetch_images(iter(samples), folder, num_threads=threads))
    assert [s for s, _ in found] == samples
    for s, pixels in found:
        if s.image_id in (3, 7, 9, 11):
            assert isinstance(pixels, ImageError)
        elif s.image_id == 13:
            assert pixels is None
        else:
            assert pixels.shape == (12, 20, 3)
            assert (pixels == s.image_id).all()


class Decoder:
    """Stands in for `load_rgb`; counts images that are begun and not yet taken."""

    def __init__(self, monkeypatch):
        self.begun, self.lock = 0, threading.Lock()
        monkeypatch.setattr(prefetch, "load_rgb", self)

    def __call__(self, path, height=0, width=0):
        with self.lock:
            self.begun += 1
        return np.zeros((1, 1, 3), np.uint8)


def test_no_more_than_two_images_a_thread_are_in_flight(folder, monkeypatch):
    decoder = Decoder(monkeypatch)
    most = 0
    for taken, _ in enumerate(prefetch_images([sample(i, f"{i}.png") for i in range(40)], folder, num_threads=2)):
        time.sleep(0.002)  # time for the threads to run away, if they could
        most = max(most, decoder.begun - taken)
    assert decoder.begun == 40
    assert 1 < most <= 5  # four in flight and the one in hand


def test_no_more_than_so_many_bytes_are_in_flight(folder, monkeypatch):
    decoder = Decoder(monkeypatch)
    monkeypatch.setattr(prefetch, "PREFETCH_BYTES", 3 * 1000 * 1000)
    ahead = []
    samples = [sample(i, f"{i}.png", 1000, 500) for i in range(20)]  # two at a time
    for taken, _ in enumerate(prefetch_images(samples, folder, num_threads=8)):
        time.sleep(0.005)
        ahead.append(decoder.begun - taken - 1)
    assert max(ahead) <= 2
    assert max(ahead[10:]) >= 1  # what was taken has made room
    one_is_too_large = [sample(i, f"{i}.png", 10_000, 10_000) for i in range(3)]
    assert len(list(prefetch_images(one_is_too_large, folder, num_threads=8))) == 3


def test_an_image_of_unstated_size_is_weighed_by_its_header(tmp_path, monkeypatch):
    for number in range(6):
        save_image(
            tmp_path / f"{number}.png", Image.new("1", (4000, 4000))
        )  # a few hundred bytes on disk, 48 MB as RGB
    decoder = Decoder(monkeypatch)
    monkeypatch.setattr(prefetch, "PREFETCH_BYTES", 100 * 2**20)
    most = 0
    for taken, _ in enumerate(
        prefetch_images([sample(i, f"{i}.png", 0, 0) for i in range(6)], tmp_path, num_threads=8)
    ):
        time.sleep(0.002)
        most = max(most, decoder.begun - taken)
    assert most <= 3


def test_samples_are_taken_only_when_there_is_room(folder):
    taken = []

    def samples():
        for i in range(40):
            taken.append(i)
            yield sample(i, f"{i}.png")

    ahead = prefetch_images(samples(), folder, num_threads=2)
    next(ahead)
    assert len(taken) <= 6
    ahead.close()


def test_closing_early_gives_up_what_has_not_begun(folder, monkeypatch):
    begun = []

    def slow(path, *_):
        begun.append(path)
        time.sleep(0.001 if path.name == "0.png" else 0.3)

    monkeypatch.setattr(prefetch, "load_rgb", slow)
    ahead = prefetch_images([sample(i, f"{i}.png") for i in range(40)], folder, num_threads=2)
    next(ahead)  # 1 and 2 are being decoded, 3 waits
    ahead.close()
    assert len(begun) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_threads_agree_with_one_another(folder):
    """Pillow's filters, plugins and limits are shared by all threads; the outcomes must not depend on it."""
    save_image(folder / "big.png", np.zeros((12, 20, 3), np.uint8))
    names = [f"{i}.png" if i % 3 else "bad.png" for i in range(40)] * 5
    samples = [sample(i, name) for i, name in enumerate(names)]

    def outcome():
        return [
            str(p) if isinstance(p, ImageError) else p.tobytes()
            for _, p in prefetch_images(samples, folder, num_threads=8)
        ]

    first = outcome()
    filters = list(warnings.filters)
    assert all(outcome() == first for _ in range(3))
    assert warnings.filters == filters
