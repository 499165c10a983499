"""The card of a shared folder: README.md as the Hugging Face Hub and `datasets` read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import yaml

from stages.common.artifacts import EncoderMeta
from stages.share.gather import Gathered

LICENSE = """No licence is chosen yet.

Three things decide which licence is possible: that of the images, from which views and boxes were made; that of the
encoder's weights; and the terms of the language model that wrote the descriptions. Put the licence here, and its name
into `license_name` at the top of README.md. If the Hub knows the licence, write it as `license` there (for example
`license: cc-by-4.0`) and delete `license_name`, `license_link` and this file.
"""

ABOUT = {
    "images": "one row an image, with its class and a digest of its bytes; no pixels",
    "classes": "one row a class",
    "skipped": "images that could not be read, with the reason",
    "boxes": "candidate crops of each image in pixels, and the IoU thresholds under which each is kept",
    "texts": "descriptions of the classes with their embeddings (float32), and why some were dropped",
    "views": "embeddings of the images' views (float16): the whole image is candidate -1, the crops follow",
    "predictions": "one row an image, method and run",
}
LABELS = ("label", "predicted")
"""Columns that number the classes."""


def card(found: Gathered, encoder: EncoderMeta) -> str:
    """README.md: metadata in YAML, then text.

    Args:
        encoder: of `found`, without paths of this machine.
    """
    loaded = [table for table in found.tables if table.rows]
    first = next((table.name for table in loaded if table.name == "views"), loaded[0].name)
    head = {
        "pretty_name": f"{found.dataset}: views and texts of {_model(encoder)}",
        "license": "other",
        "license_name": "not-yet-chosen",
        "license_link": "LICENSE",
        "task_categories": ["zero-shot-image-classification"],
        "size_categories": [_size(sum(table.rows for table in loaded))],
        "configs": [
            {
                "config_name": table.name,
                **({"default": True} if table.name == first else {}),
                "data_files": [{"split": "train", "path": table.pattern}],
            }
            for table in loaded
        ],
        "dataset_info": [
            {"config_name": table.name, "features": features(table.schema, unique_names(found.classes.names))}
            for table in loaded
            if set(LABELS) & set(table.schema.names)
        ],
    }
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n{_body(found, encoder)}"


def unique_names(names: Sequence[str]) -> list[str]:
    """Class names as `ClassLabel` takes them, each once: those of several classes get their label."""
    count, taken, found = Counter(names), set(names), []
    for label, name in enumerate(names):
        while count[name] > 1 or (name != names[label] and name in taken):
            name = f"{name} ({label})"
        taken.add(name)
        found.append(name)
    return found


def features(schema: pa.Schema, names: Sequence[str]) -> list[dict[str, Any]]:
    """The columns of a table in the words of `dataset_info`; `names` are those of the classes, each once."""
    classes = {"class_label": {"names": {str(label): name for label, name in enumerate(names)}}}
    return [
        {"name": column.name, **({"dtype": classes} if column.name in LABELS else _feature(column.type))}
        for column in schema
    ]


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_fixed_size_list(kind):
        return {"list": _dtype(kind.value_type), "length": kind.list_size}
    if pa.types.is_list(kind):
        return {"list": _dtype(kind.value_type)}
    return {"dtype": _dtype(kind)}


def _dtype(kind: pa.DataType) -> str:
    return {"float": "float32", "halffloat": "float16"}.get(str(kind), str(kind))


def _size(rows: int) -> str:
    """The Hub's size category of a number of rows."""
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B"]
    return next((name for power, name in enumerate(names, 3) if rows < 10**power), "10B<n<100B")


def _model(encoder: EncoderMeta) -> str:
    return f"{encoder.name}{f' ({encoder.pretrained})' if encoder.pretrained else ''}"


def _body(found: Gathered, encoder: EncoderMeta) -> str:
    empty = [table for table in found.tables if not table.rows]
    rows = [f"| {table.name} | {table.rows:,} | {ABOUT[table.name]} |" for table in found.tables]
    absent = (
        f"\n`datasets` cannot read tables without rows, so these are not in `configs`: "
        f"{', '.join(f'`{table.pattern}`' for table in empty)}.\n"
        if empty
        else ""
    )
    twice = (
        "\nSeveral classes have the same name. In `ClassLabel` such a name is followed by the label in parentheses. "
        "The table `classes` has the names as they are.\n"
        if len(set(found.classes.names)) < len(found.classes.names)
        else ""
    )
    return f"""
# {found.dataset}: views and texts of {_model(encoder)}

Computed from {len(found.images):,} images of {len(found.classes.names):,} classes by a pipeline for zero-shot
classification with weighted cross-alignment (BiFTA, arXiv 2601.20419; WCA, arXiv 2406.02915). The images themselves are
not here.

| table | rows | |
|---|---|---|
{chr(10).join(rows)}
{absent}{twice}
## How it was made

```yaml
{_made_by(found, encoder)}```

`weights` is a hash of the values. Two files are of the same encoder if weights, architecture, activation, image size
and preprocessing agree. Each Parquet file carries all of this, and digests of its columns, in its own metadata.

## Loading

{_loading(found, encoder)}
In a clone of the pipeline, `python -m stages.share --check FOLDER --dataset D --model M` says whether this folder
belongs to its `params.yaml`, and `--import FOLDER` puts it in place, so that nothing is embedded again.
"""


def _made_by(found: Gathered, encoder: EncoderMeta) -> str:
    made: dict[str, Any] = {"dataset": found.dataset, "encoder": encoder.model_dump(mode="json", exclude_none=True)}
    if found.boxes:
        made["crop"] = found.boxes.parameters.model_dump(mode="json")
    if found.texts:
        made["refine"] = found.texts.parameters.model_dump(mode="json")
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=100)


def _loading(found: Gathered, encoder: EncoderMeta) -> str:
    """Two lines for each library. `FOLDER` is where the folder is."""
    tables = {table.name: table for table in found.tables if table.rows}
    table = tables.get("views") or tables.get("texts") or tables["predictions"]
    where, dim, embedded = table.pattern, encoder.embedding_dim, "embedding" in table.schema.names
    columns = f"* REPLACE (embedding::FLOAT[{dim}] AS embedding)" if embedded else "*"
    code = [
        f'from datasets import load_dataset\n\n{table.name} = load_dataset("FOLDER", "{table.name}", split="train")',
        f'import polars as pl\n\n{table.name} = pl.read_parquet("FOLDER/{where}")',
        f"import duckdb\n\n{table.name} = duckdb.sql(\"SELECT {columns} FROM 'FOLDER/{where}'\")",
    ]
    if embedded:
        code.append(
            "import pyarrow.parquet as pq\n\n"
            f'column = pq.read_table("FOLDER/{where.removesuffix("/part-*.parquet")}")["embedding"]\n'
            f"embeddings = column.combine_chunks().flatten().to_numpy().reshape(-1, {dim})"
        )
    examples = "\n".join(f"```python\n{text}\n```\n" for text in code)
    cast = (
        "\nDuckDB reads float16 as float32, and lists of a fixed size as lists of any size. Its functions of vectors, "
        "such as `array_cosine_similarity`, need the cast. The last example gives a NumPy array.\n"
        if embedded
        else ""
    )
    names = ", ".join(f"`{name}`" for name in tables)
    return f"The tables are {names}. Put the path of this folder in place of FOLDER.\n\n{examples}{cast}"
