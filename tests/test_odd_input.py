"""Data sets that are incomplete, or hold what is not theirs: nothing is read wrongly without a word."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, ROOT, Call, Project
from PIL import Image, PngImagePlugin
from test_datasets import JPEG, make_huggingface, make_tar, named, picture, put, read

from stages.common import unpacked, workers
from stages.common.errors import UserError
from stages.common.images import open_rgb
from stages.common.params import Columns
from stages.ingest.classes import own_names, refuse_unsure
from stages.ingest.dataset import check_listing
from stages.ingest.datasets import Listing
from stages.ingest.folders import read_folder
from stages.ingest.probe import probe

Ingest = Callable[..., tuple[list[str], dict[str, str], str]]


@pytest.fixture
def ingest(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    """Runs the stage on the folder `root`; gives the classes, {image_id: class} and what was printed, or the error."""
    monkeypatch.chdir(project.folder)

    def run(**entry: Any) -> tuple[list[str], dict[str, str], str]:
        project.edit(lambda params: params["datasets"].update(x={"root": "root", **entry}))
        done = call("ingest", "--dataset", "x")
        if done.code:
            assert len(done.err.splitlines()) == 1
            return [], {}, done.err
        names: list[str] = pq.read_table("data/x/classes.parquet")["name"].to_pylist()
        rows = pq.read_table("data/x/images.parquet").to_pylist()
        return names, {row["image_id"]: names[row["label"]] for row in rows}, done.out

    return run


def sample(key: str, label: str, ending: str = "jpg") -> dict[str, bytes]:
    return {f"{key}.{ending}": JPEG, f"{key}.cls": label.encode()}


def by_id(listing: Listing) -> dict[str, str]:
    return {image_id: listing.names[int(label or 0)] for image_id, label in listing.images}


def parquet(path: Path, labels: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [{"bytes": JPEG, "path": None}] * len(labels), "label": labels}), path)


# What is not the data set's


@pytest.mark.parametrize(
    "path",
    [
        "cat/.ipynb_checkpoints/a-checkpoint.jpg",
        "cat/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "cat/._a.jpg",
        "cat/deep/.cache/a.jpg",
        "__MACOSX/cat/a.jpg",
        ".Trash-1000/files/a.jpg",
        "$RECYCLE.BIN/S-1-5/a.jpg",
        "System Volume Information/a.jpg",
        "#recycle/a.jpg",
        "lost+found/a.jpg",
    ],
)
def test_files_of_other_programs_are_left_out_with_a_word(path: str, tmp_path: Path) -> None:
    put(tmp_path, "cat/a.jpg", "cat/deep/b.jpg", "dog/a.jpg", path)
    listing = read("folder", tmp_path)
    assert listing.names == ["cat", "dog"]
    assert len(listing.images) == 3
    assert listing.notes == (f"1 images of other programs are left out, such as '{path}'",)


def test_files_of_other_programs_in_archives_are_left_out(tmp_path: Path) -> None:
    members = {**sample("./1", "cat"), **sample("__MACOSX/1", "dog"), **sample("._1", "emu")}
    make_tar(tmp_path / "tars/0.tar", members)
    put(tmp_path, "tars/._0.tar")
    assert read("webdataset", tmp_path / "tars").names == ["cat"]
    parquet(tmp_path / "hf/test.parquet", ["cat", "dog"])
    parquet(tmp_path / "hf/.cache/test.parquet", ["emu"])
    assert read("huggingface", tmp_path / "hf").names == ["cat", "dog"]


def test_links_to_folders_are_refused_and_the_advice_works(ingest: Ingest) -> None:
    put(Path("elsewhere"), "cat/1.jpg", "cat/more/2.jpg", "dog/1.jpg")
    put(Path("root"), "dog/3.jpg")
    Path("root/cat's").symlink_to(Path("elsewhere/cat").absolute())
    Path("root/dog/more").symlink_to(Path("elsewhere/dog").absolute())
    for _ in range(2):
        _, _, error = ingest(reader="folder")
        assert "DVC does not notice a change behind a link to a folder" in error
        advice = re.search(r"`(rm '.*)`", error)
        assert advice
        subprocess.run(advice[1], shell=True, check=True)
    names, images, _ = ingest(reader="folder")
    assert (names, len(images)) == (["cat's", "dog"], 4)
    # DVC follows a root that is a link.
    Path("root").rename("given")
    Path("root").symlink_to("given")
    assert len(ingest(reader="folder")[1]) == 4


def test_links_to_folders_of_archives_and_lists_are_refused(tmp_path: Path) -> None:
    make_tar(tmp_path / "elsewhere/0.tar", sample("1", "cat"))
    (tmp_path / "root").mkdir()
    (tmp_path / "root/test").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="links, such as 'test'"):
        read("webdataset", tmp_path / "root", "test")
    put(tmp_path / "listed", "a.jpg").joinpath("table.csv").write_text("image,label\na.jpg,cat\n")
    (tmp_path / "root/lists").symlink_to(tmp_path / "listed")
    with pytest.raises(UserError, match="links, such as 'lists'"):
        read("manifest", tmp_path / "root", manifest="lists/table.csv")
    parquet(tmp_path / "shards/test.parquet", ["cat"])
    parquet(tmp_path / "hf/train.parquet", ["cat"])
    (tmp_path / "hf/more").symlink_to(tmp_path / "shards")
    with pytest.raises(UserError, match="links, such as 'more'"):
        read("huggingface", tmp_path / "hf")
    put(tmp_path / "folders", "test/cat/1.jpg")
    (tmp_path / "folders/train").symlink_to(put(tmp_path / "train", "cat/1.jpg", "emu/1.jpg"))
    with pytest.raises(UserError, match="links, such as 'train'"):
        read("folder", tmp_path / "folders", "test")


def test_images_beside_the_class_folders_are_told(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/1.jpg", "cover.jpg", "._cover.jpg").joinpath("README.md").write_text("x")
    assert read("folder", tmp_path).notes == (
        f"1 images in '{tmp_path}' are in no class folder and are not read, such as 'cover.jpg'",
    )


# Classes are those of the whole data set


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path / "a", "train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg")
    with pytest.raises(UserError, match="are splits and no classes; set `split` to one of: test, train"):
        read("folder", tmp_path / "a")
    assert read("folder", tmp_path / "a", "test").names == ["cat", "dog"]
    # Classes may have such names.
    put(tmp_path / "b", "train/1.jpg", "test/1.jpg", "data/1.jpg")
    assert read("folder", tmp_path / "b").names == ["data", "test", "train"]
    put(tmp_path / "c", "val/train/1.jpg", "val/test/1.jpg", "train/train/1.jpg", "train/test/1.jpg")
    assert read("folder", tmp_path / "c", "val").names == ["test", "train"]


def test_a_split_without_a_class(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "train/emu/1.jpg", "test/cat/1.jpg", "test/dog/1.jpg")
    put(tmp_path, "extra/gnu/1.jpg", "notes/cat.jpg")  # neither called like a split nor with one of the classes
    listing = read("folder", tmp_path, "test")
    assert listing.names == ["cat", "dog", "emu"]
    assert sorted(listing.images) == [("test/cat/1.jpg", 0), ("test/dog/1.jpg", 1)]
    assert listing.notes == (f"1 of 3 classes have no images in '{tmp_path / 'test'}': emu",)


def test_a_split_of_archives_without_a_class(tmp_path: Path) -> None:
    make_tar(tmp_path / "tars/train/0.tar", {**sample("0", "emu"), **sample("1", "ant")})
    make_tar(tmp_path / "tars/test/0.tar", sample("0", "cat"))
    make_tar(tmp_path / "tars/captions/0.tar", {**sample("0", "A cat sits."), **sample("1", "An emu.")})
    parquet(tmp_path / "hf/train-00000-of-00001.parquet", ["emu", "ant"])
    parquet(tmp_path / "hf/test-00000-of-00001.parquet", ["cat"])
    for reader, root in (("webdataset", tmp_path / "tars"), ("huggingface", tmp_path / "hf")):
        for _ in range(2):  # the second time from what was unpacked
            listing = read(reader, root, "test")
            assert listing.names == ["ant", "cat", "emu"]
            assert listing.notes == ("2 of 3 classes have no images in this split: ant, emu",)
        parquet(tmp_path / "hf/train-00000-of-00001.parquet", ["cat", "emu", "ant"])


# Which name is whose


def test_numbers_are_in_their_order(tmp_path: Path) -> None:
    put(tmp_path, *(f"{number}/a.jpg" for number in range(11)))
    assert read("folder", tmp_path).names == [str(number) for number in range(11)]
    (tmp_path / "m.csv").write_text("image,label\n0/a.jpg,10.0\n1/a.jpg,2.0\n2/a.jpg,-1\n")
    assert read("manifest", tmp_path, manifest="m.csv").names == ["-1", "2.0", "10.0"]
    (tmp_path / "m.csv").write_text("image,label\n0/a.jpg,700000000000000002\n1/a.jpg,700000000000000001\n")
    assert read("manifest", tmp_path, manifest="m.csv").names == ["700000000000000001", "700000000000000002"]
    (tmp_path / "m.csv").write_text("image,label\n0/a.jpg,1.0\n1/a.jpg,1\n")
    with pytest.raises(UserError, match=r"'1' and '1\.0' are the same number"):
        read("manifest", tmp_path, manifest="m.csv")


def test_a_list_of_names_needs_a_certain_order(ingest: Ingest) -> None:
    put(Path("root"), "class_2/a.jpg", "class_10/a.jpg", "other/a.jpg")
    _, _, error = ingest(reader="folder", names=["ten", "two", "rest"])
    assert "names: {'class_10': ..., 'class_2': ...}" in error
    names, images, _ = ingest(reader="folder", names={"class_2": "two", "class_10": "ten"})
    assert sorted(names) == ["other", "ten", "two"]
    assert images["class_10/a.jpg"] == "ten"
    refuse_unsure("x", ["class_02", "class_10", "other"])
    # A published list has an order of its own.
    make_huggingface(Path("root/hf"), [0, 1])
    assert ingest(reader="huggingface", root="root/hf", names=["x10", "x2"])[0] == ["x10", "x2"]


def test_folders_of_wordnet_ids_have_imagenet_s_names(ingest: Ingest) -> None:
    put(Path("root"), "n01440764/a.jpg", "n02123045/b.jpg")
    names, _, out = ingest(reader="folder")
    assert names == ["tench", "tabby cat"]
    assert "2 of 2 classes are WordNet ids of ImageNet's and get ImageNet's names\n" in out
    for given in ({"n01440764": "fish"}, {"Tench": "fish"}, ["fish", "tabby cat"]):
        names, _, out = ingest(reader="folder", names=given)
        assert names == ["fish", "tabby cat"]
        assert "WordNet" not in out
    put(Path("root"), "n99999999/c.jpg", "my_goldfish/d.jpg")
    names, images, out = ingest(reader="folder")
    assert names == ["my goldfish", "tench", "tabby cat", "n99999999"]
    assert images["n01440764/a.jpg"] == "tench"
    assert "2 of 4 classes are WordNet ids" in out
    assert "the others keep theirs: my_goldfish, n99999999\n" in out
    make_tar(Path("root/0.tar"), {**sample("1", "n01440764"), **sample("2", "n02123045")})
    assert ingest(reader="webdataset")[0] == ["tench", "tabby cat"]


def test_names_that_are_given_may_repeat(ingest: Ingest, call: Call) -> None:
    put(Path("root"), "arena hockey/a.jpg", "arena rodeo/b.jpg", "attic/c.jpg")
    for given in (["arena", "arena", "attic"], {"arena hockey": "arena", "arena_rodeo": "Arena"}):
        names, _, out = ingest(reader="folder", names=given)
        assert [name.lower() for name in names] == ["arena", "arena", "attic"]
        assert "1 names are those of several classes, such as 'arena' (labels 0, 1); these count as different" in out
    listing = Listing([("a.jpg", 0)], ["wren", "wren"])
    assert check_listing(listing) == [
        "1 names are those of several classes, such as 'wren' (labels 0, 1); these count as different classes"
    ]
    with pytest.raises(UserError, match="several classes have the same name: wren"):
        check_listing(Listing([("a.jpg", 0)], ["wren", "wren"], by_name=True))


def test_classes_that_differ_in_their_spelling_alone_can_be_named(ingest: Ingest) -> None:
    put(Path("root"), "Cat/a.jpg", "cat/b.jpg", "big_cat/c.jpg", "big cat/d.jpg")
    assert "several classes have the same name: Cat, big cat, cat; rename" in ingest(reader="folder")[2]
    given = {"Cat": "lion", "cat": "house cat", "big_cat": "tiger", "big cat": "puma"}
    images = ingest(reader="folder", names=given)[1]
    assert images == {"Cat/a.jpg": "lion", "cat/b.jpg": "house cat", "big_cat/c.jpg": "tiger", "big cat/d.jpg": "puma"}


def test_a_class_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match="names the class 'barn-owl' twice"):
        own_names("x", ["barn owl"], {"barn owl": "a", "barn-owl": "b"})
    with pytest.raises(UserError, match="names the class 'barn-owl' twice"):
        own_names("x", ["barn owl"], {"Barn_Owl": "a", "barn-owl": "b"})


def test_stages_score_classes_of_one_name(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [CLASSES[0], CLASSES[0], CLASSES[2]]
    project.edit(lambda params: params["datasets"]["toy"].update(names=names))
    monkeypatch.chdir(project.folder)
    for stage in ("ingest", "crop", "refine", "embed", "score", "report"):
        model = [] if stage in ("ingest", "crop") else ["--model", "tiny"]
        assert call(stage, "--dataset", "toy", *model).code == 0
    predictions = pl.read_parquet("data/toy/tiny/predictions.parquet")
    assert set(predictions["label"]) == {0, 1, 2}
    classes = pl.read_csv("data/toy/tiny/report/confusion.csv")["actual"].unique().sort().to_list()
    assert classes == sorted([f"{CLASSES[0]} (0)", f"{CLASSES[0]} (1)", CLASSES[2]])


# Archives


def test_keys_with_dots(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_tar(root / "0.tar", {**sample("img_22.05", "cat"), **sample("img_22.06", "dog"), **sample("img_22", "emu")})
    assert dict(read("webdataset", root).images) == {"0/img_22.05.jpg": 0, "0/img_22.06.jpg": 1, "0/img_22.jpg": 2}


def test_other_files_of_a_sample_are_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    members = {**sample("1", "cat"), "1.seg.png": picture(kind="PNG"), "1.json": b"{}", "2.heic": b"x", "README": b"x"}
    make_tar(root / "0.tar", members)
    for _ in range(2):
        listing = read("webdataset", root)
        assert [image_id for image_id, _ in listing.images] == ["0/1.jpg"]
        assert listing.notes == (
            "files of other endings in the tars are not read: 1 seg.png, 1 json, 1 heic, 1 no ending",
        )
    pair = {"1.left.jpg": JPEG, "1.right.jpg": JPEG, "1.cls": b"cat"}
    make_tar(root / "0.tar", pair)
    with pytest.raises(UserError, match=r"'1\.left' has no label .*; `columns` may name other endings"):
        read("webdataset", root)
    assert dict(read("webdataset", root, columns=Columns(image="right.jpg")).images) == {"0/1.right.jpg": 0}


def test_tars_are_read_whatever_their_ending_and_compression(tmp_path: Path) -> None:
    names = ("0.tar", "1.tar.gz", "2.TGZ", "3.TAR")
    for number, name in enumerate(names):
        make_tar(tmp_path / name, {**sample("a", f"class{number}"), f"b.{number}.JPG": JPEG, f"b.{number}.CLS": b"cat"})
    for name in names[1:3]:
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    (tmp_path / "notes.parquet").write_bytes(b"")
    images = by_id(read("webdataset", tmp_path))
    assert len(images) == 8
    assert (images["1/a.jpg"], images["2/a.jpg"], images["3/b.3.JPG"]) == ("class1", "class2", "cat")


def test_links_in_tars(tmp_path: Path) -> None:
    def link(archive: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)

    make_tar(tmp_path / "root/0.tar", sample("1", "cat"))
    with tarfile.open(tmp_path / "root/0.tar", "a") as archive:
        link(archive, "2.jpg", "1.jpg", tarfile.SYMTYPE)
        link(archive, "2.cls", "1.cls", tarfile.LNKTYPE)
    assert by_id(read("webdataset", tmp_path / "root")) == {"0/1.jpg": "cat", "0/2.jpg": "cat"}
    with tarfile.open(tmp_path / "root/0.tar", "a") as archive:
        link(archive, "3.jpg", "../elsewhere.jpg", tarfile.SYMTYPE)
    with pytest.raises(UserError, match=r"'3\.jpg' is a link to '\.\./elsewhere\.jpg', which is no file of this tar"):
        read("webdataset", tmp_path / "root")
    make_tar(tmp_path / "root/0.tar", sample("1", "cat"))
    with tarfile.open(tmp_path / "root/0.tar", "a") as archive:
        link(archive, "4.jpg", "4.jpg", tarfile.SYMTYPE)
    with pytest.raises(UserError, match=r"'4\.jpg' is a link to '4\.jpg', which is no file of this tar"):
        read("webdataset", tmp_path / "root")


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    make_tar(tmp_path / "root/0.tar", sample("x" * 300, "cat"))
    with pytest.raises(UserError, match=r"the image '0/x+' cannot be unpacked: file name too long"):
        read("webdataset", tmp_path / "root")


def test_tars_that_were_cut_between_their_files(tmp_path: Path) -> None:
    make_tar(tmp_path / "0.tar", {**sample("1", "cat"), **sample("2", "dog")})
    with tarfile.open(tmp_path / "0.tar") as archive:
        second = archive.getmember("2.jpg").offset
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[: second + 300])  # in the middle of a header
    with pytest.raises(UserError, match=rf"no whole tar \(damaged at byte {second}\); fetch it again"):
        read("webdataset", tmp_path)
    (tmp_path / "0.tar").write_bytes(whole[:second])
    assert read("webdataset", tmp_path).notes == (
        f"'{tmp_path / '0.tar'}' has no mark at its end; files may be missing there",
    )
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(UserError, match="no whole tar") as error:
        read("webdataset", tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_tars_whose_names_say_their_split(tmp_path: Path) -> None:
    for name in ("x-train-000", "x-train-001", "x-val-000"):
        make_tar(tmp_path / f"{name}.tar", sample("1", "cat" if "val" in name else "emu"))
    with pytest.raises(UserError, match="holds tars of several splits; set `split` to one of: train, val"):
        read("webdataset", tmp_path)
    listing = read("webdataset", tmp_path, "val")
    assert (by_id(listing), listing.names) == ({"x-val-000/1.jpg": "cat"}, ["cat", "emu"])
    with pytest.raises(UserError, match=r"no folder .*test'; `split` names a sub-folder .*; there are: train, val"):
        read("webdataset", tmp_path, "test")


def test_tars_in_other_folders_are_told(tmp_path: Path) -> None:
    make_tar(tmp_path / "train/0.tar", sample("1", "cat"))
    with pytest.raises(UserError, match=r"no \*\.tar in .*; there are tars in train"):
        read("webdataset", tmp_path)
    make_tar(tmp_path / "0.tar", sample("1", "dog"))
    assert "the tars in the folders train are not read" in read("webdataset", tmp_path).notes[0]


def test_two_images_of_a_sample_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_tar(root / "0.tar", {**sample("1", "cat"), "1.png": picture(kind="PNG")})
    with pytest.raises(UserError, match=r"the sample '1' has two images \(1\.jpg and 1\.png\); keep one, or name"):
        read("webdataset", root)
    assert len(read("webdataset", root, columns=Columns(image="png")).images) == 1


def test_missing_shards(tmp_path: Path) -> None:
    parquet(tmp_path / "hf/test-00000-of-00002.parquet", ["cat", "dog"])
    with pytest.raises(UserError, match=r"1 of the 2 files .*test-.*-of-00002' are missing, such as number 1; fetch"):
        read("huggingface", tmp_path / "hf")
    parquet(tmp_path / "hf/test-00001-of-00002.parquet", ["cat", "dog"])
    assert len(read("huggingface", tmp_path / "hf").images) == 4
    shutil.copy(tmp_path / "hf/test-00001-of-00002.parquet", tmp_path / "hf/test-00001-of-00002-0123abcd.parquet")
    with pytest.raises(UserError, match="another file are both number 00001; keep one"):
        read("huggingface", tmp_path / "hf")
    for number in (0, 1, 3):
        make_tar(tmp_path / f"tars/x-{number:03d}.tar", sample("1", "cat"))
    assert "1 numbers are missing, such as 2" in read("webdataset", tmp_path / "tars").notes[0]


@pytest.mark.parametrize(
    "file",
    [
        "{}/{}-00000-of-00001.parquet",
        "{}/data-00000-of-00001.parquet",
        "{}/part-0.parquet",
        "{}.PARQUET",
        "{}_1.parquet",
    ],
)
def test_splits_of_parquet_files(file: str, tmp_path: Path) -> None:
    root = tmp_path / "test"  # the root's own name says nothing
    for split, labels in {"train": ["cat", "dog", "emu"], "test": ["cat", "dog"]}.items():
        parquet(root / file.format(split, split), labels)
    listing = read("huggingface", root, "test")
    assert (listing.names, len(listing.images)) == (["cat", "dog", "emu"], 2)


def test_shards_that_differ_are_refused(tmp_path: Path) -> None:
    make_huggingface(tmp_path, [0, 1])
    first = next(tmp_path.glob("*.parquet"))
    table = pq.read_table(first)
    info = json.loads(table.schema.metadata[b"huggingface"])
    first.rename(tmp_path / "test-00000-of-00002.parquet")
    features = table.schema.metadata[b"huggingface"].replace(b"ClassLabel", b"Value")
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), tmp_path / "test-00001-of-00002.parquet")
    columns = Columns(image="img", label="fine")
    listing = read("huggingface", tmp_path, columns=columns)
    assert len(listing.images) == 4
    assert listing.names == info["info"]["features"]["fine"]["names"]  # the names of one shard do for all
    info["info"]["features"]["fine"]["names"].reverse()
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "test-00001-of-00002.parquet"
    )
    with pytest.raises(UserError, match="differ in their columns or in the names of their classes; fetch both again"):
        read("huggingface", tmp_path, columns=columns)


@pytest.mark.parametrize("file", ["{}/test-00000-of-00001.parquet", "{}/test/0000.parquet"])
def test_several_configurations_are_refused(file: str, tmp_path: Path) -> None:
    for name in ("de", "en"):
        parquet(tmp_path / "root" / file.format(name), ["cat", "dog"])
    with pytest.raises(UserError, match=r"the split 'test' in several folders; set root to one of: '.*/de', '.*/en'"):
        read("huggingface", tmp_path / "root")
    assert len(read("huggingface", tmp_path / "root/en").images) == 2


# Labels that are no names


@pytest.mark.parametrize("label", [b'{"label": 3}', b"[0]", b"['cat']"])
def test_structured_labels_are_refused(label: bytes, tmp_path: Path) -> None:
    make_tar(tmp_path / "tars/0.tar", {"1.jpg": JPEG, "1.txt": label})
    with pytest.raises(UserError, match=r"the label is a structure, .*; a label is a name or a number"):
        read("webdataset", tmp_path / "tars", columns=Columns(label="txt"))
    put(tmp_path, "a.jpg")
    pl.DataFrame({"image": ["a.jpg"], "label": [label.decode()]}).write_csv(tmp_path / "m.csv")
    with pytest.raises(UserError, match=r"the column 'label' holds .*; expected one name or number a row"):
        read("manifest", tmp_path, manifest="m.csv")


def test_labels_that_are_json_values(tmp_path: Path) -> None:
    make_tar(tmp_path / "tars/0.tar", {"1.jpg": JPEG, "1.json": b'"cat"', "2.jpg": JPEG, "2.json": b"3"})
    assert read("webdataset", tmp_path / "tars", columns=Columns(label="json")).names == ["3", "cat"]
    refused = {b"{": "'1.json' is not JSON", b"null": "the label is null", b'{"label": 3}': "the label is a structure"}
    for label, match in refused.items():
        make_tar(tmp_path / "tars/0.tar", {"1.jpg": JPEG, "1.json": label})
        with pytest.raises(UserError, match=match):
            read("webdataset", tmp_path / "tars", columns=Columns(label="json"))


@pytest.mark.parametrize("labels", [[["cat"], ["dog"]], [{"label": 3}, {"label": 4}]])
def test_nested_columns_are_refused(labels: list[Any], tmp_path: Path) -> None:
    parquet(tmp_path / "hf/test.parquet", labels)
    with pytest.raises(UserError, match=r"column 'label', row 0: the label is a structure, .*`columns\.label`"):
        read("huggingface", tmp_path / "hf")
    put(tmp_path, "a.jpg", "b.jpg")
    pq.write_table(pa.table({"image": ["a.jpg", "b.jpg"], "label": ["x", "y"], "coarse": labels}), tmp_path / "m.pq")
    (tmp_path / "m.pq").rename(tmp_path / "m.parquet")
    for columns in (Columns(label="coarse"), Columns()):
        with pytest.raises(UserError, match=r"the column 'coarse' holds .*; expected one name or number a row"):
            read("manifest", tmp_path, manifest="m.parquet", columns=columns)


def test_labels_that_are_missing_numbers(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    pq.write_table(pa.table({"image": ["a.jpg", "b.jpg"], "label": [1.0, float("nan")]}), tmp_path / "m.parquet")
    with pytest.raises(UserError, match="1 rows without image or label, the first is row 2"):
        read("manifest", tmp_path, manifest="m.parquet")


@pytest.mark.parametrize("label", ["", " ", "NaN"])
def test_labels_that_say_nothing(label: str, tmp_path: Path) -> None:
    make_tar(tmp_path / "tars/0.tar", sample("1", label))
    parquet(tmp_path / "hf/test.parquet", ["cat", label])
    for reader, root in (("webdataset", "tars"), ("huggingface", "hf")):
        with pytest.raises(UserError, match=f"the label is {label.strip() or 'empty'}; a label is a name or a number"):
            read(reader, tmp_path / root)
    parquet(tmp_path / "hf/train.parquet", ["emu", label])
    parquet(tmp_path / "hf/test.parquet", ["cat"])
    assert read("huggingface", tmp_path / "hf", "test").names == ["cat", "emu"]
    put(tmp_path, "a.jpg", "b.jpg").joinpath("m.csv").write_text(f'image,label\na.jpg,cat\nb.jpg,"{label}"\n')
    with pytest.raises(UserError, match="1 rows without image or label, the first is row 2; complete or remove them"):
        read("manifest", tmp_path, manifest="m.csv")


@pytest.mark.parametrize(
    "text",
    [
        "image;label\na.jpg;cat\nb.jpg;dog\n",
        "image\tlabel\r\na.jpg\tcat\r\nb.jpg\tdog\r\n",
        "\ufeffimage, label\na.jpg, cat\n\nb.jpg,dog \n\n",
        'label;"image";note, if any\ncat;a.jpg;x\ndog;"b.jpg";\n',
    ],
)
def test_manifests_as_programs_write_them(text: str, tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg").joinpath("m.csv").write_text(text)
    assert named(read("manifest", tmp_path, manifest="m.csv")) == {"a.jpg": "cat", "b.jpg": "dog"}


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    for header in ("image,label,label,note", "image,label, label,note"):
        put(tmp_path, "a.jpg").joinpath("m.csv").write_text(f"{header}\na.jpg,cat,dog,x\n")
        with pytest.raises(UserError, match="several columns 'label'; rename or remove all but one"):
            read("manifest", tmp_path, manifest="m.csv")
    (tmp_path / "m.csv").write_text("image,label,note,note\na.jpg,cat,x,y\n")
    assert len(read("manifest", tmp_path, manifest="m.csv").images) == 1


# Encodings

LATIN = b"caf\xe9"


@pytest.mark.parametrize("place", ["file", "folder"])
def test_names_in_latin_1(place: str, ingest: Ingest) -> None:
    put(Path("root"), "cat/1.jpg", "dog/1.jpg")
    if place == "file":
        os.rename(b"root/cat/1.jpg", b"root/cat/" + LATIN + b".jpg")
    else:
        os.rename(b"root/cat", b"root/" + LATIN)
    assert r"names of files, folders or classes are not UTF-8, such as 'ca" in ingest(reader="folder")[2]
    assert r"caf\xe9" in ingest(reader="folder")[2]


def test_tars_with_names_and_labels_in_latin_1(tmp_path: Path) -> None:
    root, name = tmp_path / "root", LATIN.decode("utf-8", "surrogateescape")
    make_tar(root / "0.tar", sample(name, "cat"))
    with pytest.raises(UserError, match=r"names the image '0/caf\\xe9\.jpg', which is not UTF-8; rename it"):
        read("webdataset", root)
    make_tar(root / "0.tar", {"1.jpg": JPEG, "1.cls": LATIN})
    with pytest.raises(UserError, match=r"'1\.cls' is not UTF-8; write the label in UTF-8"):
        read("webdataset", root)
    make_tar(root / "0.tar", sample("1", "cat"))
    os.rename(root / "0.tar", os.fsencode(root) + b"/" + LATIN + b".tar")
    with pytest.raises(UserError, match=r"the name of the file 'caf\\xe9\.tar' .* is not UTF-8; rename it"):
        read("webdataset", root)


def test_marks_at_the_start_of_text_files_are_no_names(tmp_path: Path) -> None:
    make_tar(tmp_path / "0.tar", {"1.jpg": JPEG, "1.cls": b"\xef\xbb\xbf1\r\n", **sample("2", "00")})
    (tmp_path / "classnames.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert by_id(read("webdataset", tmp_path)) == {"0/1.jpg": "dog", "0/2.jpg": "cat"}


@pytest.mark.parametrize("kind", ["text", "profile"])
def test_png_with_much_text_or_a_large_profile(kind: str, tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 3_000_000 if kind == "text" else "x", zip=True)
    image = Image.new("RGB", (20, 10), "teal")
    image.save(tmp_path / "a.png", pnginfo=info, icc_profile=b"x" * (3_000_000 if kind == "profile" else 1))
    found = probe(tmp_path / "a.png")
    assert (found.width, found.height, found.problem) == (20, 10, "")
    assert open_rgb(tmp_path / "a.png").getpixel((0, 0)) == (0, 128, 128)


# Images of archives that are gone


def test_stages_unpack_again(ingest: Ingest, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    make_huggingface(Path("root"), [1, 0])
    ingest(reader="huggingface", names=[CLASSES[0], CLASSES[1]])
    Path("descriptions/x").mkdir()
    for source in ("cupl", "clip-d"):
        shutil.copy(f"descriptions/toy/{source}.json", "descriptions/x")

    def stage(name: str, *model: str) -> str:
        done = call(name, "--dataset", "x", *model)
        assert "Traceback" not in done.err
        return done.err

    def in_this_process(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        # As a process of its own would find it, without the seconds that its imports take.
        assert command == [sys.executable, "-m", "stages.ingest.unpack", "--dataset", "x"]
        assert env["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
        done = call("ingest.unpack", *command[3:])
        return subprocess.CompletedProcess(command, done.code, done.out, done.err)

    monkeypatch.setattr(workers.subprocess, "run", in_this_process)
    stage("crop")
    stage("refine", "--model", "tiny")
    shutil.rmtree("data/x/unpacked")
    assert stage("embed", "--model", "tiny") == ""
    stage("score", "--model", "tiny")
    shutil.rmtree("data/x/unpacked")
    image = Path("data/x/unpacked") / pq.read_table("data/x/images.parquet")["image_id"][0].as_py()
    unpacked.ensure_there(image)  # as `stages/finer` does
    assert image.is_file()
    shutil.rmtree("data/x/unpacked")
    stage("report", "--model", "tiny")
    assert list(Path("data/x/tiny/report/boxes").glob("*.png"))
    shutil.rmtree("data/x/unpacked")
    Path("root").rename("gone")
    shutil.rmtree("data/x/tiny/views")
    why = "images of 'x' are not in 'data/x/unpacked', and unpacking them again failed: datasets.x.root 'root' does not"
    assert f"error: {why}" in stage("embed", "--model", "tiny")
    assert why in stage("report", "--model", "tiny")


def test_notes_do_not_stop_a_folder_without_any(tmp_path: Path) -> None:
    listing = read_folder(put(tmp_path, "cat/a.jpg"), None)
    assert (listing.notes, listing.naming, named(listing)) == ((), (), {"a.jpg": "cat"})
