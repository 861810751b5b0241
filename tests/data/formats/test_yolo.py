"""Reading YOLO labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.data.annotations.findings import Finding, Severity
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import Category
from ciod_core.data.formats.source import resolve_dataset
from ciod_core.data.formats.yolo import parse
from ciod_core.data.images.decode import EXIF_ORIENTATION, decode_image
from tests.data.formats.test_yolo_layouts import make_yolo, write_image


def read_train(folder: Path) -> RawAnnotations:
    return parse(resolve_dataset(str(folder)))[0]


def write_labels(folder: Path, content: str | bytes, name: str = "labels/train/train.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def only_error(raw: RawAnnotations) -> Finding:
    (finding,) = (finding for finding in raw.findings if finding.severity is Severity.ERROR)
    assert "\n" not in finding.message
    return finding


def test_columns(tmp_path: Path) -> None:
    """One image of 20x10 pixels; the numbers are computed by hand."""
    make_yolo(tmp_path)
    labels = write_labels(tmp_path, "1 0.5 0.5 0.5 0.2\n\n0 0.25 0.5 0.1 1\n")
    train, val = parse(resolve_dataset(str(tmp_path)))
    np.testing.assert_allclose(train.boxes_xywh_N4, [[5, 4, 10, 2], [4, 0, 2, 10]], atol=1e-9)
    assert train.category_ids_N.tolist() == [1, 0]
    assert train.categories == val.categories == (Category(0, "cat"), Category(1, "dog"))
    assert (train.image_ids_I.tolist(), train.image_ids_N.tolist()) == ([1], [1, 1])
    assert train.annotation_ids_N.tolist() == [1, 2]
    assert train.sizes_I2.tolist() == [[20, 10]]
    assert np.isnan(train.areas_N).all() and not train.crowd_N.any()
    assert train.path == tmp_path / "data.yaml"
    assert (train.file_names_I, val.file_names_I) == (["train.jpg"], ["val.jpg"])
    assert train.box_place(1) == f"{labels}: line 3"
    assert train.image_place(0) == str(tmp_path / "images" / "train" / "train.jpg")
    assert train.findings == ()
    assert (val.boxes_xywh_N4.shape, val.sizes_I2.shape) == ((0, 4), (1, 2))


def test_images_are_numbered_in_order_of_name(tmp_path: Path) -> None:
    make_yolo(tmp_path)
    for number, name in enumerate(("b.jpg", "a.jpg", "sub/c.jpg")):
        write_image(tmp_path / "images" / "train" / name, (30 + number, 10))
        write_labels(tmp_path, f"0 .5 .5 .1 .{number + 1}", f"labels/train/{name[:-4]}.txt")
    raw = read_train(tmp_path)
    assert raw.file_names_I == ["a.jpg", "b.jpg", "sub/c.jpg", "train.jpg"]
    assert raw.sizes_I2[:, 0].tolist() == [31, 30, 32, 20]
    assert raw.image_ids_N.tolist() == [1, 2, 3]
    np.testing.assert_allclose(raw.boxes_xywh_N4[:, 3], [2, 1, 3])


class TestLines:
    def test_a_polygon_becomes_the_box_around_it(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        write_labels(tmp_path, "0 0.5 0.1 0.9 0.5 0.5 0.9 0.1 0.6\n1 .1 .1 .3 .1 .2 .4")
        raw = read_train(tmp_path)
        np.testing.assert_allclose(raw.boxes_xywh_N4, [[2, 1, 16, 8], [2, 1, 4, 3]], atol=1e-9)

    def test_windows_line_endings_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        write_labels(tmp_path, b"\xef\xbb\xbf0 .5 .5 1 1\r\n1\t.5 .5 1 1\r\n")
        raw = read_train(tmp_path)
        assert (raw.category_ids_N.tolist(), raw.findings) == ([0, 1], ())

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("0 .5 .5 1", "holds 4 numbers"),
            ("0 .5 .5 1 1 .9", "holds 6 numbers"),
            ("0 .1 .1 .2 .2 .3 .3 .4", "holds 8 numbers"),
            ("0", "holds 1 numbers"),
            ("cat .5 .5 1 1", "holds something that is no number"),
            ("0,.5,.5,1,1", "holds something that is no number"),
            ("0.5 .5 .5 1 1", "0.5 is not a class index"),
            ("nan .5 .5 1 1", "nan is not a class index"),
            ("1e300 .5 .5 1 1", "1e+300 is not a class index"),
            ("0 .1 .1 nan .2 .3 .3", "holds a coordinate that is not finite"),
            ("0 .5 .5 .2 .2 .9 7", "holds 7, but coordinates lie between 0 and 1"),
            ("0 .5 .5 .2 .2 .5 .5 2 .5 .6 2", "holds 2, but coordinates lie between 0 and 1"),
            ("0 .1 .1 .2 .2 .3 -.02", "holds -0.02, but coordinates lie between 0 and 1"),
        ],
    )
    def test_a_malformed_line_is_a_finding(self, tmp_path: Path, line: str, reason: str) -> None:
        make_yolo(tmp_path)
        labels = write_labels(tmp_path, f"1 .5 .5 1 1\n{line}\n1 .5 .5 1 1\n{line}\n")
        raw = read_train(tmp_path)
        finding = only_error(raw)
        assert (finding.code, finding.count) == ("label-line-malformed", 2)
        assert finding.message.startswith(f"{labels}: line 2 {reason}; a line is `class cx cy width height`")
        assert [raw.box_place(box) for box in range(2)] == [f"{labels}: line 1", f"{labels}: line 3"]

    def test_what_the_inspection_judges_passes_through(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        labels = write_labels(tmp_path, "2 .5 .5 1 1\n-1 .5 .5 1 1\n1.0 .5 .5 0 -1\n0 nan .5 1 1\n0 9 9 1 1\n")
        raw = read_train(tmp_path)
        assert raw.findings == ()
        assert raw.category_ids_N.tolist() == [2, -1, 1, 0, 0]
        assert raw.box_place(0) == f"{labels}: line 1"
        assert np.isnan(raw.boxes_xywh_N4[3, 0])
        assert raw.boxes_xywh_N4[2].tolist() == [10, 10, 0, -10]
        assert raw.boxes_xywh_N4[4].tolist() == [170, 85, 20, 10]

    def test_rounding_and_oriented_boxes_may_stick_out(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        write_labels(tmp_path, "0 -.001 .1 1.002 .1 .5 .5\n1 -.1 .1 .1 -.1 .3 .1 .1 .3")
        raw = read_train(tmp_path)
        np.testing.assert_allclose(raw.boxes_xywh_N4, [[-0.02, 1, 20.06, 4], [-2, -1, 8, 4]], atol=1e-9)


OFF_CENTER = (".3 .4 .2 .3", ".8 .5 .2 .2", ".6 .3 .5 .6", ".25 .75 .5 .5")


class TestKeypoints:
    """Lines with something behind their box are refused, polygons of any number of points are not."""

    @pytest.mark.parametrize(
        "behind",
        ["{x} {y}", "{x} {y} 0 0", "{x} {y} .3 .5", "{x} {y} 1 0 0 0", "{x} {y} 1 {x} {y} 0", ".91 1"],
        ids=["one", "unlabeled", "some outside", "visibility", "visibilities", "track"],
    )
    def test_they_are_an_error(self, tmp_path: Path, behind: str) -> None:
        make_yolo(tmp_path)
        lines = [f"0 {box} {behind.format(x=box.split()[0], y=box.split()[1])}\n" for box in OFF_CENTER]
        labels = write_labels(tmp_path, "".join(lines))
        finding = only_error(read_train(tmp_path))
        assert (finding.code, finding.count) == ("keypoint-rows", 4)
        assert finding.message.startswith(f"{labels}: line 1 reads as a box with keypoints or a track id")

    @pytest.mark.parametrize(
        "lines",
        [
            "0 .4 .4 .6 .4 .6 .6 .4 .6\n",
            "0 .4 .4 .6 .4 .6 .6 .4 .6 .4 .4\n",
            "0 .4 .4 .5 .5 .45 .5\n0 .8 .8 .9 .8 .9 .9\n",
            "0 .4 .4 .5 .5 .45 .5\n0 .4 .4 .5 .5 .45 .5 .45 .5\n",
        ],
        ids=["rectangle", "closed rectangle", "triangles", "another length"],
    )
    def test_polygons_that_could_be_read_so(self, tmp_path: Path, lines: str) -> None:
        make_yolo(tmp_path)
        write_labels(tmp_path, lines)
        assert read_train(tmp_path).findings == ()

    def test_both_splits_are_looked_at_together(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        write_labels(tmp_path, "0 .8 .8 .9 .8 .9 .9\n0 .1 .8 .2 .8 .9 .9\n0 .5 .5 .2 .2\n")
        write_labels(tmp_path, "0 .4 .4 .5 .5 .45 .5", "labels/val/val.txt")
        assert [raw.findings for raw in parse(resolve_dataset(str(tmp_path)))] == [(), ()]


class TestLabelFiles:
    @pytest.mark.parametrize(
        ("images", "labels"),
        [
            ("images/{}", "labels/train/train.txt"),
            ("{}/images", "train/labels/train.txt"),
            ("images/set/images/{}", "images/set/labels/train/train.txt"),
            ("{}", "train/train.txt"),
            ("images/{}", "images/train/train.txt"),
        ],
    )
    def test_where_they_lie(self, tmp_path: Path, images: str, labels: str) -> None:
        make_yolo(tmp_path, images)
        write_labels(tmp_path, "1 .5 .5 1 1", labels)
        raw = read_train(tmp_path)
        assert raw.category_ids_N.tolist() == [1]
        assert raw.box_place(0) == f"{tmp_path / labels}: line 1"

    def test_names_with_dots(self, tmp_path: Path) -> None:
        write_image(make_yolo(tmp_path) / "images" / "train" / "a.v1.rf.0f.jpg")
        write_labels(tmp_path, "1 .5 .5 1 1", "labels/train/a.v1.rf.0f.txt")
        assert read_train(tmp_path).image_ids_N.tolist() == [1]

    def test_an_image_without_one_has_no_objects(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        for name in ("a.jpg", "b.jpg", "empty.jpg"):
            write_image(tmp_path / "images" / "train" / name)
        write_labels(tmp_path, "1 .5 .5 1 1")
        write_labels(tmp_path, "", "labels/train/empty.txt")
        raw = read_train(tmp_path)
        assert (len(raw.image_ids_I), raw.image_ids_N.tolist()) == (4, [4])
        (finding,) = raw.findings
        assert (finding.severity, finding.code, finding.count) == (Severity.NOTE, "image-without-labels", 2)
        assert finding.message.startswith(str(tmp_path / "images" / "train" / "a.jpg"))

    def test_those_without_an_image_are_counted(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        (tmp_path / "images" / "train" / "raw.heic").touch()
        for name in ("train", "raw", "lost/a", "._train"):
            write_labels(tmp_path, "1 .5 .5 1 1", f"labels/train/{name}.txt")
        write_labels(tmp_path, "cat\ndog", "labels/train/classes.txt")
        (finding,) = read_train(tmp_path).findings
        assert (finding.severity, finding.code, finding.count) == (Severity.WARNING, "label-without-image", 2)
        assert finding.message.startswith(str(tmp_path / "labels" / "train" / "lost" / "a.txt"))

    def test_images_that_a_list_leaves_out_have_theirs(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, "images", train="train.txt", val="images")
        write_image(tmp_path / "images" / "other.JPG")
        (tmp_path / "train.txt").write_text("images/train.jpg")
        for name in ("train", "other"):
            write_labels(tmp_path, "1 .5 .5 1 1", f"labels/{name}.txt")
        assert read_train(tmp_path).findings == ()

    def test_two_images_of_the_same_labels(self, tmp_path: Path) -> None:
        write_image(make_yolo(tmp_path) / "images" / "train" / "train.png")
        write_labels(tmp_path, "1 .5 .5 1 1")
        (finding,) = read_train(tmp_path).findings
        assert (finding.severity, finding.code) == (Severity.WARNING, "labels-shared")
        assert "train.png: shares its labels (train.txt) with train.jpg" in finding.message

    def test_a_file_that_was_meant_is_named(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        write_labels(tmp_path, "1 .5 .5 1 1", "labels/train/Train.txt")
        codes = {finding.code: finding.message for finding in read_train(tmp_path).findings}
        assert "has no label file train.txt; there is Train.txt; rename one" in codes["label-file-misnamed"]

    def test_no_label_file_at_all_is_an_error(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        assert only_error(read_train(tmp_path)).code == "no-label-files"

    def test_one_that_is_not_utf8(self, tmp_path: Path) -> None:
        write_image(make_yolo(tmp_path) / "images" / "train" / "a.jpg")
        write_labels(tmp_path, "1 .5 .5 1 1", "labels/train/a.txt")
        labels = write_labels(tmp_path, "0 .5 .5 1 1\n".encode("utf-16"))
        raw = read_train(tmp_path)
        finding = only_error(raw)
        assert finding.code == "label-file-unreadable"
        assert finding.message == f"{labels}: line 1 is not UTF-8 text; save the file as UTF-8"
        assert (len(raw.image_ids_I), raw.image_ids_N.tolist()) == (2, [1])

    def test_one_that_cannot_be_read(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        (tmp_path / "labels" / "train" / "train.txt").mkdir(parents=True)
        finding = read_train(tmp_path).findings[0]
        assert (finding.code, finding.severity) == ("label-file-unreadable", Severity.ERROR)
        assert "train.txt: cannot be read (Is a directory)" in finding.message


class TestImages:
    def test_labels_of_a_rotated_photograph_speak_of_the_upright_image(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = 6
        path = tmp_path / "images" / "train" / "train.jpg"
        Image.new("RGB", (40, 20)).save(path, exif=exif)
        write_labels(tmp_path, "0 .5 .5 .5 .5")
        raw = read_train(tmp_path)
        assert raw.sizes_I2.tolist() == [[20, 40]]
        assert raw.boxes_xywh_N4.tolist() == [[5, 10, 10, 20]]
        assert decode_image(path, (20, 40)).size == (20, 40)

    def test_unreadable_ones_are_left_out_and_counted(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        for name in ("a", "b"):
            (tmp_path / "images" / "train" / f"{name}.jpg").write_text("no image")
            write_labels(tmp_path, "0 .5 .5 1 1", f"labels/train/{name}.txt")
        write_labels(tmp_path, "1 .5 .5 1 1")
        raw = read_train(tmp_path)
        finding = only_error(raw)
        assert (finding.code, finding.count) == ("image-unreadable", 2)
        assert "a.jpg: is not an image that can be read" in finding.message
        assert (raw.file_names_I, raw.category_ids_N.tolist()) == (["train.jpg"], [1])

    def test_listed_ones_that_are_missing_or_repeated(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, train=["train.txt", "images/train"])
        (tmp_path / "train.txt").write_text("images/train/train.jpg\nimages/train/gone.jpg\n")
        write_labels(tmp_path, "1 .5 .5 1 1")
        raw = read_train(tmp_path)
        assert raw.file_names_I == ["train.jpg"]
        missing, repeated = sorted(raw.findings, key=lambda finding: finding.severity)
        assert (missing.severity, missing.code) == (Severity.ERROR, "image-unreadable")
        assert "gone.jpg: image file is missing" in missing.message
        assert (repeated.severity, repeated.code) == (Severity.WARNING, "image-listed-twice")


class TestFingerprint:
    def test_it_is_the_same_elsewhere(self, tmp_path: Path) -> None:
        write_labels(make_yolo(tmp_path / "a"), "1 .5 .5 1 1")
        shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
        assert read_train(tmp_path / "a").sha256 == read_train(tmp_path / "b" / "c").sha256

    @pytest.mark.parametrize("change", ["label", "class", "image name", "image size", "label file"])
    def test_it_tells_changes(self, tmp_path: Path, change: str) -> None:
        write_labels(make_yolo(tmp_path), "1 .5 .5 1 1")
        image = tmp_path / "images" / "train" / "train.jpg"
        labels = tmp_path / "labels" / "train" / "train.txt"
        before = read_train(tmp_path).sha256
        if change == "label":
            labels.write_text("1 .5 .5 1 .9")
        elif change == "class":
            make_yolo(tmp_path, names=["cat", "wolf"])
        elif change == "image name":
            image.rename(image.with_name("other.jpg"))
            labels.rename(labels.with_name("other.txt"))
        elif change == "image size":
            write_image(image, (40, 10))
        else:
            labels.unlink()
        assert read_train(tmp_path).sha256 != before
