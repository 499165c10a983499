"""Files that unpack to gigabytes, or claim to, are refused in a line before they are unpacked."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from scipy.io import savemat  # type: ignore[import-untyped]

from stages.common import parquet_pages
from stages.common.errors import UserError
from stages.common.images import UNREADABLE, image_size, open_rgb
from stages.common.jsons import read_json
from stages.common.tables import open_parquet
from stages.common.yamls import load_yaml
from stages.describe.prompts import load_source
from stages.ingest.huggingface import read_huggingface
from stages.ingest.listing import Request
from stages.ingest.manifests import read_manifest
from stages.ingest.mat import check_mat
from stages.ingest.probe import probe
from stages.ingest.torchvision_readers import _mat
from stages.ingest.webdataset import read_webdataset

LIMIT = 1 << 16
HUGE = 1 << 20


@pytest.fixture(autouse=True)
def _low_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of 64 KiB, so that a megabyte is huge; no reading of Parquet values but by tests that need it."""
    monkeypatch.chdir(tmp_path)
    for name in ("ingest.huggingface.IMAGE_BYTES", "ingest.parquet.IMAGE_BYTES"):
        monkeypatch.setattr(f"stages.{name}", LIMIT)
    monkeypatch.setattr(parquet_pages, "PAGE_BYTES", LIMIT)
    monkeypatch.setattr(parquet_pages, "PAGE_HEAD", LIMIT)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("it was unpacked")


def refusal(read: Any, **request: Any) -> str:
    with pytest.raises(UserError) as refused:
        read(Request(Path("root"), unpacked=Path("unpacked"), **request))
    message = str(refused.value)
    assert "\n" not in message
    assert "root/" in message
    assert not Path("unpacked").exists()
    return message


def write(name: str, columns: dict[str, Any], **options: Any) -> None:
    Path("root").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), Path("root") / name, compression="zstd", **options)


PLAIN: dict[str, Any] = {"use_dictionary": False}
HIDDEN = PLAIN | {"data_page_version": "2.0", "row_group_size": 50, "data_page_size": 1, "write_batch_size": 1}


