"""Images and boxes for captioners, and their texts."""

from __future__ import annotations

import numpy as np

from synthgen.generate.captioners import attributes


def random_image(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def box_array(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def caption_one(captioner, image, prompts, categories, top_k=5, crowd=()):
    (found,) = captioner.caption([image], [prompts], [categories], [crowd], top_k)
    return found


def caption_texts(captioner, image, prompts, categories, top_k=5):
    return [[c.text for c in own] for own in caption_one(captioner, image, prompts, categories, top_k)]


def describe(
    prompts: np.ndarray, categories: list[str], image: np.ndarray | None = None, top_k: int = 99
) -> list[list[str]]:
    return caption_texts(attributes.build(), random_image() if image is None else image, prompts, categories, top_k)
