"""`ciod.load(...).predict(...)`: any kind of image, alone or in company, by torch or onnxruntime: the same result."""

from __future__ import annotations

import base64
import json
import re
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ciod
from ciod_core.errors import CiodError, ConfigError, DataError
from ciod_core.export.runtime import open_session
from ciod_core.export.verify import BOX_ATOL, BOX_RTOL, SCORE_TOLERANCE
from ciod_core.inference.detector import LoadedDetector
from ciod_core.inference.predictions import NOTEBOOK_ROWS, ImagePredictions
from tests.export.conftest import CLASSES

SIZES = [(200, 120), (90, 177), (200, 120), (128, 128), (61, 40)]


def _image(size: tuple[int, int], seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images of several sizes, kept without loss."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{index}.png" for index in range(len(SIZES))]
    for index, path in enumerate(paths):
        _image(SIZES[index], index).save(path)
    return paths


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> LoadedDetector:
    """The detector, run by torch."""
    return ciod.load(checkpoint, device="cpu")


def _same(one: ImagePredictions, other: ImagePredictions) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "class_ids")
    )


def test_a_detector_says_what_it_knows(loaded: LoadedDetector) -> None:
    assert loaded.classes == ("cat", "bus", "kite", "dog", "owl")
    assert loaded.image_size == 128
    assert "5 classes, 128 pixels" in repr(loaded)