@pytest.mark.parametrize("options", [PLAIN, HIDDEN, {"dictionary_pagesize_limit": 1 << 30}])
@pytest.mark.parametrize("column", ["image", "label"])
def test_a_huge_value_in_a_small_parquet_file(
    column: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of many rows, so that neither the footer nor a mean of all rows shows it."""
    values: dict[str, list[Any]] = {"image": [png()] * 80, "label": ["a", "b"] * 40}
    values[column][60] = png() + bytes(HUGE) if column == "image" else "x" * HUGE
    write("train.parquet", values, **options)
    assert Path("root/train.parquet").stat().st_size < LIMIT
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", never)
    message = refusal(read_huggingface)
    assert f"'root/train.parquet', column '{column}', from row " in message
    if options is HIDDEN:
        assert "from row 60 on: 1 values" in message


def test_one_image_that_many_rows_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dictionary holds it once; unpacked, it would fill the disk."""
    image = png() + bytes(LIMIT // 2)
    write("train.parquet", {"image": [image] * 800, "label": ["a", "b"] * 400})
    assert "row 1: the image has" in refusal(read_huggingface)


def test_images_that_do_not_shrink_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their pages are larger than the limit, and as large as the file."""
    images = [png() + os.urandom(LIMIT // 2) for _ in range(30)]
    write("train.parquet", {"image": images, "label": ["a", "b"] * 15}, **PLAIN)
    listing = read_huggingface(Request(Path("root"), unpacked=Path("unpacked")))
    assert len(listing.images) == 30
    assert (Path("unpacked") / listing.images[7][0]).read_bytes() == images[7]


def test_pages_are_found_whatever_wrote_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their headers are read here and not by a library: with statistics, of both versions, by two writers."""
    rows = range(3000)
    values: dict[str, list[Any]] = {
        "image": [f"{row}.png".encode() for row in rows],
        "label": [f"class {row % 7}" for row in rows],
    }
    written: dict[str, dict[str, Any]] = {
        "1": PLAIN, "2": {"data_page_version": "2.0"}, "3": {"data_page_size": 100},
    }  # fmt: skip
    limits = {"image": 1 << 20, "label": 1 << 20}
    for name, options in written.items():
        write(name, values, **options)
    pl.DataFrame(values).write_parquet("root/polars", row_group_size=700, data_page_size=500)
    write("none", {name: column[:0] for name, column in values.items()} | {"number": pa.array([], pa.int32())})
    assert parquet_pages.check_pages(Path("root/none"), pq.read_metadata("root/none")) < 100
    Path("root/none").unlink()
    for path in Path("root").iterdir():
        footer = pq.read_metadata(path)
        assert 0 < parquet_pages.check_pages(path, footer, limits) < 60_000
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        for column in (group.column(0) for group in groups):
            with path.open("rb") as source:
                pages = list(parquet_pages._pages(source, column))
            assert sum(page.values for page in pages if not page.is_dictionary) == column.num_values
    damaged = bytearray(Path("root/1").read_bytes())
    damaged[4:40] = b"\xff" * 36
    Path("root/1").write_bytes(damaged)
    with pytest.raises(pa.ArrowInvalid, match="damaged at byte 4, where a page begins"):
        parquet_pages.check_pages(Path("root/1"), pq.read_metadata("root/1"), limits)


def test_a_huge_value_in_a_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    write("m.parquet", {"image": ["a.png", "b.png"], "label": ["a", "x" * HUGE]}, **PLAIN)
    write("rows.parquet", {"image": ["a.png"] * 90, "label": ["a"] * 90})
    with monkeypatch.context() as patched:
        patched.setattr(pl, "read_parquet", never)
        patched.setattr("stages.ingest.manifests.MOST_ROWS", 80)
        assert "'root/m.parquet', column 'label', from row 0" in refusal(read_manifest, manifest="m.parquet")
        assert "'root/rows.parquet' has 90 rows; at most 80" in refusal(read_manifest, manifest="rows.parquet")
    for name in ("a.png", "b.png"):
        Path("root", name).write_bytes(png())
    write("m.parquet", {"junk": [b"", bytes(HUGE)], "image": ["a.png", "b.png"], "label": ["a", "b"]}, **PLAIN)
    listing = read_manifest(Request(Path("root"), manifest="m.parquet"))
    assert listing.images == [("a.png", 0), ("b.png", 1)], "a column that is not read does no harm"
    Path("root/m.csv").write_text(f"image,label\na.png,a\nb.png,{'x' * LIMIT}\n")
    assert "'root/m.csv', row 2: the column 'label' has 65,536 bytes" in refusal(read_manifest, manifest="m.csv")


def test_a_huge_value_in_an_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    write("texts.parquet", {"description": ["a", "b" * HUGE]}, **PLAIN)
    with pytest.raises(UserError, match=r"texts\.parquet', column 'description', from row 0 on: 2 values unpack"):
        open_parquet(Path("root/texts.parquet"))


def make_tar(name: str, size: int, kind: bytes = tarfile.REGTYPE, claimed: int | None = None) -> None:
    Path("root").mkdir(exist_ok=True)
    member = tarfile.TarInfo(name)
    member.size, member.type = size if claimed is None else claimed, kind
    with tarfile.open("root/train.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("README"))
        archive.addfile(member, io.BytesIO(bytes(size)) if claimed is None else None)


def test_a_huge_file_in_a_tar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.ingest.webdataset.IMAGE_MIB", 1)
    monkeypatch.setattr(tarfile.TarFile, "extractfile", never)
    make_tar("0.png", 3 * HUGE)
    assert "'0.png' has 3,145,728 bytes; at most 1,048,576" in refusal(read_webdataset)
    make_tar("0.cls", 3 * HUGE)
    assert "'0.cls' has 3,145,728 bytes; at most 1,048,576" in refusal(read_webdataset)
    make_tar("0.png", 0, claimed=1 << 40)
    assert "'0.png' has 1,099,511,627,776 bytes" in refusal(read_webdataset)
    make_tar("note", 3 * HUGE, kind=tarfile.XHDTYPE)
    assert "a name or note of 3,145,728 bytes" in refusal(read_webdataset)


def test_a_huge_matlab_file(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("x.mat")
    for packed in (True, False):
        savemat(path, {"labels": np.zeros((1, HUGE)), "words": np.array([["ab", "c"]], object)}, do_compression=packed)
        check_mat(path)
        assert len(_mat(path, "labels")[0]) == HUGE
    savemat(path, {"labels": np.zeros((1, HUGE))}, do_compression=True)
    monkeypatch.setattr("stages.ingest.torchvision_readers.loadmat", never)
    monkeypatch.setattr("stages.ingest.mat.MOST_BYTES", HUGE)
    with pytest.raises(UserError, match=r"'x\.mat' unpacks to more than 1,048,576"):
        _mat(path, "labels")
    monkeypatch.setattr("stages.ingest.mat.MOST_VALUES", 10)
    with pytest.raises(UserError, match=r"'x\.mat' has 1,048,576 values in 'labels'; at most 10"):
        _mat(path, "labels")


def test_huge_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their pixels, and by the bytes of their file, which may be a hole."""
    path = Path("x.png")
    path.write_bytes(png())
    with monkeypatch.context() as patched:
        patched.setattr(Image, "MAX_IMAGE_PIXELS", 150)
        assert probe(path).problem == "more than 300 pixels"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert probe(path).problem == "more than 256 MiB"
    for read in (open_rgb, image_size):
        with pytest.raises(UNREADABLE, match="more than 256 MiB"):
            read(path)


def test_yaml_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laughs = "a0: &a0 [ha, ha, ha]\n" + "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n}, ' * 10}]\n" for n in range(9))
    for text in (laughs, "a: &a [*a]", "[" * 1000, "a: &a {b: *a}"):
        with pytest.raises(yaml.YAMLError):
            load_yaml(text)
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(UserError, match=r"x\.yaml is not valid YAML") as refused:
            load_source(tmp_path / "x.yaml")
        assert "\n" not in str(refused.value)
    assert load_yaml("a: &a [x, {y: 1}]\nb: *a\nc: {<<: {d: *a}}") == {
        "a": ["x", {"y": 1}], "b": ["x", {"y": 1}], "c": {"d": ["x", {"y": 1}]},
    }  # fmt: skip
    monkeypatch.setattr("stages.common.yamls.MOST_CHARACTERS", 10)
    with pytest.raises(yaml.YAMLError, match="it has 11 characters; at most 10"):
        load_yaml("x" * 11)


def test_json_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match=r"x\.json has 1,099,511,627,776 bytes; at most 1,073,741,824 are read"):
        read_json(path)
