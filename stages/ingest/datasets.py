"""The table of data sets: where each keeps its images, how its classes are named, which templates it uses.

A new one is a function from a `Request` to a `Listing`, most often one of the generic readers with its arguments, and
one entry in `READERS`. `README.md` beside this file is the table for people.
"""

from __future__ import annotations

from stages.ingest import published
from stages.ingest.folders import (
    imagenet_folders,
    named_folders,
    read_demo,
    read_folder,
    read_imagenet_subset,
    read_inaturalist,
)
from stages.ingest.huggingface import read_huggingface
from stages.ingest.listing import Listing, Reader, Request
from stages.ingest.lists import (
    PathList,
    read_cub,
    read_nabirds,
    read_oxford_pets,
    read_places365,
    read_ucf101,
)
from stages.ingest.manifests import read_manifest
from stages.ingest.torchvision_readers import (
    EUROSAT,
    fetch,
    read_aircraft,
    read_cars,
    read_dogs,
    read_flowers,
    read_sun397,
)
from stages.ingest.unlabelled import read_images
from stages.ingest.webdataset import read_webdataset

__all__ = ["READERS", "Listing", "Reader", "Request", "read_demo", "read_folder", "read_oxford_pets"]

BIRD = ["a photo of a {name}, a type of bird."]
IMAGENET_TEMPLATES = "imagenet80"
DTD_NOUNS = ("texture", "pattern", "thing", "object")

