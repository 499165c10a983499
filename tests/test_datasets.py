"""Every reader on a miniature in the official layout, which the test makes."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Call, Project
from miniatures import (
    AIRCRAFT,
    GRASS,
    WORM,
    category,
    make_aircraft,
    make_cars,
    make_cub,
    make_dogs,
    make_inaturalist,
    make_nabirds,
    put,
    write,
)
from PIL import Image
from scipy.io import savemat  # type: ignore[import-untyped]

from stages.common.artifacts import CLASSES
from stages.common.errors import UserError
from stages.common.params import Columns
from stages.ingest import folders, torchvision_readers
from stages.ingest.classes import labelled_aliases, own_fine, own_names, template_texts
from stages.ingest.coarse import bird_groups, car_body
from stages.ingest.dataset import check_listing
from stages.ingest.datasets import READERS, Listing, Request
from stages.ingest.folders import imagenet_ids, imagenet_names
from stages.ingest.listing import read_lines
from stages.ingest.lists import CUB_NAMES, bird_group
from stages.ingest.tables import classes_table


def picture(colour: str = "teal", kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, kind)
    return file.getvalue()


JPEG = picture()


def read(reader: str, root: Path, split: str | None = None, **more: Any) -> Listing:
    """What the reader finds, checked: images are there, labels count the names."""
    listing = READERS[reader].read(Request(root, split, root.parent / "unpacked", **more))
    check_listing(listing)
    for image_id, label in listing.images:
        assert ((listing.root or root) / image_id).is_file(), image_id
        assert label is not None and 0 <= label < len(listing.names)
    assert listing.coarse is None or len(listing.coarse) == len(listing.names)
    return listing


def named(listing: Listing) -> dict[str, str]:
    """File name -> class name."""
    return {Path(image_id).name: listing.names[int(label or 0)] for image_id, label in listing.images}


# The layouts


def flowers(root: Path) -> None:
    put(root / "flowers-102/jpg", "image_00001.jpg", "image_00002.jpg", "image_00003.jpg")
    savemat(root / "flowers-102/imagelabels.mat", {"labels": [[77, 1, 102]]})
    savemat(root / "flowers-102/setid.mat", {"trnid": [[2]], "valid": [[3]], "tstid": [[1]]})


def food(root: Path) -> None:
    put(root / "food-101/images", "apple_pie/1.jpg", "waffles/2.jpg", "waffles/3.jpg")
    write(root / "food-101/meta", test="apple_pie/1\nwaffles/2\n", train="waffles/3\n")


def caltech(root: Path) -> None:
    top = root / "caltech101/101_ObjectCategories"
    put(top, "Faces/image_0001.jpg", "BACKGROUND_Google/image_0002.jpg", "water_lilly/image_0003.jpg")


def dtd(root: Path) -> None:
    put(root / "dtd/images", "banded/banded_1.jpg", "polka-dotted/polka-dotted_2.jpg", "zigzagged/zigzagged_3.jpg")
    write(
        root / "dtd/labels",
        test1="banded/banded_1.jpg\npolka-dotted/polka-dotted_2.jpg\n",
        train1="zigzagged/zigzagged_3.jpg\n",
        test2="zigzagged/zigzagged_3.jpg\n",
    )


def eurosat(root: Path) -> None:
    put(root / "2750", "AnnualCrop/AnnualCrop_1.jpg", "SeaLake/SeaLake_2.jpg")


def places(root: Path) -> None:
    put(root / "val_256", "Places365_val_00000001.jpg", "Places365_val_00000002.jpg")
    write(
        root,
        categories_places365="/a/airport_terminal 0\n/f/field/wild 1\n",
        places365_val="Places365_val_00000001.jpg 1\nPlaces365_val_00000002.jpg 0\n",
        IO_places365="/a/airport_terminal 1\n/f/field/wild 2\n",
    )


def sun(root: Path) -> None:
    put(root / "SUN397", "a/abbey/sun_aa.jpg", "c/church/indoor/sun_bb.jpg")
    write(
        root / "SUN397",
        ClassName="/a/abbey\n/c/church/indoor\n",
        Partitions__Testing_01="/a/abbey/sun_aa.jpg\n",
        Partitions__Training_01="/c/church/indoor/sun_bb.jpg\n",
    )


def ucf(root: Path) -> None:
    frames = root / "UCF-101-midframes"
    put(frames, "Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg", "Handstand_Pushups/v_HandStandPushups_g01_c02.jpg")
    write(
        root / "ucfTrainTestlist",
        classInd="1 ApplyEyeMakeup\n2 HandstandPushups\n",
        testlist01="ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\nHandstandPushups/v_HandStandPushups_g01_c02.avi\n",
        trainlist02="HandstandPushups/v_HandStandPushups_g01_c02.avi 2\n",
    )


Layout = tuple[Callable[[Path], None], dict[str | None, dict[str, str]], str | None, dict[str, list[str]] | None, str]

LAYOUTS: Mapping[str, Layout] = {  # key -> maker, split -> {file: class}, superordinate, class -> coarse, a needed file
    "cub": (
        make_cub,
        {
            None: {"a.jpg": "Black-footed Albatross", "c.jpg": "Ovenbird"},
            "train": {"b.jpg": "Ovenbird"},
            "all": {"a.jpg": "Black-footed Albatross", "b.jpg": "Ovenbird", "c.jpg": "Ovenbird"},
        },
        "bird",
        {"Black-footed Albatross": ["Albatross"], "Ovenbird": []},
        "train_test_split.txt",
    ),
    "nabirds": (
        make_nabirds,
        {
            None: {
                "0295.jpg": "Ovenbird",
                "0313.jpg": "Black-bellied Whistling-Duck",
                "0817.jpg": "Common Eider (Adult male)",
                "0860.jpg": "Common Eider (Female/juvenile)",
            },
            "train": {
                "1295.jpg": "Ovenbird",
                "1313.jpg": "Black-bellied Whistling-Duck",
                "1817.jpg": "Common Eider (Adult male)",
                "1860.jpg": "Common Eider (Female/juvenile)",
            },
        },
        "bird",
        {
            "Ovenbird": ["Perching Birds"],
            "Black-bellied Whistling-Duck": ["Ducks", "Geese", "Swans"],
            "Common Eider (Adult male)": ["Ducks", "Geese", "Swans"],
            "Common Eider (Female/juvenile)": ["Ducks", "Geese", "Swans"],
        },
        "hierarchy.txt",
    ),
    "stanford-dogs": (
        make_dogs,
        {
            None: {
                "n02085620_1.jpg": "Chihuahua",
                "n02086240_1.jpg": "Shih-Tzu",
                "n02099267_1.jpg": "flat-coated retriever",
            },
            "train": {"n02099429_1.jpg": "curly-coated retriever"},
        },
        "dog",
        None,
        "test_list.mat",
    ),
    "inaturalist": (
        make_inaturalist,
        {None: {"a.jpg": "Lumbricus terrestris", "b.jpg": "Poa annua"}},
        "living being",
        {
            "Lumbricus terrestris": ["Lumbricus", "Lumbricidae", "Haplotaxida", "Clitellata", "Annelida", "Animalia"],
            "Poa annua": ["Poa", "Poaceae", "Poales", "Liliopsida", "Tracheophyta", "Plantae"],
        },
        "val",
    ),
    "flowers102": (
        flowers,
        {
            None: {"image_00001.jpg": "passion flower"},
            "train": {"image_00002.jpg": "pink primrose"},
            "val": {"image_00003.jpg": "blackberry lily"},
        },
        "flower",
        None,
        "flowers-102/imagelabels.mat",
    ),
    "stanford-cars": (
        make_cars,
        {None: {"00001.jpg": "Ram C/V Cargo Van Minivan 2012", "00002.jpg": "AM General Hummer SUV 2000"}},
        "car",
        {
            "AM General Hummer SUV 2000": ["SUV"],
            "Ram C/V Cargo Van Minivan 2012": ["van"],
            "FIAT 500 Abarth 2012": ["hatchback"],
            "Audi 100 Wagon 1994": ["van"],
        },
        "stanford_cars/cars_test_annos_withlabels.mat",
    ),
    "aircraft": (
        make_aircraft,
        {None: {f"10{number}.jpg": variant for number, variant in enumerate(AIRCRAFT)}},
        "aircraft",
        {variant: list(above) for variant, above in AIRCRAFT.items()},
        "fgvc-aircraft-2013b/data/images_variant_test.txt",
    ),
    "food101": (
        food,
        {None: {"1.jpg": "apple pie", "2.jpg": "waffles"}, "train": {"3.jpg": "waffles"}},
        "food",
        None,
        "food-101/meta/test.txt",
    ),
    "caltech101": (
        caltech,
        {None: {"image_0001.jpg": "off-center face", "image_0003.jpg": "water lilly"}},
        None,
        None,
        "caltech101/101_ObjectCategories",
    ),
    "dtd": (
        dtd,
        {
            None: {"banded_1.jpg": "banded", "polka-dotted_2.jpg": "polka-dotted"},
            "train1": {"zigzagged_3.jpg": "zigzagged"},
            "test2": {"zigzagged_3.jpg": "zigzagged"},
        },
        "texture",
        None,
        "dtd/labels/test1.txt",
    ),
    "eurosat": (
        eurosat,
        {None: {"AnnualCrop_1.jpg": "annual crop land", "SeaLake_2.jpg": "sea or lake"}},
        "land use",
        None,
        "2750",
    ),
    "places365": (
        places,
        {None: {"Places365_val_00000001.jpg": "field wild", "Places365_val_00000002.jpg": "airport terminal"}},
        "place",
        {"airport terminal": ["indoor"], "field wild": ["outdoor"]},
        "places365_val.txt",
    ),
    "sun397": (
        sun,
        {
            None: {"sun_aa.jpg": "abbey", "sun_bb.jpg": "church indoor"},
            "test01": {"sun_aa.jpg": "abbey"},
            "train01": {"sun_bb.jpg": "church indoor"},
        },
        "scene",
        None,
        "SUN397",
    ),
    "ucf101": (
        ucf,
        {
            None: {
                "v_ApplyEyeMakeup_g01_c01.jpg": "apply eye makeup",
                "v_HandStandPushups_g01_c02.jpg": "handstand pushups",
            },
            "train2": {"v_HandStandPushups_g01_c02.jpg": "handstand pushups"},
        },
        "human action",
        None,
        "ucfTrainTestlist/testlist01.txt",
    ),
}


@pytest.mark.parametrize("key", LAYOUTS)
def test_official_layout(key: str, tmp_path: Path) -> None:
    make, splits, superordinate, coarse, _ = LAYOUTS[key]
    root = tmp_path / "root"
    root.mkdir()
    make(root)
    names = set()
    for split, expected in splits.items():
        listing = read(key, root, split)
        assert named(listing) == expected
        assert listing.superordinate == superordinate
        found = dict(zip(listing.names, listing.coarse, strict=True)) if listing.coarse else None
        assert found == coarse
        names.add(tuple(listing.names))
    assert len(names) == 1, "every split is scored against the same classes"


LAYOUT_FOLDERS = {  # where the layout's own folder is in what the maker makes; "" is the maker's folder
    "flowers102": "flowers-102",
    "stanford-cars": "stanford_cars",
    "aircraft": "fgvc-aircraft-2013b",
    "food101": "food-101",
    "caltech101": "caltech101/101_ObjectCategories",
    "dtd": "dtd",
    "eurosat": "2750",
    "sun397": "SUN397",
}


@pytest.mark.parametrize("key", LAYOUTS)
def test_root_is_the_folder_of_the_layout_or_its_parent(key: str, tmp_path: Path) -> None:
    make, splits, _, _, _ = LAYOUTS[key]
    made = tmp_path / "parent" / "CUB_200_2011" if key == "cub" else tmp_path / "parent" / "anything"
    made.mkdir(parents=True)
    make(made)
    layout = made / LAYOUT_FOLDERS.get(key, "")
    for root in (layout, layout.parent):
        for split, expected in splits.items():
            assert named(read(key, root, split)) == expected


def test_root_of_several_data_sets_is_refused(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        places(tmp_path / name)
    with pytest.raises(UserError, match=r"several such data sets: .*first, .*second; set root to one"):
        read("places365", tmp_path)


def test_root_below_the_layout_says_where_it_is(tmp_path: Path) -> None:
    for key in ("places365", "cub"):
        (tmp_path / key).mkdir()
        LAYOUTS[key][0](tmp_path / key)
    for key, inner in {"places365": "val_256", "cub": "images"}.items():
        with pytest.raises(UserError, match=rf"it is in '.*{key}': set root to that folder"):
            read(key, tmp_path / key / inner)


def test_cub_is_not_mistaken_for_nabirds(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    make_nabirds(tmp_path / "birds")
    with pytest.raises(UserError, match=r"no 'images\.txt'"):
        read("cub", tmp_path)


IDS = ["n01440764", "n02123045", "n04008634"]
BY_ID = {
    "imagenet": ("imagenet", "val", "train"),
    "imagenet-v2": (
        "imagenetv2",
        "imagenetv2-matched-frequency-format-val",
        "imagenetv2-top-images-format-val",
    ),
    "imagenet-a": ("imagenet-a", "", ""),
    "imagenet-r": ("imagenet-r", "", ""),
    "imagenet-sketch": ("imagenet-sketch", "sketch", ""),
    "inaturalist": ("inat", "val", "train_mini"),
}


@pytest.mark.parametrize("key", BY_ID)
def test_root_may_be_the_folder_of_a_split(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "imagenet_ids", lambda subset="": IDS)
    monkeypatch.setattr(folders, "imagenet_names", lambda ids: [f"name of {wnid}" for wnid in ids])
    inside, split, other = BY_ID[key]
    classes = {"imagenet-v2": ["0", "1", "2"], "inaturalist": [WORM, GRASS]}.get(key, IDS)
    for place in dict.fromkeys((split, other or split)):
        put(tmp_path / "parent" / inside / place, *(f"{name}/{place or 'x'}-{name}.jpg" for name in classes))
    top = tmp_path / "parent" / inside
    wanted = named(read(key, top))
    assert len(wanted) == len(classes)
    for root in (tmp_path / "parent", top / split):
        assert named(read(key, root)) == wanted
    if not other:
        return
    # The folder of the other split is read as such, and refused where `split` says otherwise.
    assert all(name.startswith(other) for name in named(read(key, top / other)))
    with pytest.raises(UserError, match=r"is the folder of the split '.*', but `split` is '.*'; set split"):
        read(key, top / other, {"imagenet-v2": "matched-frequency"}.get(key, split))


@pytest.mark.parametrize("key", LAYOUTS)
def test_file_missing_is_one_line_that_says_what_is_expected(
    key: str, project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, _, _, _, needed = LAYOUTS[key]
    root = project.folder / "given"
    root.mkdir()
    make(root)
    shutil.rmtree(root / needed) if (root / needed).is_dir() else (root / needed).unlink()
    project.edit(lambda params: params["datasets"].update(x={"reader": key, "root": "given"}))
    monkeypatch.chdir(project.folder)
    for split in (None, "no-such-split"):
        project.edit(lambda params, split=split: params["datasets"]["x"].update(split=split))  # type: ignore[misc]
        done = call("ingest", "--dataset", "x")
        assert done.code == 1
        assert len(done.err.splitlines()) == 1
        assert READERS[key].layout in done.err
        assert READERS[key].get in done.err
        assert ("no split 'no-such-split'" in done.err) == bool(split)


@pytest.mark.parametrize("key", sorted({*READERS} - {"demo"}))
def test_every_entry_of_the_table_is_usable(
    key: str, project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing root says what belongs there; templates name the class."""
    assert template_texts(READERS[key].templates)
    project.edit(lambda params: params["datasets"].update(x={"reader": key, "root": "nowhere"}))
    monkeypatch.chdir(project.folder)
    done = call("ingest", "--dataset", "x")
    assert done.err.startswith(
        f"error: datasets.x.root 'nowhere' does not exist; expected there: {READERS[key].layout}"
    )
    assert ("ingest.download" in done.err) == (READERS[key].download is not None)


