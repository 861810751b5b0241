"""Reading data.yaml and finding what it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ciod_core.data.annotations.table import Category
from ciod_core.data.formats.source import SplitFiles, resolve_dataset
from ciod_core.errors import DataError


def make_yolo(folder: Path, images: str = "images/{}", **changes: Any) -> Path:
    """A YOLO folder with one image in each split; `changes` are made to data.yaml, where None removes a key."""
    for split in ("train", "val"):
        write_image(folder / images.format(split) / f"{split}.jpg")
    content = {"train": images.format("train"), "val": images.format("val"), "names": ["cat", "dog"]}
    content = {key: value for key, value in (content | changes).items() if value is not None}
    (folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return folder


def write_image(path: Path, size: tuple[int, int] = (20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def image_folders(folder: Path, name: str = "data.yaml") -> tuple[Path, Path]:
    source = resolve_dataset(str(folder / name))
    assert source.train.annotations == source.val.annotations == folder / name
    return source.train.image_dir, source.val.image_dir


class TestPaths:
    @pytest.mark.parametrize("images", ["images/{}", "{}/images", "{}"])
    def test_folders_relative_to_the_file(self, tmp_path: Path, images: str) -> None:
        make_yolo(tmp_path / "pets", images)
        source = resolve_dataset(str(tmp_path / "pets"))
        assert (source.name, source.format) == ("pets", "yolo")
        train = SplitFiles(tmp_path / "pets" / "data.yaml", tmp_path / "pets" / images.format("train"))
        assert source.train == train
        assert source.val.image_dir == tmp_path / "pets" / images.format("val")

    def test_any_yaml_is_taken_by_name(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        (tmp_path / "data.yaml").rename(tmp_path / "pets8.yml")
        source = resolve_dataset(str(tmp_path / "pets8.yml"))
        assert (source.name, source.train.image_dir) == ("pets8", tmp_path / "images" / "train")

    @pytest.mark.parametrize("path", ["data", "./data", "../x/data", "data\\"])
    def test_a_path_relative_to_the_file(self, tmp_path: Path, path: str) -> None:
        make_yolo(tmp_path / "x" / "data", path=path)
        (tmp_path / "x" / "data" / "data.yaml").rename(tmp_path / "x" / "data.yaml")
        assert image_folders(tmp_path / "x")[0] == tmp_path / "x" / "data" / "images" / "train"

    def test_an_absolute_path(self, tmp_path: Path) -> None:
        make_yolo(tmp_path / "data", path=str(tmp_path / "data"))
        (tmp_path / "data" / "data.yaml").rename(tmp_path / "data.yaml")
        assert image_folders(tmp_path)[1] == tmp_path / "data" / "images" / "val"

    def test_a_path_of_another_machine_gives_way_to_the_folder_of_the_file(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, path="/content/drive/pets")
        assert image_folders(tmp_path)[0] == tmp_path / "images" / "train"

    def test_a_climb_too_many_is_dropped(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, "{}/images", train="../train/images", val="..\\val\\images")
        assert image_folders(tmp_path) == (tmp_path / "train" / "images", tmp_path / "val" / "images")

    def test_a_climb_that_resolves_is_kept(self, tmp_path: Path) -> None:
        make_yolo(tmp_path / "here", train="../other/images")
        write_image(tmp_path / "other" / "images" / "a.jpg")
        write_image(tmp_path / "here" / "other" / "images" / "a.jpg")
        assert image_folders(tmp_path / "here")[0] == tmp_path / "other" / "images"

    @pytest.mark.parametrize("key", ["valid", "validation", "test"])
    def test_other_names_of_the_validation_split(self, tmp_path: Path, key: str) -> None:
        make_yolo(tmp_path, val=None, **{key: "images/val"})
        assert image_folders(tmp_path)[1] == tmp_path / "images" / "val"

    def test_several_folders_share_their_parent(self, tmp_path: Path) -> None:
        write_image(make_yolo(tmp_path, train=["images/train", "images/more"]) / "images" / "more" / "a.jpg")
        assert image_folders(tmp_path)[0] == tmp_path / "images"


class TestLists:
    @pytest.mark.parametrize(
        "text",
        [
            "./images/train/train.jpg\n",
            "images/train/train.jpg",
            "\ufeffimages\\train\\train.jpg\r\n\r\n",
            "{folder}/images/train/train.jpg\n",
        ],
    )
    def test_names_in_a_list(self, tmp_path: Path, text: str) -> None:
        make_yolo(tmp_path, train="train.txt")
        (tmp_path / "train.txt").write_bytes(text.format(folder=tmp_path).encode())
        source = resolve_dataset(str(tmp_path))
        assert list(source.train.listed) == [tmp_path / "images" / "train" / "train.jpg"]
        assert image_folders(tmp_path)[0] == tmp_path / "images" / "train"

    def test_names_relative_to_the_dataset(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, train="lists/train.txt")
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists" / "train.txt").write_text("images/train/train.jpg\nimages/train/gone.jpg\n")
        source = resolve_dataset(str(tmp_path))
        assert [path.name for path in source.train.listed] == ["train.jpg", "gone.jpg"]
        assert image_folders(tmp_path)[0] == tmp_path / "images" / "train"

    def test_a_list_beside_a_folder(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, train=["images/train", "more.txt"])
        (tmp_path / "more.txt").write_text(f"{write_image(tmp_path / 'images' / 'b' / 'b.png')}\n")
        source = resolve_dataset(str(tmp_path))
        assert [path.name for path in source.train.listed] == ["train.jpg", "b.png"]
        assert image_folders(tmp_path)[0] == tmp_path / "images"

    def test_a_list_that_is_not_utf8(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, train="train.txt")
        (tmp_path / "train.txt").write_bytes("a.jpg\né.jpg".encode("latin-1"))
        with pytest.raises(DataError, match=r"train\.txt: line 2 is not UTF-8 text; save the file as UTF-8"):
            resolve_dataset(str(tmp_path))

    def test_a_list_that_is_something_else(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, train="train.txt")
        (tmp_path / "train.txt").write_text("a" * 5000)
        source = resolve_dataset(str(tmp_path))
        assert list(source.train.listed) == [tmp_path / ("a" * 5000)]

    def test_hidden_files_and_other_files_are_no_images(self, tmp_path: Path) -> None:
        folder = make_yolo(tmp_path) / "images" / "train"
        for name in ("._train.jpg", "notes.txt", "Thumbs.db"):
            (folder / name).touch()
        write_image(folder / "sub" / "UPPER.JPG")
        source = resolve_dataset(str(tmp_path))
        assert {path.name for path in source.train.listed} == {"train.jpg", "UPPER.JPG"}


class TestNames:
    def test_a_list(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, names=["cat", " wild dog ", 7], nc=3)
        expected = (Category(0, "cat"), Category(1, "wild dog"), Category(2, "7"))
        assert resolve_dataset(str(tmp_path)).categories == expected

    def test_a_dictionary_in_any_order(self, tmp_path: Path) -> None:
        make_yolo(tmp_path, names={2: "dog", 0: "cat"})
        assert resolve_dataset(str(tmp_path)).categories == (Category(0, "cat"), Category(2, "dog"))

    @pytest.mark.parametrize(
        "name", ["7", "-3", "0", "001", "02146", "0x1F", "0b11", "12:30", "1_000", "+5", "-0", "08", "1e3", "'010'"]
    )
    def test_numbers_keep_their_spelling(self, tmp_path: Path, name: str) -> None:
        make_yolo(tmp_path)
        for names in (f"[cat, {name}]", f"{{0: cat, 1: {name}}}"):
            (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n")
            assert resolve_dataset(str(tmp_path)).categories[1] == Category(1, name.strip("'"))

    def test_merged_keys_are_no_repeated_ones(self, tmp_path: Path) -> None:
        make_yolo(tmp_path)
        own = (tmp_path / "data.yaml").read_text()
        (tmp_path / "data.yaml").write_text(f"base: &base {{nc: 2, train: elsewhere}}\n<<: *base\n{own}")
        assert len(resolve_dataset(str(tmp_path)).categories) == 2

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"names": ["cat", 1.5]}, r"names\[1\]: 1.5 is not a name; write it in quotes"),
            ({"names": {0: "cat", "01": "dog"}}, r"names: '01' is not a class index"),
            ({"nc": 3}, r"nc: 3, but names holds 2; correct one of them"),
            ({"names": ["cat", "dog", "cat"]}, r"names: 'cat' is the name of classes 0 and 2; rename one"),
            ({"names": {0: "cat", "dog": 1}}, r"names: 'dog' is not a class index"),
            ({"names": {-1: "cat"}}, r"names: -1 is not a class index"),
            ({"names": ["cat", True]}, r"names\[1\]: True is not a name; write it in quotes"),
            ({"names": ["cat", " "]}, r"names\[1\]: ' ' is not a name"),
            ({"names": []}, r"names: is missing or empty"),
            ({"names": None}, r"names: is missing or empty"),
            ({"names": "cat"}, r"names: is missing or empty"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        make_yolo(tmp_path, **changes)
        with pytest.raises(DataError, match=rf"data\.yaml: {message}"):
            resolve_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, r"train: is missing; name the folder or the \.txt list"),
        ({"train": 7}, r"train: 7 is neither a path nor a list of paths"),
        ({"train": ["images/train", 7]}, r"train: \['images/train', 7\] is neither a path nor a list"),
        ({"val": "nowhere"}, r"val: .*nowhere does not exist; correct val or path"),
        ({"path": 7}, r"path: 7 is not a folder"),
        ({"kpt_shape": [17, 3]}, r"kpt_shape: keypoint labels are not read"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    make_yolo(tmp_path, **changes)
    with pytest.raises(DataError, match=rf"data\.yaml: {message}"):
        resolve_dataset(str(tmp_path))


def test_a_split_without_images(tmp_path: Path) -> None:
    make_yolo(tmp_path)
    (tmp_path / "images" / "val" / "val.jpg").unlink()
    with pytest.raises(DataError, match=r"data\.yaml: no images in .*val; correct the entry or restore the images"):
        resolve_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"names: [a\ntrain: b", r"is not valid YAML: .* at line 2; correct the file"),
        (b"made: 2020-99-99", r"is not valid YAML: month must be in 1"),
        (b"names: \x07", r"is not valid YAML"),
        (b"names: [a]\nnames: [b]", r"is not valid YAML: 'names' is there twice at line 2"),
        (b"names: {0: a, 0: b}", r"is not valid YAML: '0' is there twice at line 1"),
        (b"? [a]\n: b", r"is not valid YAML: found unhashable key"),
        (b"just text", r"holds no keys"),
        (b"", r"holds no keys"),
        (b"names: [\xe9]", r"line 1 is not UTF-8 text"),
    ],
)
def test_a_broken_file(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "data.yaml").write_bytes(text)
    with pytest.raises(DataError, match=rf"data\.yaml: {message}") as caught:
        resolve_dataset(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("val", [None, "", []])
def test_validation_that_may_be_missing(tmp_path: Path, val: Any) -> None:
    folder = make_yolo(tmp_path / "pets", val=val)
    source = resolve_dataset(str(folder))
    assert source.val is None and source.train.image_dir == folder / "images" / "train"
    make_yolo(folder, val="images/gone")
    with pytest.raises(DataError, match="does not exist"):
        resolve_dataset(str(folder))
