"""Data sets with published text files that list the class and split of each image."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.common.errors import UserError
from stages.common.names import spelling
from stages.ingest.coarse import bird_groups, without_qualifier
from stages.ingest.listing import (
    Listing,
    Request,
    chosen_split,
    look_up,
    prefixed,
    read_lines,
    read_rows,
    readable,
    safe_id,
    whole_number,
)
from stages.ingest.places import home
from stages.ingest.walk import folders_in


@dataclass(frozen=True)
class PathList:
    """A data set whose lists hold paths `<class>/.../<image>`, the class being the first part."""

    splits: Mapping[str, str]
    """Split -> its list, relative to the folder; the first is the default."""
    images: str
    """The folder that the paths are relative to."""
    places: tuple[str, ...] = ()
    suffix: str = ""
    """The end of a path that the lists leave out."""
    superordinate: str | None = None

    def __call__(self, request: Request) -> Listing:
        """Classes come from all existing lists, so every split is scored against the same classes.

        Raises:
            UserError: the chosen list is missing or names no class.
        """
        split = chosen_split(request.split, list(self.splits))
        base = home(request.root, *self.places, marker=self.splits[split])
        rows = {name: read_lines(base / file) for name, file in self.splits.items() if (base / file).is_file()}
        bare = next((path for path in rows[split] if "/" not in path), None)
        if bare is not None:
            raise UserError(f"'{base / self.splits[split]}': expected '<class>/<image>', not '{bare}'")
        classes = sorted({path.split("/", 1)[0] for paths in rows.values() for path in paths})
        label_of = {name: label for label, name in enumerate(classes)}
        where = base / self.splits[split]
        files = [(safe_id(path, where) + self.suffix, label_of[path.split("/", 1)[0]]) for path in rows[split]]
        names = [readable(name) for name in classes]
        return Listing(prefixed(request.root, base / self.images, files), names, self.superordinate)


def read_oxford_pets(root: Path, split: str | None) -> Listing:
    """Oxford-IIIT Pet (Parkhi et al., CVPR 2012): `images/` and `annotations/{test,trainval,list}.txt`.

    A line of a list is `<image name> <class id> <species: 1 cat, 2 dog> <breed id>`. Classes are those of all lists,
    so that a split without images of a class still scores against it; names keep the files' spelling, in which cats
    are capitalised and dogs are not.

    Raises:
        UserError: a list or an image that it names is missing, or a line is malformed.
    """
    lists = {"test": "test.txt", "trainval": "trainval.txt", "all": "list.txt"}
    chosen = split or "test"
    if chosen not in lists:
        raise UserError(f"oxford-pets has no split '{chosen}'; there are: {', '.join(lists)}")
    base = home(root, "oxford-iiit-pet", marker="annotations")
    rows = {name: _pet_rows(base / "annotations" / file, name == chosen) for name, file in lists.items()}
    species_of = {row[1]: (row[0].rsplit("_", 1)[0], row[2]) for name in rows for row in rows[name]}
    ids = sorted(species_of)
    names = [species_of[class_id][0].replace("_", " ") for class_id in ids]
    coarse = [["cat" if species_of[class_id][1] == 1 else "dog"] for class_id in ids]
    files = [(f"{safe_id(stem, base)}.jpg", ids.index(class_id)) for stem, class_id, _ in rows[chosen]]
    return Listing(prefixed(root, base / "images", files), names, superordinate="pet", coarse=coarse)


def _pet_rows(path: Path, needed: bool) -> list[tuple[str, int, int]]:
    """(image name, class id, species) of each line of an annotation list."""
    if not path.is_file():
        if needed:
            raise UserError(f"no '{path}'; expected Oxford-IIIT Pet's folders images/ and annotations/ in the root")
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        if len(fields) != 4 or not all(field.isdigit() for field in fields[1:]):
            raise UserError(f"{path}, line {number}: expected '<image> <class id> <species> <breed id>', not '{line}'")
        rows.append((fields[0], int(fields[1]), int(fields[2])))
    return rows


def _cornell(
    request: Request,
    place: str,
    class_name: Callable[[str], str],
    marker: str = "images.txt",
    unless: str | None = None,
) -> tuple[Path, list[tuple[str, int]], list[str], list[str]]:
    """The lists that CUB-200-2011 and NABirds share: folder, (image_id, label), class ids in use, their names."""
    split = chosen_split(request.split, ["test", "train", "all"])
    base = home(request.root, place, marker=marker, unless=unless)
    classes = dict(read_rows(base / "classes.txt", 2, "<class id> <class name>"))
    class_of = dict(read_rows(base / "image_class_labels.txt", 2, "<image id> <class id>"))
    path_of = dict(read_rows(base / "images.txt", 2, "<image id> <path>"))
    used = sorted(set(class_of.values()), key=lambda class_id: whole_number(class_id, base / "classes.txt"))
    label_of = {class_id: label for label, class_id in enumerate(used)}
    wanted = set(path_of)
    if split != "all":
        rows = read_rows(base / "train_test_split.txt", 2, "<image id> <1 if of the training split>")
        wanted = {image for image, is_train in rows if (is_train == "1") == (split == "train")}
    files = [
        (safe_id(path, base / "images.txt"), label_of[look_up(class_of, image, base / "images.txt", "image")])
        for image, path in path_of.items()
        if image in wanted
    ]
    names = [class_name(look_up(classes, class_id, base / "image_class_labels.txt", "class")) for class_id in used]
    return base, prefixed(request.root, base / "images", files), used, names


NIGHTJARS = {"chuck will widow", "whip poor will"}
"""CUB's names of several words that do not end in a group, in the form of `spelling`."""