def test_table_for_people_has_every_reader() -> None:
    table = (Path(torchvision_readers.__file__).parent / "README.md").read_text()
    assert [key for key in READERS if f"| `{key}` |" not in table] == []


def test_list_that_names_a_file_outside_is_refused(tmp_path: Path) -> None:
    make_cub(tmp_path)
    text = (tmp_path / "images.txt").read_text()
    (tmp_path / "images.txt").write_text(text.replace("002.Ovenbird/c.jpg", "../../c.jpg"))
    with pytest.raises(UserError, match=r"names the image '../../c\.jpg'; expected a path relative"):
        read("cub", tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("images.txt", "1\n", r"images\.txt, line 1: expected '<image id> <path>', not '1'"),
        ("image_class_labels.txt", "1 1\n", r"names the image '2', which no other list"),
        ("image_class_labels.txt", "1 1\n2 7\n3 1\n", r"names the class '7', which no other list"),
        ("image_class_labels.txt", "1 1\n2 x\n3 1\n", "where a whole number is expected"),
    ],
)
def test_lists_that_do_not_agree(file: str, text: str, match: str, tmp_path: Path) -> None:
    make_cub(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=match):
        read("cub", tmp_path, "all")


# Names by which a class is right, and what it belongs to


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("Black footed Albatross", ["Albatross"]),
        ("Red-winged Blackbird", ["Blackbird"]),
        ("Great Grey Shrike", ["Shrike"]),
        ("Whip-poor Will", ["Nightjar"]),
        ("Chuck-will Widow", ["Nightjar"]),
        ("Ovenbird", []),
    ],
)
def test_group_is_the_last_word_of_a_bird_s_name(name: str, group: list[str]) -> None:
    assert bird_group(name) == group


