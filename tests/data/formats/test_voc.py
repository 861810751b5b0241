"""Reading Pascal VOC annotations."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.data.annotations.findings import Finding, Severity
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import Category
from ciod_core.data.formats.source import resolve_dataset
from ciod_core.data.formats.voc import parse
from ciod_core.data.images.decode import EXIF_ORIENTATION
from ciod_core.errors import DataError
from tests.data.formats.test_voc_layouts import make_voc
from tests.data.formats.test_yolo_layouts import write_image

SIZE = "<size><width>500</width><height>375</height><depth>3</depth></size>"
BOMB = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))


def thing(name: str, box: str = "1 1 500 375", extra: str = "") -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    elements = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
    return f"<object><name>{name}</name>{extra}<bndbox>{elements}</bndbox></object>"


def write_xml(folder: Path, body: str | bytes, name: str = "train1") -> Path:
    path = folder / "Annotations" / f"{name}.xml"
    path.write_bytes(body if isinstance(body, bytes) else f"<annotation>{body}</annotation>".encode())
    return path


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    folder = make_voc(tmp_path / "VOC2007")
    for name in ("train1", "val1"):
        write_image(folder / "JPEGImages" / f"{name}.jpg", (500, 375))
        write_xml(folder, SIZE, name)
    return folder


def read(folder: Path) -> tuple[RawAnnotations, RawAnnotations]:
    return parse(resolve_dataset(str(folder)))


def only_finding(raw: RawAnnotations) -> Finding:
    (finding,) = raw.findings
    assert "\n" not in finding.message
    return finding


def test_columns(voc: Path) -> None:
    """Corners count from one and lie inside: 1, 1, 500, 375 is a whole image of 500x375 pixels."""
    annotation = write_xml(voc, SIZE + thing("dog") + thing("cat", "48.5 240 195 371"))
    write_xml(voc, SIZE + thing("ant", "10 20 10 20"), "val1")
    train, val = read(voc)
    assert train.boxes_xywh_N4.tolist() == [[0, 0, 500, 375], [47.5, 239, 147.5, 132]]
    assert val.boxes_xywh_N4.tolist() == [[9, 19, 1, 1]]
    assert train.categories == val.categories == (Category(1, "ant"), Category(2, "cat"), Category(3, "dog"))
    assert (train.category_ids_N.tolist(), val.category_ids_N.tolist()) == ([3, 2], [1])
    assert (train.annotation_ids_N.tolist(), train.image_ids_N.tolist()) == ([1, 2], [1, 1])
    assert (train.file_names_I, train.sizes_I2.tolist()) == (["train1.jpg"], [[500, 375]])
    assert train.path == voc / "ImageSets" / "Main" / "train.txt"
    assert train.box_place(1) == f"{annotation}: object 2"
    assert train.image_place(0) == str(voc / "JPEGImages" / "train1.jpg")
    assert np.isnan(train.areas_N).all()
    assert train.findings == val.findings == ()


def test_difficult_objects_are_ignored_ones(voc: Path) -> None:
    flags = ("<difficult>1</difficult>", "<difficult>0</difficult>", "<difficult>Unspecified</difficult>", "")
    write_xml(voc, SIZE + "".join(thing("dog", extra=flag) for flag in flags))
    assert read(voc)[0].crowd_N.tolist() == [True, False, False, False]


def test_boxes_of_parts_are_skipped(voc: Path) -> None:
    head = "<part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    write_xml(voc, SIZE + thing("person", "1 1 10 10", extra=head))
    train, _ = read(voc)
    assert (train.boxes_xywh_N4.tolist(), train.categories) == ([[0, 0, 10, 10]], (Category(1, "person"),))


@pytest.mark.parametrize(
    "size", ["", "<size/>", SIZE.replace("500", "0"), SIZE.replace("375", "?"), SIZE.replace("5", "-")]
)
def test_the_image_gives_the_size_that_the_annotation_lacks(voc: Path, size: str) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.new("RGB", (40, 30)).save(voc / "JPEGImages" / "train1.jpg", exif=exif)
    write_xml(voc, size)
    assert read(voc)[0].sizes_I2.tolist() == [[30, 40]]
    (voc / "JPEGImages" / "train1.jpg").unlink()
    train, _ = read(voc)
    assert only_finding(train).code == "image-unreadable"
    assert "train1.xml: states no size, and" in only_finding(train).message
    assert train.file_names_I == []


def test_images_of_any_suffix_sorted_and_once(voc: Path) -> None:
    (voc / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xef\xbb\xbfb\r\na c\r\ngone\r\n\r\nb\r\nsub/d\r\n")
    (voc / "Annotations" / "sub").mkdir()
    for name, suffix in (("a c", "png"), ("b", "png"), ("b", "jpg"), ("sub/d", "JPG")):
        write_image(voc / "JPEGImages" / f"{name}.{suffix}")
        write_xml(voc, SIZE, name)
    write_xml(voc, SIZE, "gone")
    train, _ = read(voc)
    assert train.file_names_I == ["a c.png", "b.jpg", "gone.jpg", "sub/d.JPG"]
    assert train.image_ids_I.tolist() == [1, 2, 3, 4]
    found = [(finding.severity, finding.code, finding.count) for finding in train.findings]
    assert found == [(Severity.WARNING, "image-listed-twice", 1), (Severity.WARNING, "annotation-shared", 1)]
    assert "b.png: is not read, as b.jpg has the same annotation" in train.findings[1].message


def test_annotations_without_an_image(voc: Path) -> None:
    """Those of images that no list names, too; hidden files are none."""
    write_image(voc / "JPEGImages" / "unlisted.jpg")
    for name in ("unlisted", "lost", "raw", "._train1"):
        write_xml(voc, SIZE, name)
    (voc / "JPEGImages" / "raw.heic").touch()
    train, val = read(voc)
    finding = only_finding(train)
    assert (finding.severity, finding.code, finding.count) == (Severity.WARNING, "label-without-image", 2)
    assert finding.message.startswith(f"{voc / 'Annotations' / 'lost.xml'}: is a label file without an image")
    assert val.findings == ()


class TestFaults:
    @pytest.fixture
    def listed(self, voc: Path) -> Path:
        """Two good images around two that tests break."""
        (voc / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\nd\n")
        for name in "abcd":
            write_xml(voc, SIZE + thing("dog"), name)
        return voc

    def test_missing_annotations(self, listed: Path) -> None:
        for name in "bc":
            (listed / "Annotations" / f"{name}.xml").unlink()
        train, _ = read(listed)
        finding = only_finding(train)
        assert (finding.severity, finding.code, finding.count) == (Severity.ERROR, "annotation-missing", 2)
        assert "b.xml: cannot be read (No such file or directory); restore it or remove 'b' from" in finding.message
        assert (train.file_names_I, train.image_ids_N.tolist()) == (["a.jpg", "d.jpg"], [1, 2])

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"<annotation><object></annotation>", "is not well-formed XML (mismatched tag: line 1"),
            (b"", "is not well-formed XML (no element found"),
            ("<annotation>é</annotation>".encode("latin-1"), "is not well-formed XML (not well-formed (invalid token)"),
            (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "declares the unknown encoding klingon; export"),
            (b'<?xml version="1.0" encoding="hex"?><annotation/>', "declares the unknown encoding hex"),
            (b'<?xml version="1.0" encoding="gbk"?><annotation>\xff</annotation>', "is not text in gbk, the encoding"),
            (b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE a><annotation/>', "declares a document type"),
            (b"<html/>", "holds <html> in place of <annotation>"),
            (b"<!DOCTYPE annotation><annotation/>", "declares a document type"),
            (f'<!DOCTYPE a [<!ENTITY e0 "ha">{BOMB}]><a>&e12;</a>'.encode(), "declares a document type"),
            (f'<!DOCTYPE a [<!ENTITY e0 "ha">{BOMB}]><a>&e12;</a>'.encode("utf-16"), "declares a document type"),
        ],
    )
    def test_malformed_annotations(self, listed: Path, body: bytes, reason: str) -> None:
        path = write_xml(listed, body, "b")
        write_xml(listed, body, "c")
        start = time.monotonic()
        train, _ = read(listed)
        assert time.monotonic() - start < 2
        finding = only_finding(train)
        assert (finding.severity, finding.code, finding.count) == (Severity.ERROR, "annotation-malformed", 2)
        assert finding.message.startswith(f"{path}: {reason}")
        assert train.file_names_I == ["a.jpg", "d.jpg"]

    @pytest.mark.parametrize(
        ("broken", "reason"),
        [
            ("<object><bndbox/></object>", "has no <name>"),
            (thing(" "), "has no <name>"),
            ("<object><name>dog</name></object>", "has no <bndbox>"),
            ("<object><name>dog</name><bndbox><xmin>1</xmin></bndbox></object>", "has '' for <ymin>"),
            (thing("dog", "1 1 5oo 1"), "has '5oo' for <xmax>"),
        ],
    )
    def test_malformed_objects(self, listed: Path, broken: str, reason: str) -> None:
        path = write_xml(listed, SIZE + thing("cat") + broken + thing("cow"), "b")
        write_xml(listed, SIZE + broken, "c")
        train, _ = read(listed)
        finding = only_finding(train)
        assert (finding.severity, finding.code, finding.count) == (Severity.ERROR, "object-malformed", 2)
        assert finding.message == f"{path}: object 2 {reason}; correct or remove it"
        assert train.image_ids_N.tolist() == [1, 2, 2, 4]
        assert train.box_place(2) == f"{path}: object 3"

    def test_what_the_inspection_judges_passes_through(self, listed: Path) -> None:
        write_xml(listed, SIZE + thing("dog", "nan 1 2 2") + thing("dog", "9 9 1 1") + thing("dog", "900 1 950 5"), "a")
        train, _ = read(listed)
        assert train.findings == ()
        assert train.boxes_xywh_N4[1:3].tolist() == [[8, 8, -7, -7], [899, 0, 51, 5]]


@pytest.mark.parametrize(
    ("declared", "codec", "name"),
    [
        ("gb2312", "gb2312", "苹果"),
        ("GB2312", "gbk", "榮"),
        ("GBK", "gbk", "苹果"),
        ("gb18030", "gb18030", "苹果"),
        ("Big5", "big5", "蘋果"),
        ("Shift_JIS", "cp932", "①林檎"),
        ("EUC-JP", "euc_jp", "林檎"),
        ("EUC-KR", "cp949", "사과"),
        ("UTF8", "utf-8", "苹果"),
        ("utf-8", "utf-8-sig", "苹果"),
        ("gbk", "utf-8-sig", "苹果"),
        ("utf-16", "utf-8", "苹果"),
        ("utf-16", "utf-16", "苹果"),
        ("windows-1251", "cp1251", "яблоко"),
        ("ISO-8859-1", "latin-1", "Küche"),
    ],
)
def test_encodings(voc: Path, declared: str, codec: str, name: str) -> None:
    text = f"<?xml version='1.0' encoding=\"{declared}\" ?>\n<annotation>{SIZE}{thing(name)}</annotation>"
    write_xml(voc, text.encode(codec))
    raw = read(voc)[0]
    assert ([category.name for category in raw.categories], raw.findings) == ([name], ())


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"\xff\xfe1\x00", "line 1 is not UTF-8 text")])
def test_a_list_that_lists_nothing(voc: Path, content: bytes, message: str) -> None:
    (voc / "ImageSets" / "Main" / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.txt: {message}"):
        read(voc)


def test_a_list_that_is_something_else(voc: Path) -> None:
    (voc / "ImageSets" / "Main" / "train.txt").write_bytes(b"a\0b\n" + b"c" * 5000)
    finding = only_finding(read(voc)[0])
    assert (finding.code, finding.count) == ("annotation-missing", 2)


def test_the_fingerprint(voc: Path, tmp_path: Path) -> None:
    write_xml(voc, SIZE + thing("dog"))
    before = read(voc)[0].sha256
    shutil.copytree(voc, tmp_path / "elsewhere")
    assert read(tmp_path / "elsewhere")[0].sha256 == before
    write_xml(voc, SIZE + thing("cat"))
    assert read(voc)[0].sha256 != before
