from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bmcli.data.checks import check_prepared
from bmcli.data.preparation import prepare
from bmcli.data.sources import describe_left_out, image_folder
from bmcli.errors import BmcliError
from bmcli.raw_columns import FileColumn
from bmcli.recipe.data import DataOptions
from bmcli.specs import PreparedData
from tests.pictures import encoded, pixels, save, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four cats and three dogs, 5 x 4 pixels each."""
    for number in range(4):
        write(tmp_path / "pets" / "cat" / f"{number}.png", pixels(5, 4, seed=number))
    for number in range(3):
        write(tmp_path / "pets" / "dog" / f"{number}.JPG", pixels(5, 4, seed=10 + number), "jpg")
    return tmp_path / "pets"


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for number in range(count):
            write(tmp_path / "splits" / split / "ab"[number % 2] / f"{number}.png", pixels(3, 3, seed=number))
    return tmp_path / "splits"


def read(folder: Path, **options: str) -> image_folder.SourceRows:
    return image_folder.read(image_folder.Options(path=str(folder), **options))


def fault(folder: Path, **options: str) -> str:
    with pytest.raises(BmcliError) as caught:
        read(folder, **options)
    return str(caught.value)


def prepared(folder: Path, cache: Path, **options: object) -> PreparedData:
    described = {
        "source": {"kind": "image_folder", "path": str(folder)},
        "split": {"train": 0.5, "validation": 0.25, "test": 0.25, "stratify": "label"},
        **options,
    }
    data = DataOptions.model_validate(described)
    return prepare(data, data.targets_by_name(), 0, cache)


def test_a_folder_is_a_class(folder: Path) -> None:
    rows = read(folder)
    assert rows.columns["label"].to_pylist() == ["cat"] * 4 + ["dog"] * 3
    image = rows.columns["image"]
    assert isinstance(image, FileColumn)
    assert len(rows) == len(image) == 7
    assert image.read(5) == (folder / "dog" / "1.JPG").read_bytes()
    assert image.take(np.array([6, 2])).read(1) == (folder / "cat" / "2.png").read_bytes()
    assert rows.split is None
    assert rows.describe_row(4).endswith("dog/0.JPG")
    assert image_folder.Options(path="x").default_targets() == {"label": {"kind": "category"}}


def test_folders_named_after_splits_are_splits(splits: Path) -> None:
    rows = read(splits)
    assert rows.split is not None
    # In the order of the folders' names.
    assert rows.split.tolist() == ["test"] * 2 + ["train"] * 4 + ["validation"] * 2
    assert rows.columns["label"].to_pylist() == ["a", "b", "a", "a", "b", "b", "a", "b"]


def test_hidden_files_and_those_of_desktops_do_not_count(folder: Path) -> None:
    (folder / "cat" / ".DS_Store").write_bytes(b"")
    (folder / "cat" / "Thumbs.db").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / "README.md").write_text("About.")
    for copy in ("cat/._0.png", "dog/.ipynb_checkpoints/0-checkpoint.png", "__MACOSX/cat/0.png"):
        write(folder / copy, pixels(5, 4))
    rows = read(folder)
    assert len(rows) == 7
    left_out = [".cache", "README.md", "__MACOSX", "cat/.DS_Store", "cat/._0.png", "cat/Thumbs.db"]
    assert sorted(rows.left_out) == sorted([*left_out, "dog/.ipynb_checkpoints"])
    assert describe_left_out(rows.left_out).startswith("7 files or folders left out, which hold no data: '")


def test_what_is_left_out_is_said_when_the_data_is_prepared(
    folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "cat" / "._0.png", pixels(5, 4))
    prepared(folder, cache)
    assert "note: 1 file or folder left out, which hold no data: 'cat/._0.png'." in capsys.readouterr().err


def test_pictures_are_prepared_as_their_pixels(folder: Path, cache: Path) -> None:
    found = prepared(folder, cache)
    (column,) = found.spec.inputs
    assert (column.kind, column.shape, column.raw_dtype) == ("image", (5, 4, 3), "string")
    assert sum(found.spec.counts.values()) == 7
    seen = {
        array.tobytes() for split in ("train", "validation", "test") for array in found.split(split).inputs["image"]
    }
    assert {pixels(5, 4, seed=number).tobytes() for number in range(4)} <= seen


def test_a_class_that_is_renamed_is_other_data_and_a_folder_that_is_moved_is_not(folder: Path, tmp_path: Path) -> None:
    def fingerprint() -> str:
        return image_folder.Options(path=str(folder)).fingerprint()

    first = fingerprint()
    folder = folder.rename(tmp_path / "moved")
    assert fingerprint() == first
    (folder / "dog").rename(folder / "wolf")
    assert fingerprint() != first
    (folder / "wolf").rename(folder / "dog")
    (folder / "cat" / "0.png").write_bytes(encoded(pixels(5, 4, seed=99)))
    assert fingerprint() != first


def test_augmentation_is_no_part_of_the_prepared_data(folder: Path, cache: Path) -> None:
    assert prepared(folder, cache, augment={"image": ("flip",)}).folder == prepared(folder, cache).folder


# Folders that are wrong


def test_an_empty_class_is_a_fault(folder: Path) -> None:
    (folder / "fish").mkdir()
    assert fault(folder).endswith("pets/fish: the folder of the class is empty.")


def test_one_class_is_a_fault(folder: Path, cache: Path) -> None:
    for path in (folder / "dog").iterdir():
        path.unlink()
    (folder / "dog").rmdir()
    with pytest.raises(BmcliError, match="every training row has the class 'cat', so there is nothing to learn"):
        prepared(folder, cache)
    assert len(read(folder)) == 4  # as a model may be measured on


def test_one_class_in_the_training_folder_is_a_fault(splits: Path, cache: Path) -> None:
    for path in (splits / "train" / "b").iterdir():
        path.unlink()
    (splits / "train" / "b").rmdir()
    with pytest.raises(BmcliError, match="every training row has the class 'a'"):
        prepared(splits, cache, split={})


def test_a_missing_folder_names_the_nearest(folder: Path) -> None:
    with pytest.raises(BmcliError) as caught:
        read(folder.with_name("pats"))
    assert str(caught.value).endswith("pats: no such folder.")
    assert caught.value.faults[0].suggestion == "Did you mean 'pets'?"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"")
    assert fault(tmp_path / "a.zip").endswith("a.zip: expected a folder, found a file.")


def test_pictures_without_a_class_are_a_fault(folder: Path, tmp_path: Path) -> None:
    assert fault(folder / "cat").endswith("pets/cat: has no folder of a class.")
    write(folder / "stray.png", pixels(5, 4))
    assert "stray.png: is beside the folders of the classes and not in one of them." in fault(folder)


def test_files_that_are_no_pictures_by_content_and_name_are_left_out_and_named(folder: Path) -> None:
    before = len(read(folder))
    (folder / "cat" / "5.txt").write_text("words")
    (folder / "dog" / "BMW").write_text("BMW 325i of my neighbour")
    (folder / "dog" / "empty").write_bytes(b"")
    found = read(folder)
    assert (len(found), found.left_out) == (before, ("cat/5.txt", "dog/BMW", "dog/empty"))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_a_picture_with_the_name_of_another_file_is_a_fault(folder: Path, form: str) -> None:
    (folder / "cat" / "5.old").write_bytes(save(pixels(5, 4), form))
    assert "cat/5.old: expected a picture, that is a file ending in one of .jpg," in fault(folder)


def test_a_folder_among_pictures_and_a_picture_that_cannot_be_read_are_faults(folder: Path) -> None:
    (folder / "cat" / "more").mkdir()
    assert "cat/more: expected pictures of the class 'cat', found a folder." in fault(folder)
    (folder / "cat" / "more").rmdir()
    (folder / "cat" / "5.HEIC").write_text("words")
    with pytest.raises(BmcliError, match=r"cat/5.HEIC: .heic pictures are not read") as caught:
        read(folder)
    assert "Convert them to JPEG first" in caught.value.faults[0].suggestion


def test_a_class_beside_splits_is_a_fault(splits: Path) -> None:
    write(splits / "cat" / "1.png", pixels(3, 3))
    assert "cat: is not the name of a split, but the folder 'test' beside it is." in fault(splits)


def test_a_split_that_is_there_twice_is_a_fault(splits: Path) -> None:
    write(splits / "validation" / "a" / "1.png", pixels(3, 3))
    assert "two folders are the same split: test, train, val, validation." in fault(splits)


# Files that are wrong, in preparation, each named


def corrupt(folder: Path, cache: Path, content: bytes | None, **options: object) -> str:
    path = folder / "cat" / "bad.png"
    path.unlink(missing_ok=True)
    if content is None:
        path.symlink_to(folder / "nowhere.png")
    else:
        path.write_bytes(content)
    with pytest.raises(BmcliError) as caught:
        prepared(folder, cache, inputs={"image": {"kind": "image", "size": (4, 4)}}, **options)
    return str(caught.value)


def test_a_text_file_named_png_is_a_fault_with_its_path(folder: Path, cache: Path) -> None:
    assert "pets/cat/bad.png  column 'image': expected a JPEG, PNG, BMP, GIF, WebP or TIFF" in corrupt(
        folder, cache, b"words"
    )


def test_a_truncated_picture_is_a_fault_with_its_path(folder: Path, cache: Path) -> None:
    cut = encoded(pixels(64, 64), "jpg")[:-200]
    assert "cat/bad.png  column 'image': the JPEG picture is damaged or cut off." in corrupt(folder, cache, cut)


def test_a_picture_of_100_megapixels_is_a_fault_before_it_is_decoded(folder: Path, cache: Path) -> None:
    header = encoded(pixels(5, 4))[:16] + (10_000).to_bytes(4, "big") * 2 + encoded(pixels(5, 4))[24:]
    assert (
        "cat/bad.png  column 'image': expected a picture of at most 50 megapixels, received 10000 x 10000 pixels"
        in corrupt(folder, cache, header)
    )


def test_a_png_named_jpg_is_read_by_its_content(folder: Path, cache: Path) -> None:
    write(folder / "dog" / "9.jpg", pixels(5, 4, seed=50), "png")
    found = prepared(folder, cache)
    everything = [found.split(split).inputs["image"] for split in ("train", "validation", "test")]
    assert any((row == pixels(5, 4, seed=50)).all() for array in everything for row in array)


def test_a_file_that_cannot_be_read_is_a_fault_with_its_path(folder: Path, cache: Path) -> None:
    assert "cat/bad.png: no such file." in corrupt(folder, cache, None)
    if os.geteuid() != 0:
        (folder / "cat" / "bad.png").unlink()
        (folder / "cat" / "0.png").chmod(0)
        with pytest.raises(BmcliError, match="permission denied"):
            prepared(folder, cache)


def test_pictures_that_cannot_be_read_are_skipped_or_filled(folder: Path, cache: Path) -> None:
    (folder / "cat" / "bad.png").write_bytes(b"words")
    (folder / "dog" / "bad.jpg").write_bytes(encoded(pixels(64, 64), "jpg")[:-200])
    options = {"inputs": {"image": {"kind": "image", "size": (4, 4)}}}
    found = prepared(folder, cache, invalid="skip", **options)
    assert sum(found.spec.counts.values()) == 7
    assert (found.spec.skipped_rows, dict(found.spec.invalid_cells)) == (2, {"image": 2})
    filled = prepared(folder, cache, invalid="fill", **options)
    assert sum(filled.spec.counts.values()) == 9
    black = [not row.any() for split in ("train", "validation", "test") for row in filled.split(split).inputs["image"]]
    assert sum(black) == 2


def test_pictures_that_all_look_the_same_are_found_by_the_checks(folder: Path, cache: Path) -> None:
    assert not [each for each in check_prepared(prepared(folder, cache)) if each.check == "flaw"]
    for path in (*(folder / "cat").iterdir(), *(folder / "dog").iterdir()):
        write(path, np.zeros((5, 4, 3), "uint8"), "png")
    (found,) = (each for each in check_prepared(prepared(folder, cache)) if each.check == "flaw")
    assert "'image': all of" in found.message
    assert "--pictures" in found.suggestion


# A table that names files


@pytest.fixture
def table(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "pets.csv"
    path.write_text("age,file,kind\n3,cat/0.png,a\n,dog/1.JPG,b\n5,cat/2.png,a\n1,dog/2.JPG,b\n2,cat/1.png,b\n")
    return path


def test_a_table_names_pictures_beside_other_columns(folder: Path, table: Path) -> None:
    rows = read(folder, table=str(table))
    assert list(rows.columns) == ["age", "file", "kind"]
    assert rows.columns["file"].read(1) == (folder / "dog" / "1.JPG").read_bytes()
    assert rows.columns["kind"].to_pylist() == ["a", "b", "a", "b", "b"]
    assert rows.describe_row(1).endswith("dog/1.JPG)")
    assert "pets.csv:3 (" in rows.describe_row(1)
    assert image_folder.Options(path="x", table="t.csv").default_targets() == {}


BY_KIND = {"train": 0.5, "validation": 0.25, "test": 0.25, "stratify": "kind"}


def test_pictures_and_numbers_are_prepared_together(folder: Path, table: Path, cache: Path) -> None:
    source = {"kind": "image_folder", "path": str(folder), "table": str(table)}
    found = prepared(folder, cache, source=source, targets={"kind": {"kind": "category"}}, split=BY_KIND)
    assert {column.name: column.kind for column in found.spec.inputs} == {"age": "number", "file": "image"}


def test_a_picture_that_is_missing_from_the_folder_is_a_fault(folder: Path, table: Path, cache: Path) -> None:
    (folder / "cat" / "2.png").unlink()
    source = {"kind": "image_folder", "path": str(folder), "table": str(table)}
    with pytest.raises(BmcliError) as caught:
        prepared(folder, cache, source=source, targets={"kind": {"kind": "category"}}, split=BY_KIND)
    assert "pets.csv:4 (" in str(caught.value)
    assert "cat/2.png)  column 'file': " in str(caught.value)
    assert "cat/2.png: no such file." in str(caught.value)


def test_a_column_or_table_that_is_not_there_is_a_fault(folder: Path, table: Path) -> None:
    with pytest.raises(BmcliError) as caught:
        read(folder, table=str(table), column="fiel")
    assert "no column 'fiel'" in str(caught.value)
    assert caught.value.faults[0].suggestion == "Did you mean 'file'?"
    with pytest.raises(BmcliError, match=r"peds.csv: no such file"):
        read(folder, table=str(table.with_name("peds.csv")))
    with pytest.raises(BmcliError, match="no such folder"):
        read(folder / "lost", table=str(table))


def test_options_that_do_nothing_are_faults() -> None:
    with pytest.raises(ValueError, match="`column` has no effect without `table`"):
        image_folder.Options(path="x", column="file")
    with pytest.raises(ValueError, match=r"the ending of 'x.xlsx' is not that of a table"):
        image_folder.Options(path="x", table="x.xlsx")