def test_nabirds_are_called_without_what_tells_their_sexes_apart(tmp_path: Path) -> None:
    make_nabirds(tmp_path)
    listing = read("nabirds", tmp_path)
    assert own_fine(listing.names, listing.fine) == [
        ["Ovenbird"],
        ["Black-bellied Whistling-Duck"],
        ["Common Eider (Adult male)", "Common Eider"],
        ["Common Eider (Female/juvenile)", "Common Eider"],
    ]


def test_cub_has_its_published_names(tmp_path: Path) -> None:
    published = read_lines(CUB_NAMES)
    assert len(set(published)) == 200
    assert published[104] == "Whip-poor Will"
    # Some classes only, with the ids that they have in the whole, and one that no list knows.
    folders = {105: "105.Whip_poor_Will", 12: "012.Yellow_headed_Blackbird", 200: "200.Great_Auk"}
    put(tmp_path, *(f"images/{name}/{class_id}.jpg" for class_id, name in folders.items()))
    write(
        tmp_path,
        images="".join(f"{class_id} {name}/{class_id}.jpg\n" for class_id, name in folders.items()),
        image_class_labels="".join(f"{class_id} {class_id}\n" for class_id in folders),
        classes="".join(f"{class_id} {name}\n" for class_id, name in folders.items()),
    )
    listing = read("cub", tmp_path, "all")
    assert listing.names == ["Yellow-headed Blackbird", "Whip-poor Will", "Great Auk"]
    assert listing.coarse == [["Blackbird"], ["Nightjar"], ["Auk"]]


