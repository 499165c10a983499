"""Readers and the look at every image: what is found, under which name and label, and what is refused."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Call, Project, make_image
from PIL import Image

from stages.common.artifacts import IMAGES
from stages.common.errors import UserError
from stages.common.images import open_rgb
from stages.common.labels import names_digest
from stages.common.tables import read_meta
from stages.ingest.dataset import check_listing
from stages.ingest.datasets import Listing, read_folder, read_oxford_pets
from stages.ingest.probe import probe, probe_all

PETS = {  # image -> class id, species, breed id, as the official lists have them
    "Abyssinian_1": (1, 1, 1),
    "Abyssinian_2": (1, 1, 1),
    "american_bulldog_10": (2, 2, 1),
    "american_bulldog_3": (2, 2, 1),
    "Maine_Coon_7": (3, 1, 2),
}
LISTS = {
    "test.txt": ["Abyssinian_2", "american_bulldog_10"],
    "trainval.txt": ["Abyssinian_1", "american_bulldog_3", "Maine_Coon_7"],
    "list.txt": list(PETS),
}


# One sub-folder a class


def fill(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        make_image(root / name, 20, 16, seed)
    return root


def test_folder_labels_follow_the_sorted_folder_names(tmp_path: Path) -> None:
    listing = read_folder(fill(tmp_path, "wren/a.jpg", "Barn_Owl/b.png", "barn_swallow/c.jpg", "tit/d.jpg"), None)
    assert listing.names == ["Barn Owl", "barn swallow", "tit", "wren"]
    assert sorted(listing.images) == [
        ("Barn_Owl/b.png", 0),
        ("barn_swallow/c.jpg", 1),
        ("tit/d.jpg", 2),
        ("wren/a.jpg", 3),
    ]
    assert listing.coarse is None


def test_folder_is_read_at_any_depth(tmp_path: Path) -> None:
    listing = read_folder(fill(tmp_path, "wren/a.jpg", "wren/2019/june/a.jpg", "owl/x/b.jpg"), None)
    assert sorted(listing.images) == [("owl/x/b.jpg", 0), ("wren/2019/june/a.jpg", 1), ("wren/a.jpg", 1)]


def test_folder_takes_extensions_in_either_case_and_leaves_other_files(tmp_path: Path) -> None:
    fill(tmp_path, "owl/a.JPG", "owl/b.JPEG", "owl/c.Png", "owl/d.webp", "owl/e.bmp", "owl/f.tiff")
    (tmp_path / "owl/notes.txt").write_text("seen at dusk")
    (tmp_path / "owl/Thumbs.db").write_bytes(b"x")
    (tmp_path / "README").write_text("not a class")
    listing = read_folder(tmp_path, None)
    assert listing.notes == ("files that do not end like images are not read: 1 .txt",)
    found = sorted(image_id for image_id, _ in listing.images)
    assert found == ["owl/a.JPG", "owl/b.JPEG", "owl/c.Png", "owl/d.webp", "owl/e.bmp", "owl/f.tiff"]


def test_folder_split_is_a_sub_folder(tmp_path: Path) -> None:
    fill(tmp_path, "train/owl/a.jpg", "train/wren/b.jpg", "test/wren/c.jpg")
    assert read_folder(tmp_path, "test") == Listing([("test/wren/c.jpg", 1)], ["owl", "wren"])
    assert sorted(read_folder(tmp_path, "train").images) == [("train/owl/a.jpg", 0), ("train/wren/b.jpg", 1)]
    with pytest.raises(UserError, match=r"no folder '.*/val'; `split`"):
        read_folder(tmp_path, "val")


def test_image_ids_do_not_depend_on_how_the_root_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "birds", "owl/a.jpg")
    monkeypatch.chdir(tmp_path)
    for root in ("birds", "./birds/", "../" + tmp_path.name + "/birds", str(tmp_path / "birds")):
        assert read_folder(Path(root), None).images == [("owl/a.jpg", 0)]


def test_classes_of_the_same_name_are_refused(tmp_path: Path) -> None:
    listing = read_folder(fill(tmp_path, "barn_owl/a.jpg", "barn owl/b.jpg", "wren/c.jpg"), None)
    with pytest.raises(
        UserError, match="several classes have the same name: barn owl; rename the folders or labels apart"
    ):
        check_listing(listing)


def test_classes_of_one_spelling_are_refused(tmp_path: Path) -> None:
    """Descriptions are matched without case and separators, so these would share theirs."""
    listing = read_folder(fill(tmp_path, "Barn_Owl/a.jpg", "barn-owl/b.jpg", "wren/c.jpg"), None)
    with pytest.raises(UserError, match=r"Barn Owl.*barn-owl|barn-owl.*Barn Owl"):
        check_listing(listing)


def test_no_images_are_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        check_listing(Listing([], ["owl"]))


# Oxford-IIIT Pet


def make_pets(base: Path) -> Path:
    """The official layout, with the header that list.txt has."""
    for name in PETS:
        make_image(base / "images" / f"{name}.jpg", 30, 20, len(name))
    (base / "images" / "Abyssinian_100.mat").write_bytes(b"the official archive has such files")
    (base / "annotations" / "trimaps").mkdir(parents=True)
    header = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n"
    for file, names in LISTS.items():
        write_list(
            base, file, [" ".join([name, *map(str, PETS[name])]) for name in names], header * (file == "list.txt")
        )
    return base


def write_list(base: Path, file: str, lines: Sequence[str], header: str = "") -> None:
    (base / "annotations" / file).write_text(header + "".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("inner", ["", "oxford-iiit-pet"])
@pytest.mark.parametrize(
    ("split", "file"), [(None, "test.txt"), ("test", "test.txt"), ("trainval", "trainval.txt"), ("all", "list.txt")]
)
def test_pets_splits(inner: str, split: str | None, file: str, tmp_path: Path) -> None:
    """Classes are those of all lists whatever the split; images are where torchvision or the archives put them."""
    make_pets(tmp_path / inner)
    listing = read_oxford_pets(tmp_path, split)
    assert listing.names == ["Abyssinian", "american bulldog", "Maine Coon"]
    assert listing.coarse == [["cat"], ["dog"], ["cat"]]
    assert listing.superordinate == "pet"
    prefix = f"{inner}/" if inner else ""
    assert listing.images == [(f"{prefix}images/{name}.jpg", PETS[name][0] - 1) for name in LISTS[file]]
    assert all((tmp_path / image_id).is_file() for image_id, _ in listing.images)


def test_pets_without_the_lists_of_other_splits(tmp_path: Path) -> None:
    make_pets(tmp_path)
    (tmp_path / "annotations/list.txt").unlink()
    (tmp_path / "annotations/trainval.txt").unlink()
    listing = read_oxford_pets(tmp_path, "test")
    assert listing.names == ["Abyssinian", "american bulldog"]
    assert [label for _, label in listing.images] == [0, 1]


def test_pets_list_missing(tmp_path: Path) -> None:
    make_pets(tmp_path)
    (tmp_path / "annotations/test.txt").unlink()
    with pytest.raises(UserError, match=r"no '.*annotations/test\.txt'; expected .* images/ and annotations/"):
        read_oxford_pets(tmp_path, None)


def test_pets_split_unknown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'val'; there are: test, trainval, all"):
        read_oxford_pets(make_pets(tmp_path), "val")


@pytest.mark.parametrize(
    "line", ["Abyssinian_3 1 1", "Abyssinian_3 1 1 1 1", "Abyssinian_3 one 1 1", "Abyssinian 3 1 1 1", "x"]
)
def test_pets_line_malformed(line: str, tmp_path: Path) -> None:
    make_pets(tmp_path)
    write_list(tmp_path, "test.txt", ["Abyssinian_2 1 1 1", "", line])
    with pytest.raises(UserError, match=rf"test\.txt, line 3: .*not '{re.escape(line)}'"):
        read_oxford_pets(tmp_path, "test")


def test_pets_image_missing(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pets(project.folder / "pets")
    (project.folder / "pets/images/Abyssinian_2.jpg").unlink()
    project.edit(lambda params: params["datasets"].update(pets={"reader": "oxford-pets", "root": "pets"}))
    monkeypatch.chdir(project.folder)
    done = call("ingest", "--dataset", "pets")
    assert done.code == 1
    assert done.err.startswith(
        "error: 1 of 2 images under 'pets' cannot be read: images/Abyssinian_2.jpg (no such file"
    )
    assert not Path("data/pets").exists()


# Every image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_size_is_that_after_orientation(orientation: int, suffix: str, tmp_path: Path) -> None:
    """What `probe` says is what a later stage decodes: 40 x 24 as stored, turned by the last four orientations."""
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 24), "teal").save(path, exif=exif)
    found = probe(path)
    assert (found.width, found.height) == ((24, 40) if orientation >= 5 else (40, 24))
    assert open_rgb(path).size == (found.width, found.height)


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "YCbCr"])
def test_every_mode_is_read_as_rgb(mode: str, tmp_path: Path) -> None:
    suffix = {"CMYK": ".jpg", "YCbCr": ".jpg"}.get(mode, ".png")
    path = tmp_path / f"image{suffix}"
    grey = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(15, 20).clip(10, 200))
    (Image.new("I;16", (20, 15), 40000) if mode == "I;16" else grey.convert("RGB").convert(mode)).save(path)
    found = probe(path)
    assert (found.width, found.height, found.problem) == (20, 15, "")
    assert found.content == hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    decoded = open_rgb(path)
    assert decoded.mode == "RGB"
    assert decoded.size == (20, 15)


def test_large_jpeg_has_its_own_size(tmp_path: Path) -> None:
    """Checking decodes at a fraction of the size, and must not report that."""
    make_image(tmp_path / "large.jpg", 1603, 907, 0)
    found = probe(tmp_path / "large.jpg")
    assert (found.width, found.height) == (1603, 907)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_file_is_a_problem(share: float, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    make_image(path, 400, 300, 0)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert probe(path).problem


def test_probes_come_in_order(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(20)]
    for number, name in enumerate(names):
        make_image(tmp_path / name, 10 + number, 50 - number, number)
    assert [(p.width, p.height) for p in probe_all(tmp_path, names)] == [(10 + n, 50 - n) for n in range(20)]


# The stage


def rows_of(path: str) -> list[dict]:
    found: list[dict] = pq.read_table(path).to_pylist()
    return found


def test_stage_writes_sorted_images_and_is_repeatable(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    done = call("ingest", "--dataset", "toy")
    assert (done.code, done.err, done.out) == (0, "", "ingest toy: 9 images of 3 classes\n")
    images, classes = Path("data/toy/images.parquet"), Path("data/toy/classes.parquet")
    first = images.read_bytes(), classes.read_bytes()
    rows = rows_of(str(images))
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
    for row in rows:
        with Image.open(Path("toy-images") / row["image_id"]) as image:
            assert (row["width"], row["height"]) == image.size
    # Sorted as Python sorts: capitals first.
    assert [row["name"] for row in rows_of(str(classes))] == ["Grey Heron", "blue tavo", "red-crowned tavo"]
    assert {row["image_id"].split("/")[0]: row["label"] for row in rows} == {
        "Grey_Heron": 0,
        "blue tavo": 1,
        "red-crowned tavo": 2,
    }
    assert read_meta(images, IMAGES).parameters.model_dump() == {
        "reader": "folder",
        "split": None,
        "classes": names_digest(["Grey Heron", "blue tavo", "red-crowned tavo"]),
        "unpacked": False,
    }
    assert str(Path.cwd()) not in images.read_bytes().decode(errors="replace"), "no path of a machine"
    assert call("ingest", "--dataset", "toy").code == 0
    assert (images.read_bytes(), classes.read_bytes()) == first


def test_stage_takes_names_with_spaces_and_other_scripts(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(project.folder / "öko daten", "Blåmeis/bilde 1.jpg", "кулик/фото#1.JPG", "鹭/50%.png")
    project.edit(lambda params: params["datasets"].update(more={"reader": "folder", "root": "öko daten"}))
    monkeypatch.chdir(project.folder)
    assert [call(stage, "--dataset", "more").code for stage in ("ingest", "crop")] == [0, 0]
    found = sorted(row["image_id"] for row in rows_of("data/more/images.parquet"))
    assert found == sorted(["Blåmeis/bilde 1.jpg", "кулик/фото#1.JPG", "鹭/50%.png"])


# Real photos


def boxes_fit(dataset: str, candidates: int) -> None:
    """Every candidate box is a square inside of its image."""
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in rows_of(f"data/{dataset}/images.parquet")}
    boxes = rows_of(f"data/{dataset}/boxes.parquet")
    assert len(boxes) == len(sizes) * candidates
    for box in boxes:
        width, height = sizes[box["image_id"]]
        assert 0 <= box["left"] < box["right"] <= width
        assert 0 <= box["top"] < box["bottom"] <= height
        assert box["right"] - box["left"] == box["bottom"] - box["top"]


def test_real_pets(project: Project, call: Call, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"reader": "oxford-pets", "root": str(real / "pets"), "split": "all"}
    project.edit(lambda params: params["datasets"].update(pets=entry))
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "pets").out == "ingest pets: 120 images of 3 classes\n"
    classes = rows_of("data/pets/classes.parquet")
    assert [(row["name"], row["coarse"], row["superordinate"]) for row in classes] == [
        ("Abyssinian", ["cat"], "pet"),
        ("american bulldog", ["dog"], "pet"),
        ("Bengal", ["cat"], "pet"),
    ]
    images = rows_of("data/pets/images.parquet")
    assert [sum(row["label"] == label for row in images) for label in range(3)] == [40, 40, 40]
    for row in images:
        assert Path(row["image_id"]).name.startswith(classes[row["label"]]["name"].replace(" ", "_"))
        assert open_rgb(real / "pets" / row["image_id"]).size == (row["width"], row["height"])
    assert call("crop", "--dataset", "pets").code == 0
    boxes_fit("pets", candidates=30)


def test_real_photos_as_folders(project: Project, call: Call, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image a class, sizes and aspect ratios as they come, the files linked rather than copied."""
    photos = sorted((real / "photos").glob("*.JPEG"))
    names = [path.stem.split("_", 1)[1] for path in photos]
    for path, name in zip(photos, names, strict=True):
        folder = project.folder / "photos" / name
        folder.mkdir(parents=True)
        if len(name) % 2:
            (folder / path.name).symlink_to(path)
        else:
            shutil.copy(path, folder)
    project.edit(lambda params: params["datasets"].update(photos={"reader": "folder", "root": "photos"}))
    monkeypatch.chdir(project.folder)
    assert (
        call("ingest", "--dataset", "photos").out == f"ingest photos: {len(photos)} images of {len(photos)} classes\n"
    )
    classes = [row["name"] for row in rows_of("data/photos/classes.parquet")]
    assert classes == [name.replace("_", " ") for name in sorted(names)]
    for row in rows_of("data/photos/images.parquet"):
        assert open_rgb(Path("photos") / row["image_id"]).size == (row["width"], row["height"])
    assert call("crop", "--dataset", "photos").code == 0
    boxes_fit("photos", candidates=30)
