"""common: tables with metadata, whole or not at all, refused where they do not belong."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from artifact_files import ENCODER, boxes_parameters, filled, predictions_parameters, write_raw

from stages.common.artifacts import IMAGES, PREDICTIONS, VIEWS, ImagesParameters, Metadata, ViewsParameters
from stages.common.columns import embedding_column, embedding_rows
from stages.common.digests import digest
from stages.common.errors import UserError
from stages.common.files import replacing
from stages.common.tables import (
    make_meta,
    open_parquet,
    open_table,
    read_meta,
    read_table,
    require_same,
    with_meta,
    write_json,
    write_table,
    writing,
)

TABLE = filled(
    IMAGES,
    {"image_id": ["a/é.jpg", "b.jpg"], "label": [0, None], "width": [9, 8], "height": [7, 6], "content": ["c", "d"]},
)
META = make_meta(IMAGES, "toy", ImagesParameters(reader="äöü"), ENCODER)


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("data/toy/tiny/views/part-00000.parquet", "dvc repro"),
        ("data/finer/answers/vlm/toy.parquet", "make finer"),
        ("data/toy/tiny/attrseek/predictions.parquet", "make finer"),
    ],
)
def test_the_remedy_makes_the_file(place: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc repro` does not make FINER's files."""
    monkeypatch.chdir(tmp_path)
    write_json(Path(place), "no table")
    with pytest.raises(UserError, match=rf"delete it and run `{command}`$"):
        read_meta(Path(place), IMAGES)


def test_table_and_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "images.parquet"
    write_table(path, TABLE, META)
    table, meta = read_table(path, IMAGES)
    assert meta == META == read_meta(path, IMAGES)
    assert meta.format == 2
    assert table.to_pylist() == TABLE.to_pylist()
    assert read_table(path, IMAGES, ["label"])[0].column_names == ["label"]
    assert [entry.name for entry in path.parent.iterdir()] == ["images.parquet"]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    turned = Metadata[ImagesParameters].model_validate(dict(reversed(META.model_dump().items())))
    write_table(tmp_path / "one", TABLE, META)
    write_table(tmp_path / "two", TABLE, turned)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    write_table(tmp_path / "two", TABLE, META.model_copy(update={"dataset": "other"}))
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


def refusal(path: Path) -> str:
    """The message of a reader, the same of both."""
    messages = set()
    for read in (read_table, read_meta):
        with pytest.raises(UserError) as refused:
            read(path, IMAGES)
        messages.add(str(refused.value))
    (message,) = messages
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "images.parquet"
    write_table(path, TABLE, META)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "is not a whole Parquet file" in refusal(path)


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    message = refusal(tmp_path / "images.parquet")
    assert "is missing" in message
    assert "dvc repro" in message
    assert "dvc pull" in message


def test_what_others_wrote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    path.write_text("image_id,label\n")
    assert "is not a whole Parquet file" in refusal(path)
    pq.write_table(TABLE, path)
    assert "was not written by this pipeline" in refusal(path)
    pq.write_table(TABLE.replace_schema_metadata({b"bifta": b"{not JSON"}), path)
    assert "was not written by this pipeline" in refusal(path)
    pq.write_table(TABLE.replace_schema_metadata({b"bifta": b"[1]"}), path)
    assert "was not written by this pipeline" in refusal(path)


def test_another_artifact_or_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    write_table(path, TABLE, META.model_copy(update={"artifact": "boxes"}))
    assert "holds boxes, but images belong there" in refusal(path)
    write_table(path, TABLE, META.model_copy(update={"format": 3}))
    assert "has format version 3, this version reads 2" in refusal(path)


def test_metadata_and_columns_that_are_not_as_declared_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    good = META.model_dump(mode="json")
    write_raw(path, TABLE, {**good, "parameters": {**good["parameters"], "root": "/home/a/photos"}})
    assert "has no valid 'parameters.root'" in refusal(path)
    write_raw(path, TABLE, {key: value for key, value in good.items() if key != "dataset"})
    assert "has no valid 'dataset'" in refusal(path)
    write_raw(path, TABLE.drop_columns(["content"]), good)
    assert "it has no column 'content'" in refusal(path)
    as_float = TABLE.set_column(1, "label", pa.array([0.0, 1.0]))
    write_raw(path, as_float, good)
    assert "its column 'label' is double, not int32" in refusal(path)


def test_views_of_another_width_than_their_metadata_says_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    meta = make_meta(VIEWS, "toy", ViewsParameters(crop=boxes_parameters()), ENCODER)
    rows = np.zeros((1, ENCODER.embedding_dim + 1), dtype=np.float16)
    columns = {"image_id": ["a"], "candidate": pa.array([-1], pa.int32()), "similarity": pa.array([1], pa.float32())}
    write_table(path, pa.table({**columns, "embedding": embedding_column(rows)}), meta)
    with pytest.raises(UserError, match=r"its column 'embedding' is .*5.*, not .*4"):
        read_table(path, VIEWS)


def test_predictions_without_a_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    meta = make_meta(PREDICTIONS, "toy", predictions_parameters(), ENCODER).model_dump(mode="json")
    write_raw(path, PREDICTIONS.columns.empty_table(), {key: own for key, own in meta.items() if key != "model"})
    with pytest.raises(UserError, match="names no model; delete it and run `dvc repro`"):
        read_meta(path, PREDICTIONS)