@pytest.mark.parametrize(
    ("above", "groups"),
    [
        (["Shearwaters and Petrels"], ["Shearwaters", "Petrels"]),
        (["Plovers, Sandpipers, and Allies"], ["Plovers", "Sandpipers", "Allies"]),
        (["Barn Owl", "Barn Owls"], ["Barn Owls"]),  # the species itself is no group
        (["Barn Owls"], ["Barn Owls"]),  # without a node of the species
        ([], []),  # the root is all birds
    ],
)
def test_groups_of_a_bird(above: list[str], groups: list[str]) -> None:
    nodes = ["Barn Owl (Adult)", *above, "Birds"]
    names, parents = dict(enumerate(nodes)), {place: place + 1 for place in range(len(nodes) - 1)}
    found = bird_groups("0", {str(k): v for k, v in names.items()}, {str(k): str(v) for k, v in parents.items()})
    assert found == groups


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("Audi S4 Sedan 2012", "sedan"),
        ("Chrysler Town and Country Minivan 2012", "van"),
        ("Rolls-Royce Phantom Drophead Coupe Convertible 2012", "coupe"),  # the first of the list
        ("Aston Martin V8 Vantage Convertible 2012", "convertible"),  # "Vantage" holds "van"
        ("Infiniti G Coupe IPL 2012", "coupe"),
        ("Ford Ranger SuperCab 2011", "pickup"),
        ("HUMMER H2 SUT Crew Cab 2009", "SUV"),
        ("Dodge Magnum Wagon 2008", "hatchback"),
        ("Audi 100 Wagon 1994", "van"),
        ("Chrysler 300 SRT-8 2010", "sedan"),
    ],
)
def test_body_of_a_car_is_one_of_the_published_seven(name: str, body: str) -> None:
    assert car_body(name) == [body]
    assert car_body("Trabant 601 1990") == []


