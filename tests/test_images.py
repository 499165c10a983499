"""Images as they come: each is read right, or refused with its reason; what `probe` lets pass is what is read later."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Call, Project, make_image
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps
from torchvision import transforms

from stages.common.artifacts import SKIPPED
from stages.common.images import UNREADABLE, open_rgb, reason
from stages.common.tables import read_meta
from stages.embed.views import ViewMaker, whole_image_transform
from stages.ingest.probe import probe

RGB = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)
CLIP: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "shortest"}


def pixels(path: Path) -> np.ndarray:
    """[H, W, 3] as every stage reads it, checked to be what `probe` says."""
    image, found = open_rgb(path), probe(path)
    assert (found.problem, image.mode) == ("", "RGB")
    assert image.size == (found.width, found.height)
    return np.asarray(image)


def refused(path: Path) -> str:
    """The reason, the same of `probe` and of reading."""
    with pytest.raises(UNREADABLE) as caught:
        open_rgb(path)
    found = probe(path).problem
    assert found == reason(caught.value)
    assert len(found.splitlines()) == 1
    return found


# Read right


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_scaled(kind: str, tmp_path: Path) -> None:
    """0, 1/4, 1/2, 3/4 and all of white; clipped, the last four would be white."""
    values = np.array([[0, 16384, 32768, 49151, 65535]], dtype=np.uint16)
    path = tmp_path / f"grey.{kind.lower()}"
    if kind == "PPM":
        path.write_bytes(b"P5\n5 1\n65535\n" + values.byteswap().tobytes())
    else:
        Image.fromarray(values).save(path, kind)
    found = pixels(path)
    assert np.abs(found[0, :, 0].astype(int) - [0, 64, 128, 191, 255]).max() <= 1
    assert (found == found[..., :1]).all()


def test_dark_grey_of_16_bits_stays_dark(tmp_path: Path) -> None:
    """Scaling is by the depth, not by the brightest pixel."""
    Image.fromarray(np.full((4, 4), 257, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert (pixels(tmp_path / "dark.png") == 1).all()


def test_grey(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    assert (pixels(tmp_path / "grey.png") == RGB[..., :1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped(mode: str, tmp_path: Path) -> None:
    """As CLIP's own preprocessing does: what is under a transparent pixel shows."""
    image = Image.fromarray(RGB).convert(mode)
    image.putalpha(Image.fromarray(RGB[..., 1]))
    image.save(tmp_path / "alpha.png")
    expected = image.convert("RGB")
    assert (pixels(tmp_path / "alpha.png") == np.asarray(expected)).all()


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
@pytest.mark.filterwarnings("error")
def test_palette_with_transparency(transparency: int | bytes, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    image = Image.fromarray(RGB).quantize(32)
    image.save(tmp_path / "palette.png", transparency=transparency)
    assert (pixels(tmp_path / "palette.png") == np.asarray(image.convert("RGB"))).all()
    assert capfd.readouterr().err == ""


def test_cmyk(tmp_path: Path) -> None:
    make_image(tmp_path / "rgb.png", 40, 30, 0)
    with Image.open(tmp_path / "rgb.png") as image:
        image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    difference = pixels(tmp_path / "cmyk.jpg").astype(int) - pixels(tmp_path / "rgb.png")
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientation_is_applied(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    make_image(tmp_path / "as-stored.png", 40, 24, 0)
    with Image.open(tmp_path / "as-stored.png") as image:
        image.save(path, exif=exif)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert (pixels(path) == np.asarray(expected)).all()


@pytest.mark.parametrize("value", [0, 9, 77])
def test_orientation_that_is_none_is_ignored(value: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(RGB).save(tmp_path / "odd.jpg", exif=exif)
    assert pixels(tmp_path / "odd.jpg").shape == (15, 20, 3)


@pytest.mark.parametrize(
    "junk", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"]
)
def test_damaged_exif_is_ignored(junk: bytes, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "damaged.jpg", exif=junk)
    assert pixels(tmp_path / "damaged.jpg").shape == (15, 20, 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (12, 9), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(tmp_path / "moving", kind, save_all=True, append_images=frames[1:], **options)
    found = pixels(tmp_path / "moving")
    assert found.shape == (9, 12, 3)
    assert (np.abs(found.astype(int) - [255, 0, 0]) <= 1).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "txt", ""])
def test_extension_does_not_matter(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(RGB).save(path, kind)
    assert pixels(path).shape == (15, 20, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (12000, 1), (12000, 40), (30, 4000)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_extreme_sizes_have_views(size: tuple[int, int], mode: str, tmp_path: Path) -> None:
    """In little memory: an image of 12000 x 1 is not resized to 2688000 x 224."""
    Image.new("RGB", size, (0, 128, 128)).save(tmp_path / "extreme.png")
    assert pixels(tmp_path / "extreme.png").shape == (size[1], size[0], 3)
    boxes = np.array([[0, 0, 1, 1], [size[0] - 1, size[1] - 1, size[0], size[1]]], dtype=np.int32)
    views = ViewMaker({**CLIP, "resize_mode": mode}, 64)(open_rgb(tmp_path / "extreme.png"), boxes).numpy()
    assert views.shape == (3, 3, 64, 64)
    assert (views[1:] == np.array([0, 128, 128])[:, None, None]).all()
    # Resized by its longer side, such an image is a line between margins.
    middle = views[0, :, 31:33, 31:33].reshape(3, -1).T
    assert np.all(middle == [0, 128, 128], axis=1).any()


@pytest.mark.parametrize("size", [(400, 40), (40, 333), (700, 7), (301, 30), (500, 61)])
def test_middle_of_a_long_image_is_what_open_clip_takes(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 9, 3), dtype=np.uint8)).resize(size)
    steps = image_transform_v2(PreprocessCfg(size=64, **CLIP), is_train=False).transforms
    theirs = transforms.Compose([s for s in steps if not isinstance(s, transforms.ToTensor | transforms.Normalize)])
    difference = np.asarray(theirs(image)).astype(int) - np.asarray(whole_image_transform(CLIP, 64)(image))
    assert np.abs(difference).max() <= 2


# Refused


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    """The limit is Pillow's; an image that is merely large is read, without a word."""
    Image.fromarray(RGB).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 149)
    assert refused(tmp_path / "large.png") == "more than 298 pixels"


def test_bomb_of_real_size(tmp_path: Path) -> None:
    """20,000 x 20,000 in some tens of kilobytes; nothing of it is decoded."""
    path = tmp_path / "bomb.png"
    Image.new("1", (20000, 20000)).save(path)
    assert path.stat().st_size < 100_000
    assert "pixels" in refused(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "progressive"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_truncated(kind: str, share: float, tmp_path: Path) -> None:
    """Either both stages refuse it, or both read the same; a JPEG or PNG that is cut is always refused."""
    file = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    image.save(
        file, "JPEG" if kind == "progressive" else kind, **({"progressive": True} if kind == "progressive" else {})
    )
    path = tmp_path / "cut"
    path.write_bytes(file.getvalue()[: int(len(file.getvalue()) * share)])
    if kind in ("JPEG", "PNG", "BMP", "progressive"):
        assert refused(path) in ("truncated or damaged", "not an image")
    elif probe(path).problem:
        refused(path)
    else:
        pixels(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_damaged_bytes_never_pass_one_stage_and_fail_another(kind: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file, kind)
    whole, rng, path = file.getvalue(), np.random.default_rng(4), tmp_path / "damaged"
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 400), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        if probe(path).problem:
            refused(path)
        else:
            pixels(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not an image (empty file)"),
        (b"<html>not found</html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
    ],
)
def test_not_an_image(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    assert refused(tmp_path / "x.jpg").startswith(expected)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "x.jpg") == "no such file or directory"
    assert refused(tmp_path) == "is a directory"


@pytest.mark.parametrize(("dtype", "expected"), [(np.float32, "floating-point pixels"), (np.int32, "32-bit pixels")])
def test_pixels_of_unknown_range(dtype: Any, expected: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 70000, dtype=dtype)).save(tmp_path / "x.tiff")
    assert refused(tmp_path / "x.tiff") == expected


# The stages


def spoil(project: Project) -> None:
    images = project.folder / "toy-images"
    (images / "blue tavo/1.jpg").write_bytes(b"")
    (images / "blue tavo/2.jpg").write_bytes(b"no image")
    whole = (images / "Grey_Heron/0.jpg").read_bytes()
    (images / "Grey_Heron/0.jpg").write_bytes(whole[: len(whole) // 2])


def test_bad_images_are_skipped_and_counted(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    spoil(project)
    done = call("ingest", "--dataset", "toy")
    assert done.code == 1
    assert "3 of 9 images under 'toy-images' cannot be read" in done.err
    assert done.err.endswith("or set ingest.on_bad_image: skip\n")
    project.edit(lambda params: params["ingest"].update(on_bad_image="skip"))
    reasons = "1 truncated or damaged, 1 not an image (empty file), 1 not an image"
    assert call("ingest", "--dataset", "toy").out == f"ingest toy: 6 images of 3 classes; 3 skipped: {reasons}\n"
    assert pq.read_table("data/toy/images.parquet").num_rows == 6
    skipped = Path("data/toy/skipped.parquet")
    assert read_meta(skipped, SKIPPED).dataset == "toy"
    assert pq.read_table(skipped).to_pylist() == [
        {"image_id": "Grey_Heron/0.jpg", "reason": "truncated or damaged"},
        {"image_id": "blue tavo/1.jpg", "reason": "not an image (empty file)"},
        {"image_id": "blue tavo/2.jpg", "reason": "not an image"},
    ]
    for stage in ("crop", "refine", "embed", "score", "report"):
        model = [] if stage == "crop" else ["--model", "tiny"]
        assert call(stage, "--dataset", "toy", *model).code == 0
    table = Path("data/toy/tiny/report/table.md").read_text()
    assert f"3 images were skipped ({reasons}): `data/toy/skipped.parquet`." in table


def test_nothing_skipped_is_an_empty_table(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "toy").code == 0
    table = pq.read_table("data/toy/skipped.parquet")
    assert (table.num_rows, table.column_names) == (0, ["image_id", "reason"])


def test_nothing_readable_is_refused(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    for path in (project.folder / "toy-images").rglob("*.jpg"):
        path.write_bytes(b"")
    project.edit(lambda params: params["ingest"].update(on_bad_image="skip"))
    assert "9 of 9 images" in call("ingest", "--dataset", "toy").err


def test_every_kind_goes_through_the_pipeline(project: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages agree on sizes: crops are drawn, embedded and pictured of what ingest let pass."""
    monkeypatch.chdir(project.folder)
    shutil.rmtree("toy-images")
    for name in ("red-crowned tavo", "blue tavo", "Grey_Heron"):
        Path("toy-images", name).mkdir(parents=True)
    tall = Image.Exif()
    tall[0x0112] = 6
    Image.new("RGB", (1, 1)).save("toy-images/blue tavo/pixel.png")
    Image.new("RGB", (12000, 1)).save("toy-images/blue tavo/wide.png")
    Image.fromarray(RGB).save("toy-images/Grey_Heron/turned.jpg", exif=tall)
    Image.fromarray(RGB.astype(np.uint16)[..., 0] * 257).save("toy-images/Grey_Heron/deep.png")
    Image.fromarray(RGB).convert("CMYK").save("toy-images/red-crowned tavo/print.jpg")
    Image.fromarray(RGB).quantize(8).save("toy-images/red-crowned tavo/moving.gif")
    assert call("ingest", "--dataset", "toy").out == "ingest toy: 6 images of 3 classes\n"
    assert call("crop", "--dataset", "toy").code == 0
    done = call("embed", "--dataset", "toy", "--model", "tiny")
    assert (done.code, done.err) == (0, "")