def test_a_model_is_the_same_whatever_its_notes_say() -> None:
    assert ENCODER.same_model(ENCODER.model_copy(update={"name": "local-dir:elsewhere", "pretrained": None}))
    assert ENCODER.same_model(ENCODER.model_copy(update={"precision": "bfloat16"}))
    assert ENCODER.same_model(ENCODER.model_copy(update={"architecture": None})), "as a file of format 1"
    others: tuple[dict[str, Any], ...] = (
        {"weights": "f"},
        {"architecture": {"embed_dim": 8}},
        {"activation": "quick_gelu"},
        {"image_size": 64},
        {"preprocess": {}},
    )
    for changed in others:
        assert not ENCODER.same_model(ENCODER.model_copy(update=changed))


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"

    def fail() -> None:
        with writing(path, TABLE.schema, META) as writer:
            writer.write_table(TABLE)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert list(tmp_path.iterdir()) == []
    write_table(path, TABLE, META)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_file_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    with writing(path, TABLE.schema, META) as writer:
        writer.write_table(TABLE)
        assert not path.exists()
    assert read_table(path, IMAGES)[0].num_rows == 2
    with replacing(tmp_path / "text") as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path, "a rename must not cross file systems"
        assert not (tmp_path / "text").exists()
    assert (tmp_path / "text").read_text() == "new"


def test_pieces_are_row_groups_of_one_table(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    with writing(path, TABLE.schema, META) as writer:
        writer.write_table(TABLE)
        writer.write_table(TABLE)
    file = open_parquet(path)
    assert (file.metadata.num_row_groups, file.metadata.num_rows) == (2, 4)
    assert read_meta(path, IMAGES) == META


def test_a_json_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"top1": 1.0, "name": "é"})
    before = path.read_text(encoding="utf-8")
    assert before.endswith("\n")
    assert "é" in before
    with pytest.raises(TypeError):
        write_json(path, {"top1": object()})
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_embeddings_become_a_column_and_come_back_without_a_copy(tmp_path: Path, dtype: type) -> None:
    rows: np.ndarray = np.random.default_rng(0).normal(size=(7, 5)).astype(dtype)
    column = embedding_column(rows)
    assert column.type.list_size == 5
    assert column.flatten().buffers()[1].address == rows.ctypes.data
    table = pa.table({"embedding": column})
    back = embedding_rows(table["embedding"])
    assert back.dtype == dtype
    assert np.shares_memory(back, rows)
    assert (embedding_rows(table.slice(2, 3)["embedding"]) == rows[2:5]).all()
    assert (embedding_rows(pa.concat_tables([table, table])["embedding"]) == np.concatenate([rows, rows])).all()
    assert embedding_rows(table.slice(0, 0)["embedding"]).shape == (0, 5)
    pq.write_table(table, tmp_path / "t")
    read = pq.read_table(tmp_path / "t")["embedding"]
    assert embedding_rows(read).dtype == dtype
    assert (embedding_rows(read) == rows).all()
    strided = pa.chunked_array([embedding_column(rows[:, ::2])])
    assert (embedding_rows(strided) == rows[:, ::2]).all()


def test_what_does_not_belong_together_is_refused_naming_both_sides() -> None:
    mine, theirs = Path("data/toy/tiny/texts.parquet"), Path("data/toy/tiny/views/part-00000.parquet")
    require_same("dataset", (mine, "toy"), (theirs, "toy"), "run `dvc repro`")
    with pytest.raises(UserError) as refused:
        require_same("dataset", (mine, "toy"), (theirs, "pets"), "run `dvc repro`")
    message = str(refused.value)
    assert all(part in message for part in (str(mine), str(theirs), "'toy'", "'pets'", "run `dvc repro`", "dataset"))
    assert "\n" not in message


def test_only_the_parts_that_differ_are_named() -> None:
    a = {"name": "tiny", "preprocess": {"mean": [0.5], "mode": "squash"}, "weights": "aa"}
    b = {"name": "tiny", "preprocess": {"mean": [0.5], "mode": "shortest"}, "weights": "aa", "extra": 1}
    with pytest.raises(UserError) as refused:
        require_same("model", (Path("x"), a), (Path("y"), b), "fix it")
    message = str(refused.value)
    assert "model.preprocess.mode is 'squash' in the first, 'shortest' in the second" in message
    assert "model.extra is None in the first, 1 in the second" in message
    assert "weights" not in message
    assert "mean" not in message


def test_digests_are_of_values_not_of_their_order() -> None:
    assert digest({"a": 1, "b": [1.5, "é"]}) == digest({"b": [1.5, "é"], "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert len(digest(None)) == 16


def test_other_schema_metadata_is_replaced() -> None:
    tagged = with_meta(TABLE.schema.with_metadata({b"pandas": b"{}"}), META)
    assert set(tagged.metadata) == {b"bifta"}


def test_no_bit_of_a_footer_changes_what_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    write_table(path, TABLE, META)
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    # The metadata behind the row groups has a digest of its own.
    for bit in range(8 * footer, 8 * content.index(b"bifta", footer)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with contextlib.suppress(UserError):
            pieces = list(open_table(path, IMAGES).batches(1))
            assert pieces, bit
            assert pa.concat_tables(pieces).equals(TABLE), bit