def test_aircraft_is_called_by_variant_and_family(tmp_path: Path) -> None:
    make_aircraft(tmp_path)
    listing = read("aircraft", tmp_path)
    assert listing.fine == [[variant, family] for variant, (family, _) in AIRCRAFT.items()]


@pytest.mark.parametrize("file", ["val.json", "train_mini.json", "train.json"])
def test_inaturalist_with_annotations(file: str, tmp_path: Path) -> None:
    make_inaturalist(tmp_path)
    assert read("inaturalist", tmp_path).fine is None
    # In an order of its own, and one species without a common name.
    categories = [category(GRASS, "Plants", None), category(WORM, "Animalia", "Common Earthworm")]
    (tmp_path / file).write_text(json.dumps({"images": [], "categories": categories}))
    listing = read("inaturalist", tmp_path)
    assert listing.names == ["Lumbricus terrestris", "Poa annua"]
    assert listing.fine == [["Lumbricus terrestris", "Common Earthworm"], ["Poa annua"]]
    assert listing.superordinate == ["Animalia", "Plants"]
    rows = classes_table(listing).to_pylist()
    assert [row["superordinate"] for row in rows] == ["Animalia", "Plants"]
    assert [row["fine"] for row in rows] == [["Lumbricus terrestris", "Common Earthworm"], None]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", r"val\.json' is not iNaturalist's annotations, .*; fetch it again"),
        ('{"categories": [{"image_dir_name": "x"}]}', "is not iNaturalist's annotations, .*supercategory"),
        ('["categories"]', "is not iNaturalist's annotations"),
        (json.dumps({"categories": [category(WORM, "Animalia", "")]}), rf"no category of the folders {GRASS}; put"),
    ],
)
def test_inaturalist_annotations_refused(text: str, match: str, tmp_path: Path) -> None:
    make_inaturalist(tmp_path)
    (tmp_path / "val.json").write_text(text)
    with pytest.raises(UserError, match=match):
        read("inaturalist", tmp_path)


def test_own_names_stand_before_those_found() -> None:
    assert own_fine(["Tyto alba"], None) is None
    assert own_fine(["Tyto alba", "wren"], [["barn owl", "Barn_Owl", "tyto  alba"], ["wren"]]) == [
        ["Tyto alba", "barn owl"],
        ["wren"],
    ]


def test_class_of_one_name_has_no_fine_labels() -> None:
    table = classes_table(Listing([("a.jpg", 0)], ["owl", "wren"], "bird"))
    assert table.schema == CLASSES.columns
    assert table["fine"].to_pylist() == [None, None]
    assert table["superordinate"].to_pylist() == ["bird", "bird"]


# ImageNet and its relatives


def test_imagenet_names_are_told_apart() -> None:
    ids = imagenet_ids()
    names = imagenet_names(ids)
    assert len(ids) == len(set(names)) == 1000
    assert ids == sorted(ids)
    assert names[ids.index("n02123045")] == "tabby cat"
    changed = [name for name, theirs in zip(names, open_clip.IMAGENET_CLASSNAMES, strict=True) if name != theirs]
    assert sorted(changed) == ["projectile", "sunglass"]