def test_a_result_has_a_row_per_object(loaded: LoadedDetector, files: list[Path]) -> None:
    found = loaded.predict(files[0], score=0.3)
    assert len(found) > 5
    assert (found.boxes.shape, found.boxes.dtype) == ((len(found), 4), np.float32)
    assert (found.scores.shape, found.scores.dtype) == ((len(found),), np.float32)
    assert (found.class_ids.shape, found.class_ids.dtype) == ((len(found),), np.int64)
    assert found.names == [loaded.classes[class_id] for class_id in found.class_ids]
    assert found.category_ids == [CLASSES.category_ids[class_id] for class_id in found.class_ids]
    assert found.scores.min() >= 0.3 and (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all() and (found.boxes <= np.array([200, 120, 200, 120]) + 0.01).all()
    assert repr(found).startswith(f"<{files[0]}: {len(found)} objects: {found.names[0]} {found.scores[0]:.2f}, ")


def test_every_kind_of_image_gives_the_same(loaded: LoadedDetector, files: list[Path]) -> None:
    expected = loaded.predict(files[0])
    opened = Image.open(files[0])
    for given in (str(files[0]), opened, np.asarray(opened), opened.convert("RGBA")):
        assert _same(loaded.predict(given), expected)
    assert [found.names for found in loaded.predict((files[0], opened))] == [expected.names] * 2
    assert loaded.predict([]) == []


def test_company_and_batches_change_nothing(loaded: LoadedDetector, files: list[Path]) -> None:
    alone = [loaded.predict(path) for path in files]
    for batch_size in (1, 2, 32):
        together = loaded.predict(iter(files), batch_size=batch_size)
        for one, other in zip(alone, together, strict=True):
            assert one.names == other.names
            np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    assert [found.source for found in together] == files


def test_an_iterable_is_read_a_batch_at_a_time(loaded: LoadedDetector, files: list[Path]) -> None:
    seen = []

    def images() -> object:
        for path in (*files[:2], "absent.png", *files):
            seen.append(path)
            yield path

    with pytest.raises(DataError, match=r"absent\.png"):
        loaded.predict(images(), batch_size=2)
    assert len(seen) == 4


def test_files_are_upright_and_images_stay_as_they_are(loaded: LoadedDetector, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    _image((120, 60)).save(tmp_path / "a.png", exif=turned)
    assert loaded.predict(tmp_path / "a.png").image.size == (60, 120)
    assert loaded.predict(Image.open(tmp_path / "a.png")).image.size == (120, 60)


def test_classes_can_be_chosen(loaded: LoadedDetector, files: list[Path]) -> None:
    everything = loaded.predict(files[0], score=0)
    some = loaded.predict(files[0], score=0, classes=["owl", "cat"])
    assert set(some.names) == {"owl", "cat"}
    wanted = np.isin(everything.names, ["owl", "cat"])
    np.testing.assert_array_equal(some.boxes, everything.boxes[wanted])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((20, 20, 3)), "an array of float64 (20, 20, 3) is no image; pass a path, a PIL image or a uint8 RGB"),
        (np.zeros((20, 20), np.uint8), "an array of uint8 (20, 20) is no image"),
        (np.zeros((3, 20, 20), np.uint8), "an array of uint8 (3, 20, 20) is no image"),
        (np.zeros((0, 20, 3), np.uint8), "an array of uint8 (0, 20, 3) is no image"),
        (7, "`images`: int is no image"),
        ([7], "`images`: int is no image"),
        ("absent.jpg", "absent.jpg: image file is missing"),
        (Path(__file__).parent, "is a folder; pass its images, such as sorted("),
        (Path(__file__), "is not an image that can be read"),
        (Image.new("F", (9, 9)), "pixels are floating-point numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_refused(loaded: LoadedDetector, given: object, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        loaded.predict(given)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": 30}, "`score`: 30 is not from 0 to 1"),
        ({"score": float("nan")}, "`score`: nan is not from 0 to 1"),
        ({"batch_size": 0}, "`batch_size`: 0 is not at least 1"),
        ({"classes": ["cat", "oul"]}, "`classes`: no class 'oul' in"),
        ({"classes": "oul"}, "did you mean 'owl'?"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    loaded: LoadedDetector, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        loaded.predict([], **settings)  # type: ignore[arg-type]


def test_coco_rows(loaded: LoadedDetector, files: list[Path]) -> None:
    found = loaded.predict(files[1])
    rows = json.loads(json.dumps(found.to_coco(42)))
    assert [row["category_id"] for row in rows] == found.category_ids
    assert {row["image_id"] for row in rows} == {42}
    boxes = np.array([row["bbox"] for row in rows])
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_allclose(boxes, found.boxes, atol=2e-3)
    np.testing.assert_allclose([row["score"] for row in rows], found.scores, atol=1e-6)


def test_supervision(loaded: LoadedDetector, files: list[Path]) -> None:
    supervision = pytest.importorskip("supervision")
    found = loaded.predict(files[0])
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    np.testing.assert_array_equal(theirs.xyxy, found.boxes)
    assert list(theirs.data["class_name"]) == found.names
    empty = loaded.predict(files[0], score=1.0).to_supervision()
    assert len(empty) == 0


def test_supervision_is_asked_for(loaded: LoadedDetector, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    found = loaded.predict(files[0])
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(CiodError, match="pip install supervision"):
        found.to_supervision()


def test_drawing_enlarges_small_images_alone(loaded: LoadedDetector, tmp_path: Path) -> None:
    for size, drawn_size in (((64, 48), (320, 240)), ((200, 100), (400, 200)), ((320, 20), (320, 20))):
        _image(size).save(tmp_path / "a.png")
        found = loaded.predict(tmp_path / "a.png")
        assert found.draw().size == drawn_size
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="missing"):
        found.draw()


def test_notebooks_show_a_table_and_the_picture(loaded: LoadedDetector, files: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    _image((900, 600)).save(path)
    found = loaded.predict(path, score=0)
    assert len(found) > NOTEBOOK_ROWS
    shown = found._repr_html_()
    picture = Image.open(BytesIO(base64.b64decode(re.search(r'src="data:image/jpeg;base64,([^"]+)"', shown)[1])))
    assert picture.size == (640, 427)
    assert f"<td>{found.names[0]}</td><td>{found.scores[0]:.2f}</td>" in shown
    assert f"and {len(found) - NOTEBOOK_ROWS} more" in shown
    path.unlink()
    assert "<img" not in found._repr_html_() and "<table>" in found._repr_html_()


@pytest.mark.slow
def test_an_exported_model_finds_the_same(loaded: LoadedDetector, onnx_model: Path, files: list[Path]) -> None:
    pytest.importorskip("onnxruntime")
    exported = ciod.load(onnx_model)
    assert (exported.classes, exported.image_size) == (loaded.classes, loaded.image_size)
    for one, other in zip(loaded.predict(files), exported.predict(files), strict=True):
        assert len(one) > 5
        assert one.names == other.names
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=BOX_RTOL, atol=BOX_ATOL)
        np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=SCORE_TOLERANCE)
    with pytest.raises(ConfigError, match=r"model\.onnx was exported with score 0\.01 and gives nothing below"):
        exported.predict(files[0], score=0.001)


@pytest.mark.parametrize("device", ["cuda:x", "mps", "tpu"])
@pytest.mark.slow
def test_onnxruntime_refuses_devices_it_does_not_have(onnx_model: Path, device: str) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ConfigError, match=f"no device '{device}' here; pass cpu"):
        open_session(onnx_model, device)
