"""A table of images and their classes: CSV or Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError, nearest
from stages.common.parquet_pages import check_pages
from stages.ingest.labels import LONGEST, NOTHING, class_order, is_structure
from stages.ingest.listing import Listing, Request, safe_id
from stages.ingest.parquet import TEXT_BYTES
from stages.ingest.walk import refuse_links

MOST_ROWS = 20_000_000
"""ImageNet-21k has 14 million images."""

EXAMPLE = (
    "a table with the columns image (path relative to the root), label, and if wanted split, superordinate and coarse"
)


def read_manifest(request: Request) -> Listing:
    """The images that `manifest` lists, a path relative to the root; with a split, the rows of that split.

    Classes are those of all rows, whatever the split.

    Raises:
        UserError: no such file or column, a row without image or label, no rows of the split, or not one superordinate
            a class.
    """
    if request.manifest is None:
        raise UserError("the reader 'manifest' needs the key `manifest`: a CSV or Parquet file, relative to the root")
    path = request.root / request.manifest
    refuse_links(request.root, [request.manifest])
    columns = request.columns
    image, label = columns.image or "image", columns.label or "label"
    split = columns.split or "split"
    table = _read(path, image, [image, label, split, columns.coarse or "coarse", "superordinate"])
    _require_columns(table, [image, label, *([split] if request.split else [])], path)
    _refuse_twice([image, label, split, columns.coarse or "coarse", "superordinate"], table.columns, path)
    table = _plain(table, [image, label, *([split] if request.split else [])], path)
    holes = table.with_row_index("row").filter(pl.any_horizontal(pl.col(image, label).is_null()))
    if len(holes):
        raise UserError(
            f"'{path}' has {len(holes)} rows without image or label, the first is row {holes['row'][0] + 1}; complete "
            "or remove them"
        )
    names = class_order(table[label])
    label_of = {name: place for place, name in enumerate(names)}
    coarse = _coarse(table, label, names, columns.coarse, path)
    superordinate = _superordinate(table, label, names, path)
    table = _of_split(table, split, request, path)
    images = [(safe_id(name, path), label_of[key]) for name, key in zip(table[image], table[label], strict=True)]
    return Listing(images, names, superordinate, coarse, by_name=True, notes=_notes(request, path))


def read_image_list(request: Request) -> Listing:
    """The images that `manifest` lists, without labels; with a split, the rows of that split.

    Raises:
        UserError: no such file or column, a row without image, or no rows of the split.
    """
    path = request.root / str(request.manifest)
    refuse_links(request.root, [str(request.manifest)])
    image, split = request.columns.image or "image", request.columns.split or "split"
    wanted = [image, *([split] if request.split else [])]
    table = _read(path, image, wanted)
    _require_columns(table, wanted, path)
    table = _plain(table, wanted, path)
    holes = table.with_row_index("row").filter(pl.col(image).is_null())
    if len(holes):
        raise UserError(
            f"'{path}' has {len(holes)} rows without image, the first is row {holes['row'][0] + 1}; complete or remove "
            "them"
        )
    table = _of_split(table, split, request, path)
    return Listing([(safe_id(name, path), None) for name in table[image]], [], notes=_notes(request, path))


def _require_columns(table: pl.DataFrame, wanted: Sequence[str], path: Path) -> None:
    for name in wanted:
        if name not in table.columns:
            known = table.columns
            raise UserError(f"'{path}' has no column '{name}'{nearest(name, known)}; it has: {', '.join(known)}")
    _refuse_twice(wanted, table.columns, path)


def _of_split(table: pl.DataFrame, split: str, request: Request, path: Path) -> pl.DataFrame:
    """The rows of the split that is asked for, or all."""
    if not request.split:
        return table
    splits = sorted(set(table[split].drop_nulls()))
    table = table.filter(pl.col(split) == request.split)
    if not len(table):
        raise UserError(f"'{path}' has no rows of the split '{request.split}'; there are: {', '.join(splits)}")
    return table


def _notes(request: Request, path: Path) -> tuple[str, ...]:
    outside = Path(os.path.abspath(request.root)) not in Path(os.path.abspath(path)).parents
    return (f"'{path}' is outside of the root, so DVC does not notice when it changes",) if outside else ()


def _read(path: Path, image: str, wanted: Sequence[str]) -> pl.DataFrame:
    """A CSV file with all values as text, or a Parquet file.

    Args:
        image: the column of images, by which the header tells what separates the columns.
        wanted: the columns that are read; of a Parquet file, the others are null.

    Raises:
        UserError: no such file, or neither of the two; a column that is there twice; values of gigabytes.
    """
    if not path.is_file():
        raise UserError(f"no manifest '{path}'; expected {EXAMPLE}")
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path, wanted)
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline(LONGEST * len(wanted))
        cells = {mark: [cell.strip(" \"'\n") for cell in header.split(mark)] for mark in (",", ";", "\t")}
        default = "\t" if path.suffix.lower() == ".tsv" else ","
        separator = next((mark for mark, names in cells.items() if image in names and len(names) > 1), default)
        table = pl.read_csv(path, separator=separator, infer_schema=False)
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"'{path}' cannot be read ({reason}); expected {EXAMPLE}, as CSV in UTF-8 or as Parquet"
        ) from None
    # Blanks beside the separators and empty lines are no content.
    names = [name.strip() for name in table.columns]
    _refuse_twice([name for name in names if names.count(name) > 1], names, path)
    table = table.rename(dict(zip(table.columns, names, strict=True))).with_columns(pl.all().str.strip_chars())
    return table.filter(~pl.all_horizontal(pl.all().is_null()))


def _read_parquet(path: Path, wanted: Sequence[str]) -> pl.DataFrame:
    """The wanted columns of a Parquet file, after a look at how much they unpack to; the other columns are null."""
    footer = pq.read_metadata(path)
    if footer.num_rows > MOST_ROWS:
        raise UserError(f"'{path}' has {footer.num_rows:,} rows; at most {MOST_ROWS:,} are read; split it")
    names = footer.schema.to_arrow_schema().names
    there = [name for name in names if name in wanted]
    check_pages(path, dict.fromkeys(there, TEXT_BYTES))
    # Polars' own reader ends the process at some damaged files, and so does damaged metadata of fields.
    read = pq.read_table(path, columns=there)
    table = pl.DataFrame({name: pl.from_arrow(pa.chunked_array(read[name].chunks, read[name].type)) for name in there})
    return table.with_columns(pl.lit(None).alias(name) for name in names if name not in there).select(names)


def _refuse_twice(wanted: Iterable[str], columns: Sequence[str], path: Path) -> None:
    """Refuse a CSV file that has a column twice; Polars calls the second one `<name>_duplicated_0`.

    Raises:
        UserError: as above.
    """
    for name in wanted:
        if columns.count(name) > 1 or f"{name}_duplicated_0" in columns:
            raise UserError(f"'{path}' has several columns '{name}'; rename or remove all but one")


def _plain(table: pl.DataFrame, columns: Sequence[str], path: Path) -> pl.DataFrame:
    """The columns as text; NaN and an empty text are no value.

    Raises:
        UserError: a column holds structures, such as lists.
    """
    for name in dict.fromkeys(columns):
        kind = table[name].dtype
        text = table[name] if kind == pl.String else None
        if kind.is_nested() or kind in (pl.Binary, pl.Object):
            raise UserError(f"'{path}': the column '{name}' holds {kind} values; expected one name or number a row")
        lengths = text.str.len_bytes().fill_null(0) if text is not None else pl.Series([0])
        row = lengths.arg_max() or 0
        if len(lengths) and lengths[row] > TEXT_BYTES:
            raise UserError(
                f"'{path}', row {row + 1}: the column '{name}' has {lengths[row]:,} bytes; a path or a name has at "
                f"most {TEXT_BYTES:,}"
            )
        odd = (
            next(filter(is_structure, text.drop_nulls().unique(maintain_order=True)), None)
            if text is not None
            else None
        )
        if odd is not None:
            raise UserError(f"'{path}': the column '{name}' holds {odd:.60}; expected one name or number a row")
        column = pl.col(name).cast(pl.String).str.strip_chars()
        nothing = column.str.to_lowercase().is_in(NOTHING)
        nothing |= pl.col(name).is_infinite() if kind.is_float() else False
        table = table.with_columns(pl.when(~nothing).then(column).alias(name))
    return table


def _coarse(
    table: pl.DataFrame, label: str, names: list[str], column: str | None, path: Path
) -> list[list[str]] | None:
    """The coarse labels that the rows give each class."""
    if (column or "coarse") not in table.columns:
        if column:
            raise UserError(f"'{path}' has no column '{column}'; it has: {', '.join(table.columns)}")
        return None
    return _said_of(table, label, names, column or "coarse", path)


def _superordinate(table: pl.DataFrame, label: str, names: list[str], path: Path) -> list[str] | None:
    """What the rows' column `superordinate`, where there is one, says of each class.

    Raises:
        UserError: of a class, nothing or several things.
    """
    if "superordinate" not in table.columns:
        return None
    found = _said_of(table, label, names, "superordinate", path)
    for name, said in zip(names, found, strict=True):
        if len(said) != 1:
            what = f"'{said[0]}' and '{said[1]}'" if said else "nothing"
            raise UserError(f"'{path}': the column superordinate says {what} of the class '{name}'; say one thing")
    return [said[0] for said in found]


def _said_of(table: pl.DataFrame, label: str, names: list[str], column: str, path: Path) -> list[list[str]]:
    """Of each class, the values of a column in its rows, each once."""
    said: dict[str, set[str]] = {name: set() for name in names}
    for name, value in zip(table[label], _plain(table, [column], path)[column], strict=True):
        if value is not None:
            said[name].add(value)
    return [sorted(said[name]) for name in names]