@pytest.mark.parametrize(
    ("key", "place", "subset"),
    [
        ("imagenet", "val", ""),
        ("imagenet-sketch", "sketch", ""),
        ("imagenet-a", "imagenet-a", "_a"),
        ("imagenet-r", "", "_r"),
    ],
)
def test_imagenet_and_its_relatives(key: str, place: str, subset: str, tmp_path: Path) -> None:
    ids = imagenet_ids(subset)
    assert len(ids) == (200 if subset else 1000)
    put(tmp_path / place, *(f"{wnid}/{wnid}_1.JPEG" for wnid in ids))
    (tmp_path / place / "README.txt").write_text("not a class")
    listing = read(key, tmp_path)
    assert [Path(image_id).parent.name for image_id, _ in listing.images] == ids
    assert [label for _, label in listing.images] == list(range(len(ids)))
    assert listing.names == imagenet_names(ids)
    shutil.rmtree(tmp_path / place / ids[7])
    with pytest.raises(UserError, match=rf"1 of {len(ids)} class folders are missing .* {ids[7]}; .* imagenet-subset"):
        read(key, tmp_path)


def test_imagenet_v2_folders_are_numbers(tmp_path: Path) -> None:
    """Sorted as text, 10 would be the third class."""
    put(tmp_path / "imagenetv2-matched-frequency-format-val", *(f"{label}/{label}.jpeg" for label in range(1000)))
    listing = read("imagenet-v2", tmp_path)
    assert all(Path(image_id).stem == str(label) for image_id, label in listing.images)
    with pytest.raises(UserError, match=r"no folder .*top-images"):
        read("imagenet-v2", tmp_path, "top-images")


def test_imagenet_subset(tmp_path: Path) -> None:
    top = put(tmp_path / "parent/imagenet-100", "val/n02123045/a.JPEG", "val/n01440764/b.JPEG")
    for root, split in ((top, "val"), (top, None), (top / "val", None), (top / "val", "val"), (top.parent, "val")):
        assert named(read("imagenet-subset", root, split)) == {"a.JPEG": "tabby cat", "b.JPEG": "tench"}
    with pytest.raises(UserError, match="the folder of the split 'val', but `split` is 'train'"):
        read("imagenet-subset", top / "val", "train")
    put(top, "val/cats/a.JPEG")
    with pytest.raises(UserError, match=r"no WordNet id .*: cats"):
        read("imagenet-subset", top, "val")


# Manifests

ROWS = [
    {"image": "x/a.jpg", "label": "10", "split": "test", "coarse": "cat"},
    {"image": "x/b.jpg", "label": "9", "split": "test", "coarse": "dog"},
    {"image": "x/c.jpg", "label": "10", "split": "train", "coarse": "cat"},
]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_manifest(suffix: str, tmp_path: Path) -> None:
    put(tmp_path, *(row["image"] for row in ROWS))
    path = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        pl.DataFrame(ROWS).with_columns(pl.col("label").cast(pl.Int64)).write_parquet(path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(ROWS[0]), delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    listing = read("manifest", tmp_path, manifest=path.name)
    assert listing == Listing([("x/a.jpg", 1), ("x/b.jpg", 0), ("x/c.jpg", 1)], ["9", "10"], coarse=[["dog"], ["cat"]])
    assert read("manifest", tmp_path, "train", manifest=path.name).images == [("x/c.jpg", 1)]
    other = read("manifest", tmp_path, manifest=path.name, columns=Columns(label="coarse"))
    assert other.names == ["cat", "dog"]
    with pytest.raises(UserError, match="no rows of the split 'val'; there are: test, train"):
        read("manifest", tmp_path, "val", manifest=path.name)
    with pytest.raises(UserError, match=r"no column 'lable' .did you mean 'label'"):
        read("manifest", tmp_path, manifest=path.name, columns=Columns(label="lable"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "no manifest .*; expected a table with the columns"),
        ("image,label\na.jpg,\n", "1 rows without image or label, the first is row 1"),
        ("image,label\n/etc/a.jpg,x\n", "expected a path relative"),
        ("image,label\na.jpg,x\na.jpg,y\n", "listed more than once, such as 'a.jpg'"),
        ("", "cannot be read"),
    ],
)
def test_manifest_refused(text: str | None, match: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UserError, match=match):
        read("manifest", tmp_path, manifest="table.csv")