READERS: dict[str, Reader] = {
    "demo": Reader(
        lambda request: read_demo(request.root, request.split), "the drawn birds; `dvc repro draw` makes them"
    ),
    # Layouts of your own data.
    "folder": Reader(
        lambda request: read_folder(request.root, request.split), "one sub-folder a class with its images"
    ),
    "images": Reader(read_images, "images at any depth, or *.tar or *.parquet that hold images"),
    "manifest": Reader(read_manifest, "images, and a CSV or Parquet table that lists them"),
    "webdataset": Reader(read_webdataset, "*.tar, and classnames.txt if labels are numbers"),
    "huggingface": Reader(read_huggingface, "the *.parquet of a Hugging Face data set, with image bytes"),
    # ImageNet and its relatives.
    "imagenet": Reader(
        imagenet_folders(
            places=["{split}", "ILSVRC/Data/CLS-LOC/{split}", "Data/CLS-LOC/{split}"], splits=["val", "train"]
        ),
        "val/ (or train/) with 1000 folders named by WordNet id",
        "image-net.org; its flat validation images are sorted into folders by their ground truth",
        templates=IMAGENET_TEMPLATES,
        keys=published.IMAGENET,
    ),
    "imagenet-subset": Reader(
        read_imagenet_subset,
        "folders named by WordNet id, some of ImageNet's 1000",
        templates=IMAGENET_TEMPLATES,
        keys=published.IMAGENET,
    ),
    "imagenet-v2": Reader(
        imagenet_folders(
            places=["imagenetv2-{split}-format-val", "imagenetv2-{split}"],
            splits=["matched-frequency", "threshold0.7", "top-images"],
            by_index=True,
        ),
        "imagenetv2-matched-frequency-format-val/ with folders 0 to 999",
        "huggingface.co/datasets/vaishaal/ImageNetV2",
        templates=IMAGENET_TEMPLATES,
        keys=published.IMAGENET,
    ),
    "imagenet-a": Reader(
        imagenet_folders("_a", places=["imagenet-a"]),
        "imagenet-a/ with 200 folders named by WordNet id",
        "github.com/hendrycks/natural-adv-examples",
        templates=IMAGENET_TEMPLATES,
        keys=published.IMAGENET,
    ),
    "imagenet-r": Reader(
        imagenet_folders("_r", places=["imagenet-r"]),
        "imagenet-r/ with 200 folders named by WordNet id",
        "github.com/hendrycks/imagenet-r",
        templates=IMAGENET_TEMPLATES,
        keys=published.IMAGENET,
    ),
    "imagenet-sketch": Reader(
        imagenet_folders(places=["sketch", "imagenet-sketch"]),
        "sketch/ with 1000 folders named by WordNet id",
        "github.com/HaohanWang/ImageNet-Sketch",
        templates=IMAGENET_TEMPLATES,
        keys=published.IMAGENET,
    ),
    # Animals and plants.
    "cub": Reader(
        read_cub,
        "CUB_200_2011/ with images/, images.txt, image_class_labels.txt, classes.txt and train_test_split.txt",
        "data.caltech.edu/records/65de6-vp158",
        BIRD,
    ),
    "nabirds": Reader(
        read_nabirds,
        "nabirds/ with images/ and its lists, images.txt to hierarchy.txt",
        "dl.allaboutbirds.org/nabirds",
        BIRD,
    ),
    "oxford-pets": Reader(
        lambda request: read_oxford_pets(request.root, request.split),
        "the folders images/ and annotations/ of Oxford-IIIT Pet",
        "robots.ox.ac.uk/~vgg/data/pets",
        ["a photo of a {name}, a type of pet."],
        fetch("OxfordIIITPet"),
    ),
    "stanford-dogs": Reader(
        read_dogs,
        "Images/ with a folder a breed, and test_list.mat, train_list.mat, file_list.mat",
        "vision.stanford.edu/aditya86/ImageNetDogs",
        ["a photo of a {name}, a type of dog."],
    ),
    "inaturalist": Reader(
        read_inaturalist,
        "val/ (or train/, train_mini/) with folders named <number>_<kingdom>_..._<genus>_<epithet>",
        "github.com/visipedia/inat_comp/tree/master/2021",
        ["a photo of a {name}, a species."],
        fetch("INaturalist", version="2021_valid"),
    ),
    "flowers102": Reader(
        read_flowers,
        "flowers-102/ with jpg/, imagelabels.mat and setid.mat",
        "robots.ox.ac.uk/~vgg/data/flowers/102",
        ["a photo of a {name}, a type of flower."],
        fetch("Flowers102"),
        published.FLOWERS102,
    ),
    # Artefacts.
    "stanford-cars": Reader(
        read_cars,
        "stanford_cars/ with cars_test/, cars_test_annos_withlabels.mat, cars_train/ and devkit/",
        "a mirror (github.com/pytorch/vision/issues/7545 lists some); Stanford's own is gone",
        ["a photo of a {name}."],
        keys=published.STANFORD_CARS,
    ),
    "aircraft": Reader(
        read_aircraft,
        "fgvc-aircraft-2013b/ with data/",
        "robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
        ["a photo of a {name}, a type of aircraft."],
        fetch("FGVCAircraft"),
    ),
    "food101": Reader(
        PathList(
            {"test": "meta/test.txt", "train": "meta/train.txt"},
            "images",
            places=("food-101",),
            suffix=".jpg",
            superordinate="food",
        ),
        "food-101/ with images/ and meta/",
        "data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
        ["a photo of {name}, a type of food."],
        fetch("Food101"),
    ),
    "caltech101": Reader(
        named_folders(
            "caltech101/101_ObjectCategories",
            "101_ObjectCategories",
            names={
                "Faces": "off-center face",
                "Faces_easy": "centered face",
                "Leopards": "leopard",
                "Motorbikes": "motorbike",
                "airplanes": "airplane",
            },
            leave=["BACKGROUND_Google"],
        ),
        "101_ObjectCategories/ with a folder a class",
        "data.caltech.edu/records/mzrjq-6wc02",
        download=fetch("Caltech101"),
        keys=published.CALTECH101,
    ),
    # Surfaces, places, actions.
    "dtd": Reader(
        PathList(
            {
                f"{kind}{number or 1}": f"labels/{kind}{number or 1}.txt"
                for number in range(1, 11)
                for kind in ("test", "train", "val")
            },
            "images",
            places=("dtd", "dtd/dtd"),
            superordinate="texture",
        ),
        "dtd/ with images/ and labels/",
        "robots.ox.ac.uk/~vgg/data/dtd",
        [f"a photo of {article} {{name}} {noun}." for article in ("a", "the") for noun in DTD_NOUNS],
        fetch("DTD"),
    ),
    "eurosat": Reader(
        named_folders("eurosat/2750", "2750", "EuroSAT", names=EUROSAT, superordinate="land use"),
        "2750/ with ten folders",
        "github.com/phelber/EuroSAT",
        [f"a centered satellite photo of {article}{{name}}." for article in ("", "a ", "the ")],
        fetch("EuroSAT"),
        published.EUROSAT,
    ),
    "places365": Reader(
        read_places365,
        "categories_places365.txt, places365_val.txt and val_256/ (or val_large/)",
        "places2.csail.mit.edu",
        [f"a photo of {article} {{name}}, a type of place." for article in ("a", "the")],
        fetch("Places365", split="val", small=True),
        published.PLACES365,
    ),
    "sun397": Reader(
        read_sun397,
        "SUN397/ with ClassName.txt and folders a/ to z/",
        "vision.princeton.edu/projects/2010/SUN",
        ["a photo of a {name}."],
        fetch("SUN397"),
    ),
    "ucf101": Reader(
        read_ucf101,
        "UCF-101-midframes/ with a frame a video, and ucfTrainTestlist/",
        "crcv.ucf.edu/data/UCF101.php, frames by any video tool",
        ["a photo of a person doing {name}."],
        keys=published.UCF101,
    ),
}
