"""Pascal VOC: a folder with Annotations, JPEGImages and ImageSets/Main, often one year of a VOCdevkit, or an export."""

from __future__ import annotations

import codecs
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from ciod_core.data.annotations.findings import Findings, Severity
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import Category
from ciod_core.data.formats.base import DatasetSource, FindOptions, SplitFiles, exists, read_lines
from ciod_core.data.formats.rows import LabeledImage, LabeledObject, raw_annotations
from ciod_core.data.formats.unpaired import labels_without_image, report_unpaired
from ciod_core.data.images.decode import upright_size
from ciod_core.data.images.files import images_below, there_is
from ciod_core.errors import DataError
from ciod_core.files import MostBytes, read_bytes

LAYOUT = "Pascal VOC (Annotations/ with ImageSets/Main/ or images/)"
ADD_VAL = "list its images in ImageSets/Main/val.txt, and the others in train.txt"
LISTS = Path("ImageSets", "Main")
DEVKIT = "VOCdevkit"
IMAGE_DIRS = ("JPEGImages", "images")
DECLARED_ENCODING = re.compile(rb"""\s*<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
# What writes these names mostly means the larger character set of Windows. A declaration that can be read as ASCII is
# not in UTF-16, whatever it says.
READ_AS = {
    "big5": "cp950",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "utf-16": "utf-8",
}
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def find(path: Path, options: FindOptions) -> DatasetSource | None:
    """The dataset of a VOC folder, or of the only one in a VOCdevkit; see `Format.find`."""
    for base in (path, path / DEVKIT):
        found = [base] if _is_voc(base) else sorted(lists.parents[1] for lists in base.glob(f"*/{LISTS.as_posix()}"))
        found = [folder for folder in found if _is_voc(folder)]
        if len(found) > 1:
            names = ", ".join(folder.name for folder in found)
            raise DataError(f"{base}: holds several datasets ({names}); pass one of them, such as {found[0]}")
        if found:
            return _source(found[0], options)
    return None


def parse(source: DatasetSource) -> tuple[RawAnnotations, ...]:
    """Read the splits of a dataset.

    Category ids count from one in alphabetical order of the names in all splits; images count from one in the order of
    their file names. Boxes become zero-based and `difficult` objects are ignored, as in VOC's own evaluation.
    Annotation files and objects that cannot be read are left out and become findings.

    Raises:
        DataError: a list of images cannot be read or is empty.
    """
    findings = [Findings() for _ in source.splits]
    files = _image_files(source.train.image_dir)
    images = [_read_split(split, files, found) for split, found in zip(source.splits, findings, strict=True)]
    _find_unpaired(source, findings[0])
    names = sorted({str(item.category) for split in images for image in split for item in image.objects})
    categories = [Category(index, name) for index, name in enumerate(names, start=1)]
    return tuple(
        raw_annotations(split.annotations, split.image_dir, read, categories, "object", found, "xyxy")
        for split, read, found in zip(source.splits, images, findings, strict=True)
    )


def parse_xml(
    data: bytes, on_fault: Callable[[int, str], None]
) -> tuple[tuple[int, int] | None, tuple[LabeledObject, ...]]:
    """Read an annotation file.

    Args:
        data: its bytes, in the encoding that the file declares.
        on_fault: called with the number of an object that cannot be read, which is left out, and with the reason.

    Returns:
        The image's width and height in pixels, None where the file states none that can be used, and the objects.

    Raises:
        ValueError: the whole file cannot be read; the message says why.
    """
    content = _decoded(data)
    # A document type can declare entities that grow to gigabytes, and the parser expands them before it lets anyone
    # object. In every encoding it knows, letters are their ASCII bytes, in UTF-16 with zeros between them.
    if "<!DOCTYPE" in content if isinstance(content, str) else b"<!DOCTYPE" in content.replace(b"\0", b""):
        raise ValueError("declares a document type, which annotations have no use for")
    try:
        root = ET.fromstring(content)
    except (ET.ParseError, LookupError) as error:
        raise ValueError(f"is not well-formed XML ({error})") from None
    if root.tag != "annotation":
        raise ValueError(f"holds <{root.tag}> in place of <annotation>")
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        try:
            objects.append(_object(number, element))
        except ValueError as error:
            on_fault(number, str(error))
    return _size(root), tuple(objects)


def _decoded(data: bytes) -> str | bytes:
    """The text of an XML file in the encoding that it declares; its bytes where it declares none.

    The parser itself knows no encoding with several bytes to a character but UTF-8 and UTF-16.
    """
    declared = DECLARED_ENCODING.match(data)
    if data.startswith(codecs.BOM_UTF8):
        name = "utf-8-sig"
    elif declared is not None:
        name = declared[1].decode()
    else:
        return data
    try:
        codec = codecs.lookup(name).name
        return data.decode(READ_AS.get(codec, codec))
    except LookupError:
        raise ValueError(f"declares the unknown encoding {name}") from None
    except UnicodeError:
        raise ValueError(f"is not text in {name}, the encoding that it declares") from None


def _is_voc(folder: Path) -> bool:
    annotations = folder / "Annotations"
    without_lists = _image_dir(folder).is_dir() and any(annotations.glob("*.xml"))
    return annotations.is_dir() and ((folder / LISTS).is_dir() or without_lists)


def _image_dir(folder: Path) -> Path:
    """JPEGImages, or else the `images` of Label Studio."""
    return next((folder / name for name in IMAGE_DIRS if (folder / name).is_dir()), folder / IMAGE_DIRS[0])


def _source(folder: Path, options: FindOptions) -> DatasetSource:
    lists = {name: folder / LISTS / f"{name}.txt" for name in ("trainval", "train", "val", "test", "default")}
    if not (folder / LISTS).is_dir():
        lists = {"default": folder / "Annotations"}
    splits = {name: SplitFiles(path, _image_dir(folder)) for name, path in lists.items() if path.exists()}
    if "test" in splits and not exists(_annotation_path(lists["test"], _listed_names(lists["test"])[0])):
        del splits["test"]  # VOC2012 does not publish the annotations of its test images.
    pairs = [("trainval", "test"), ("train", "val"), ("train", "test")]
    pair = next((pair for pair in pairs if {*pair} <= splits.keys()), None)
    if pair is None:
        pair = next(((train, "") for train in ("trainval", "train", "default") if train in splits), None)
    if pair is None:
        raise DataError(f"{folder / LISTS}: no list of training images; put train.txt or trainval.txt there")
    name = folder.resolve().name
    options.refuse_files(name, "its ImageSets/Main")
    return DatasetSource(name, splits[pair[0]], splits.get(pair[1]), "voc")


def _listed_names(path: Path) -> list[str]:
    """The image names, without suffix, in a list of ImageSets/Main, or of all annotation files; duplicates stay."""
    if path.is_dir():
        return [file.relative_to(path).with_suffix("").as_posix() for file in path.rglob("*.xml")]
    names = read_lines(path, "the list of image names")
    if not names:
        raise DataError(f"{path}: is empty; list one image name without suffix in each line")
    return names


def _annotation_path(listing: Path, name: str) -> Path:
    """The XML file of an image that a list names."""
    folder = listing if listing.is_dir() else listing.parents[2] / "Annotations"
    return folder / f"{name}.xml"


def _image_files(image_dir: Path) -> dict[str, list[str]]:
    """The image files of every image name, relative to the folder, a.jpg before a.png."""
    files = dict[str, list[str]]()
    for path in sorted(path.relative_to(image_dir) for path in images_below(image_dir)):
        files.setdefault(path.with_suffix("").as_posix(), []).append(path.as_posix())
    return files


def _find_unpaired(source: DatasetSource, findings: Findings) -> None:
    """Report annotations without an image; of a listed one, it is the image that is reported missing."""
    listed = {
        _annotation_path(split.annotations, name)
        for split in source.splits
        for name in _listed_names(split.annotations)
    }
    folders = {source.train.image_dir: source.train.annotations.parents[2] / "Annotations"}
    report_unpaired(labels_without_image(folders, listed, ".xml"), findings)


def _read_split(split: SplitFiles, files: dict[str, list[str]], findings: Findings) -> list[LabeledImage]:
    names = _listed_names(split.annotations)
    repeated = len(names) - len(set(names))
    if repeated:
        message = f"{split.annotations}: lists images twice, read once"
        findings.add("image-listed-twice", message, repeated, Severity.WARNING)
    for name in sorted(set(names)):
        for other in files.get(name, [])[1:]:
            message = f"{split.image_dir / other}: is not read, as {files[name][0]} has the same annotation; rename one"
            findings.add("annotation-shared", message, severity=Severity.WARNING)
    # A listed image that is not there keeps its name, so that the check of the image files reports it.
    by_file = sorted((files.get(name, [f"{name}.jpg"])[0], name) for name in set(names))
    images = (_read_image(split, file_name, name, findings) for file_name, name in by_file)
    return [image for image in images if image is not None]


def _read_image(split: SplitFiles, file_name: str, name: str, findings: Findings) -> LabeledImage | None:
    """One image; None, and a finding, when its annotation or size cannot be read."""
    path = _annotation_path(split.annotations, name)

    def on_fault(number: int, reason: str) -> None:
        findings.add("object-malformed", f"{path}: object {number} {reason}; correct or remove it")

    try:
        data = read_bytes(path, MostBytes.LABELS)
    except (OSError, ValueError) as error:  # ValueError: a name that holds a zero byte
        reason = getattr(error, "strerror", None) or error
        remedy = f"restore it or remove {name!r} from {split.annotations}{there_is(path)}"
        findings.add("annotation-missing", f"{path}: cannot be read ({reason}); {remedy}")
        return None
    try:
        stated, objects = parse_xml(data, on_fault)
    except ValueError as error:
        findings.add("annotation-malformed", f"{path}: {error}; export or download the file again")
        return None
    try:
        size = stated or upright_size(split.image_dir / file_name)
    except DataError as error:
        findings.add("image-unreadable", f"{path}: states no size, and {error}")
        return None
    return LabeledImage(file_name, size, path, hashlib.sha256(data).digest(), objects)


def _object(number: int, element: ET.Element) -> LabeledObject:
    name = _text(element, "name")
    if not name:
        raise ValueError("has no <name>")
    box = element.find("bndbox")  # the object's own: those of its parts lie one level deeper
    if box is None:
        raise ValueError("has no <bndbox>")
    left, top, right, bottom = (_number(box, corner) for corner in CORNERS)
    # VOC counts pixels from one and includes the last one: 1, 1, w, h covers the whole image.
    box_xywh = (left - 1, top - 1, right - left + 1, bottom - top + 1)
    return LabeledObject(number, name, box_xywh, _text(element, "difficult") == "1")


def _text(element: ET.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(box: ET.Element, corner: str) -> float:
    text = _text(box, corner)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"has {text!r} for <{corner}>") from None


def _size(root: ET.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(_text(root, f"size/{side}"))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