def test_manifest_says_what_a_class_belongs_to(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    path = tmp_path / "table.csv"
    path.write_text("image,label,superordinate\na.jpg,wren,bird\nb.jpg,oak,tree\nc.jpg,oak,\n")
    listing = read("manifest", tmp_path, manifest="table.csv")
    assert dict(zip(listing.names, listing.superordinate or [], strict=True)) == {"oak": "tree", "wren": "bird"}
    path.write_text("image,label,superordinate\na.jpg,wren,bird\nb.jpg,oak,tree\nc.jpg,oak,plant\n")
    with pytest.raises(UserError, match="superordinate says 'plant' and 'tree' of the class 'oak'; say one thing"):
        read("manifest", tmp_path, manifest="table.csv")
    path.write_text("image,label,superordinate\na.jpg,wren,bird\nb.jpg,oak,\n")
    with pytest.raises(UserError, match="superordinate says nothing of the class 'oak'"):
        read("manifest", tmp_path, manifest="table.csv")


def test_aliases_name_a_class_by_its_name_or_its_label() -> None:
    names = ["arena", "Barn Owl", "arena", "wren"]
    assert labelled_aliases("x", {"barn_owl": "owl", "3": "Wren"}, names) == {1: "owl", 3: "Wren"}
    assert labelled_aliases("x", {3: "Wren"}, names) == {3: "Wren"}
    by_name: dict[int | str, str] = {"arena": "arena", "2": "arena rodeo"}
    assert labelled_aliases("x", by_name, names) == {0: "arena", 2: "arena rodeo"}, "a label says more"
    assert labelled_aliases("x", {0: "nil"}, ["0", "1"]) == {0: "nil"}
    assert labelled_aliases("x", {"2": "two"}, ["1", "2", "10"]) == {1: "two"}
    refused: list[tuple[dict[int | str, str], list[str], str]] = [
        ({2: "two"}, ["1", "2", "10"], "the class of label 2 is '10'; write .* in quotes, as '2'"),
        ({"barn owl": "a", "1": "b"}, names, r"'Barn Owl' \(label 1\) two keys, 'a' and 'b'"),
        ({"Wren": "a", "wren": "b"}, names, "two keys"),
        ({"4": "a"}, names, "no class has the name or label '4'"),
        ({-1: "a"}, names, "no class has the name or label '-1'"),
    ]
    for aliases, given, match in refused:
        with pytest.raises(UserError, match=match):
            labelled_aliases("x", aliases, given)


def test_own_names() -> None:
    assert own_names("x", ["n1", "barn owl"], {"Barn_Owl": "Tyto alba"}) == ["n1", "Tyto alba"]
    assert own_names("x", ["0", "1"], ["owl", "wren"]) == ["owl", "wren"]
    assert own_names("x", ["0", "1"], {1: "wren"}) == ["0", "wren"], "as YAML reads an unquoted number"
    with pytest.raises(UserError, match=r"datasets\.x\.names has 1 names for 2 classes"):
        own_names("x", ["0", "1"], ["owl"])
    with pytest.raises(UserError, match=r"no class is called 'barn ovl' .did you mean 'barn owl'"):
        own_names("x", ["barn owl"], {"barn ovl": "Tyto alba"})


# Archives


def make_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def make_webdataset(root: Path) -> Path:
    make_tar(root / "test/0.tar", {"s0.cls": b"1", "s0.jpg": JPEG, "d/s1.png": picture(kind="PNG"), "d/s1.cls": b"0\n"})
    make_tar(root / "test/1.tar", {"s0.jpg": JPEG, "s0.cls": b"0", "s0.json": b"{}"})
    (root / "classnames.txt").write_text("barn owl\nwren\nheron\n")
    return root


def test_webdataset(tmp_path: Path) -> None:
    root = make_webdataset(tmp_path / "root")
    listing = read("webdataset", root, "test")
    assert listing.root == tmp_path / "unpacked"
    assert listing.names == ["barn owl", "wren", "heron"]
    assert dict(listing.images) == {"0/s0.jpg": 1, "0/d/s1.png": 0, "1/s0.jpg": 0}
    assert (tmp_path / "unpacked/1/s0.jpg").read_bytes() == JPEG
    mark = tmp_path / "unpacked/mark"
    mark.touch()
    assert read("webdataset", root, "test") == listing
    assert mark.exists(), "what was unpacked of the same archives is taken as it is"
    make_tar(root / "test/1.tar", {"s9.jpg": JPEG, "s9.cls": b"2"})
    assert dict(read("webdataset", root, "test").images) == {"0/s0.jpg": 1, "0/d/s1.png": 0, "1/s9.jpg": 2}
    assert not mark.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_webdataset_labels_may_be_names(tmp_path: Path) -> None:
    make_tar(tmp_path / "root/a.tar", {"1.jpg": JPEG, "1.txt": b"wren", "2.jpg": JPEG, "2.txt": b"barn owl"})
    listing = read("webdataset", tmp_path / "root", columns=Columns(label="txt"))
    assert named(listing) == {"1.jpg": "wren", "2.jpg": "barn owl"}


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"1.jpg": JPEG}, r"the sample '1' has no label \(1\.cls\)"),
        ({"1.cls": b"0"}, "the sample '1' has no image"),
        ({"1.jpg": JPEG, "1.cls": b"7"}, "has the label '7'; expected 0 to 2"),
        ({"../1.jpg": JPEG, "../1.cls": b"0"}, "expected a path relative"),
    ],
)
def test_webdataset_refused(members: Mapping[str, bytes], match: str, tmp_path: Path) -> None:
    root = make_webdataset(tmp_path / "root")
    make_tar(root / "test/1.tar", members)
    with pytest.raises(UserError, match=match):
        read("webdataset", root, "test")
    assert not (tmp_path / "unpacked").exists()