def bird_group(name: str) -> list[str]:
    """The group that a bird's name ends with, its last word: of "Red-winged Blackbird" it is "Blackbird".

    A name of one word ("Ovenbird") has no group.
    """
    words = name.split()
    if len(words) < 2:
        return []
    return ["Nightjar" if spelling(name) in NIGHTJARS else words[-1]]


CUB_NAMES = Path(__file__).parent / "names" / "cub.txt"
"""The 200 names as published, in the order of the classes; the folders' names lack their hyphens."""


def cub_name(folder: str, published: Mapping[str, str]) -> str:
    """The published name of a class folder such as `001.Black_footed_Albatross`, or else the folder's own."""
    name = readable(folder.split(".", 1)[-1])
    return published.get(spelling(name), name)


def read_cub(request: Request) -> Listing:
    """CUB-200-2011 (Wah et al., 2011). A class is `001.Black_footed_Albatross`; coarse is the last word of its name.

    Names are the published ones, "Black-footed Albatross".

    Raises:
        UserError: a list is missing, malformed, or does not agree with the others.
    """
    published = {spelling(name): name for name in read_lines(CUB_NAMES)}
    _, images, _, names = _cornell(
        request, "CUB_200_2011", lambda folder: cub_name(folder, published), unless="hierarchy.txt"
    )
    return Listing(images, names, "bird", [bird_group(name) for name in names])


def read_nabirds(request: Request) -> Listing:
    """NABirds (Van Horn et al., CVPR 2015): 555 of the 1011 nodes of its tree have images.

    A class is "Common Eider (Adult male)", and
    "Common Eider" is right as well. Coarse labels are the groups of the species. Both are as in FINER (arXiv
    2402.16315).

    Raises:
        UserError: as `read_cub`, or `hierarchy.txt` names a node that `classes.txt` does not.
    """
    base, images, used, names = _cornell(request, "nabirds", lambda name: name, marker="hierarchy.txt")
    nodes = dict(read_rows(base / "classes.txt", 2, "<class id> <class name>"))
    parent_of = dict(read_rows(base / "hierarchy.txt", 2, "<class id> <parent's id>"))
    for node in parent_of.values():
        look_up(nodes, node, base / "hierarchy.txt", "class")
    coarse = [bird_groups(class_id, nodes, parent_of) for class_id in used]
    fine = [[name, without_qualifier(name)] for name in names]
    return Listing(images, names, "bird", coarse, fine)


def read_places365(request: Request) -> Listing:
    """Places365 (Zhou et al., TPAMI 2018): the validation images, small or large; coarse is indoor or outdoor.

    Raises:
        UserError: a list or the folder of images is missing.
    """
    chosen_split(request.split, ["val"])
    root = home(request.root, marker="categories_places365.txt")
    classes = read_rows(root / "categories_places365.txt", 2, "/<letter>/<category> <class id>")
    ids = {whole_number(number, root / "categories_places365.txt"): name for name, number in classes}
    label_of = {class_id: label for label, class_id in enumerate(sorted(ids))}
    folder = next((root / name for name in ("val_256", "val_large") if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(f"no folder val_256/ or val_large/ in '{root}'")
    path = root / "places365_val.txt"
    files = [
        (safe_id(name, path), look_up(label_of, whole_number(number, path), path, "class"))
        for name, number in read_rows(path, 2, "<image> <class id>")
    ]
    # "/a/airport_terminal", "/f/field/wild": the letter is that of the alphabet.
    parts = [ids[class_id].split("/")[2:] for class_id in sorted(ids)]
    names = [readable(" ".join(own)) for own in parts]
    # Published description files leave the qualifier out: "field wild" is "field" there.
    keys = [[readable(own[0])] if len(own) > 1 else [] for own in parts]
    coarse = None
    if (root / "IO_places365.txt").is_file():
        inside = dict(read_rows(root / "IO_places365.txt", 2, "/<letter>/<category> <1 indoor, 2 outdoor>"))
        coarse = [["indoor" if inside.get(ids[class_id]) == "1" else "outdoor"] for class_id in sorted(ids)]
    return Listing(prefixed(request.root, folder, files), names, "place", coarse, keys=keys)


def read_ucf101(request: Request) -> Listing:
    """UCF101 (Soomro et al., 2012) as middle frames, one a video; `test` is the first of the official splits.

    The lists name videos, `ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi`; the frames are
    `UCF-101-midframes/Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg`.

    Raises:
        UserError: a list, the folder of frames or that of a class is missing.
    """
    numbers = [f"{kind}{number}" for number in ("", "2", "3") for kind in ("test", "train")]
    split = chosen_split(request.split, numbers)
    kind, number = split.rstrip("23"), split[-1] if split[-1] in "23" else "1"
    frames_in = "UCF-101-midframes"
    try:
        root = home(request.root, marker=frames_in)
    except UserError as error:
        raise UserError(f"{error}; it has a frame a video: videos themselves are not read") from None
    lists = home(root, "ucfTrainTestlist", marker="classInd.txt")
    frames = root / frames_in
    classes = [name for _, name in read_rows(lists / "classInd.txt", 2, "<class id> <class>")]
    # "HandstandPushups" is "HandStandPushups" in the names of its videos, and "Handstand_Pushups" among the frames.
    label_of = {name.lower(): label for label, name in enumerate(classes)}
    folder_of = {name.replace("_", "").lower(): name for name in folders_in(frames)}
    path = lists / f"{kind}list0{number}.txt"
    files = []
    for line in read_lines(path):
        name = safe_id(line.split()[0], path)
        key = name.split("/")[0].lower()
        label = look_up(label_of, key, path, "class")
        files.append((f"{look_up(folder_of, key, path, 'class')}/{Path(name).stem}.jpg", label))
    names = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in classes]
    return Listing(prefixed(request.root, frames, files), names, "human action")
