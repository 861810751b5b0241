"""Look-alikes are found whatever their size and quality, and different images are told apart."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ciod_core.data.images.similarity import join_look_alikes, similar_pairs, thumbnail


def texture(seed: int, slope: float = 0.0) -> Image.Image:
    """Noise of several scales, over a ramp of brightness to the right."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(generator.integers(0, 60, (n, n), dtype=np.uint8)).resize((200, 200)), dtype=float)
        for n in (8, 25, 100)
    ]
    ramp = slope * np.arange(200)
    return Image.fromarray(np.clip(sum(layers) + ramp, 0, 255).astype(np.uint8)).convert("RGB")


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: jpeg(image, 30),
        lambda image: jpeg(image.resize((640, 640)), 80),
        lambda image: image.resize((90, 70)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    ],
    ids=["quality", "enlarged", "reduced", "darker", "flatter"],
)
def test_copies_are_found(change: Callable[[Image.Image], Image.Image]) -> None:
    images = [texture(seed) for seed in range(70)]
    changed = [thumbnail(change(images[place]).convert("RGB")) for place in (69, 3)]
    assert list(similar_pairs(changed, [thumbnail(image) for image in images])) == [(0, 69), (1, 3)]


def test_look_alikes_are_joined_directly_and_through_others() -> None:
    """Of 90 images, every thirtieth is alike; two more were together before, for another reason."""
    first, *_ = images = [texture(seed) for seed in range(30)]
    copies = [image.resize((100, 100)) for image in images] + [jpeg(image, 40) for image in images]
    thumbnails = [thumbnail(image.convert("RGB")) for image in [*images, *copies]]
    before = np.arange(90)
    before[41] = before[7]
    joined = join_look_alikes(thumbnails, before)
    groups = {frozenset(np.flatnonzero(joined == number).tolist()) for number in joined.tolist()}
    expected = {frozenset((seed, seed + 30, seed + 60)) for seed in range(30) if seed not in (7, 11)}
    assert groups == {*expected, frozenset((7, 37, 67, 11, 41, 71))}
    assert before[7] == before[41] == 7, "the numbers that were passed stay as they are"
    assert len(set(join_look_alikes([thumbnail(first)] * 3, np.arange(3)).tolist())) == 1


def test_textures_with_the_same_large_shapes_are_told_apart() -> None:
    """A ramp gives all of them nearly the same hash."""
    thumbnails = [thumbnail(texture(seed, slope=1.0)) for seed in range(40)]
    assert list(similar_pairs(thumbnails[:20], thumbnails[20:])) == []


def test_images_of_one_color_are_no_look_alikes() -> None:
    plain = [thumbnail(Image.new("RGB", (64, 64), color)) for color in ("black", "white")]
    assert join_look_alikes(plain, np.arange(2)).tolist() == [0, 1]
    assert list(similar_pairs(plain, plain)) == list(similar_pairs([], plain)) == list(similar_pairs(plain, [])) == []