def test_tar_cut_short(tmp_path: Path) -> None:
    root = make_webdataset(tmp_path / "root")
    shard = root / "test/0.tar"
    shard.write_bytes(shard.read_bytes()[:1700])
    with pytest.raises(UserError, match=r"0\.tar' is no whole tar"):
        read("webdataset", root, "test")


def make_huggingface(root: Path, labels: list[Any], metadata: bool = True) -> Path:
    image = pa.array(
        [{"bytes": JPEG, "path": f"{row}.jpg" if row else None} for row in range(len(labels))],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    table = pa.table({"img": image, "fine": labels})
    features = {"img": {"_type": "Image"}, "fine": {"_type": "ClassLabel", "names": ["owl", "wren"]}}
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / "test-00000-of-00001.parquet")
    return root


def test_huggingface(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_huggingface(root / "data", [1, 0])
    listing = read("huggingface", root)
    assert listing.names == ["owl", "wren"]
    prefix = "data/test-00000-of-00001"
    assert listing.images == [(f"{prefix}/000000.jpg", 1), (f"{prefix}/000001.jpg", 0)]
    shutil.copy(root / f"{prefix}.parquet", root / "data/train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="several splits; set `split` to one of: test, train"):
        read("huggingface", root)
    assert {image_id.split("-")[0] for image_id, _ in read("huggingface", root, "train").images} == {"data/train"}
    with pytest.raises(UserError, match="no split 'val' below"):
        read("huggingface", root, "val")


def test_huggingface_without_features(tmp_path: Path) -> None:
    root = make_huggingface(tmp_path / "root", ["wren", "owl"], metadata=False)
    with pytest.raises(UserError, match=re.escape("no column 'label'; say which under `columns`")):
        read("huggingface", root)
    assert read("huggingface", root, columns=Columns(label="fine")).images[0][1] == 1


@pytest.mark.parametrize(
    ("labels", "match"), [([-1, 0], "label '-1'; expected 0 to 1"), ([None, 0], "row 0 has no label")]
)
def test_huggingface_unlabelled(labels: list[Any], match: str, tmp_path: Path) -> None:
    root = make_huggingface(tmp_path / "root", labels)
    with pytest.raises(UserError, match=match):
        read("huggingface", root)


def test_stages_read_unpacked_images(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    make_huggingface(project.folder / "given", [1, 0])
    entry = {"reader": "huggingface", "root": "given", "names": ["barn owl", "winter wren"]}
    project.edit(lambda params: params["datasets"].update(x=entry))
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "x").out == "ingest x: 2 images of 2 classes\n"
    assert pq.read_table("data/x/classes.parquet")["name"].to_pylist() == ["barn owl", "winter wren"]
    assert call("crop", "--dataset", "x").code == 0
    done = call("embed", "--dataset", "x", "--model", "tiny")
    assert (done.code, done.err) == (0, "")


# The stage


def test_keys_of_other_readers_are_refused(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    project.edit(lambda params: params["datasets"]["toy"].update(manifest="x.csv"))
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "toy").err == (
        "error: datasets.toy.manifest is for the reader manifest or images, not 'folder'\n"
    )
    project.edit(lambda params: params["datasets"]["toy"].update(columns={"imgae": "x"}))
    assert "datasets.toy.columns.imgae: unknown key (did you mean 'image'?)" in call("ingest", "--dataset", "toy").err


def test_download_into_a_missing_root(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, root: Path, download: bool) -> None:
            assert download
            if (project.folder / "offline").exists():
                raise OSError("no route to host")
            dtd(root)

    monkeypatch.setattr(torchvision_readers.known, "DTD", Fake)
    project.edit(lambda params: params["ingest"].update(download=True))
    project.edit(lambda params: params["datasets"].update(x={"reader": "dtd", "root": "new/dtd"}))
    monkeypatch.chdir(project.folder)
    Path("offline").touch()
    done = call("ingest", "--dataset", "x")
    assert done.code == 1
    assert "torchvision's DTD cannot be downloaded into 'new/dtd': no route to host" in done.err
    Path("offline").unlink()
    assert call("ingest", "--dataset", "x").out == "ingest x: 2 images of 3 classes\n"
    project.edit(lambda params: params["datasets"].update(x={"reader": "cub", "root": "nowhere"}))
    assert "'cub' cannot be downloaded; put into 'nowhere': CUB_200_2011/" in call("ingest", "--dataset", "x").err
