"""Artifacts of tests: tables with some of their columns, and files whose metadata is changed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.artifacts import Artifact, BoxesParameters, EncoderMeta, PredictionsParameters
from stages.common.digests import ALL, COLUMNS, ColumnDigests, sign
from stages.common.params import load_params
from stages.common.tables import DIGESTS_KEY, METADATA_KEY

ROOT = Path(__file__).resolve().parent.parent

ENCODER = EncoderMeta(
    weights="0123456789abcdef",
    architecture={"embed_dim": 4},
    activation="gelu",
    image_size=32,
    preprocess={"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"},
    embedding_dim=4,
    precision="float32",
    name="ViT-B-32",
    pretrained="openai",
)


def predictions_parameters(**changed: Any) -> PredictionsParameters:
    score = load_params(ROOT / "params.yaml").score.model_dump()
    return PredictionsParameters.model_validate({**score, "seed": 0, **changed})


def boxes_parameters(**changed: Any) -> BoxesParameters:
    crop = load_params(ROOT / "params.yaml").crop.model_dump()
    return BoxesParameters.model_validate({**crop, "seed": 0, **changed})


def filled(artifact: Artifact[Any], columns: dict[str, Any]) -> pa.Table:
    """A table of the artifact's columns; those that are left out are null."""
    rows = len(next(iter(columns.values())))
    return pa.table(
        {field.name: columns.get(field.name, [None] * rows) for field in artifact.columns}, schema=artifact.columns
    )


def read_raw(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """A table, off the memory map, and its metadata as JSON."""
    table = pq.read_table(path, memory_map=False)
    return table.replace_schema_metadata(), json.loads(table.schema.metadata[METADATA_KEY])


def write_raw(path: Path, table: pa.Table, meta: Any) -> None:
    """Write a table with any JSON as its metadata, and with digests that fit unless it says that there are none."""
    said = json.dumps(meta).encode()
    columns = ColumnDigests()
    columns.add(table)
    digests: dict[str, Any] = {COLUMNS: columns.digests()}
    digests[ALL] = sign(table.schema, said, digests)
    tagged = table.replace_schema_metadata({METADATA_KEY: said})
    with pq.ParquetWriter(path, tagged.schema) as writer:
        writer.write_table(tagged)
        if isinstance(meta, dict) and meta.get("signed"):
            writer.add_key_value_metadata({DIGESTS_KEY: json.dumps(digests)})


def as_format_1(meta: dict[str, Any]) -> dict[str, Any]:
    """The metadata of texts or views as the version before FORMAT 2 wrote it."""
    model = {key: value for key, value in meta["model"].items() if key != "architecture"}
    old = {**{key: value for key, value in meta.items() if key != "signed"}, "format": 1, "model": model}
    old["parameters"] = {key: value for key, value in meta["parameters"].items() if key != "classes"}
    if "shard" in meta:
        shard = dict(meta["shard"])
        old["shard"] = {"drawings": shard.pop("crops_digests"), **shard}
    return old


def without_digests(meta: dict[str, Any]) -> dict[str, Any]:
    """The metadata of texts or views as the first version of format 2 wrote it."""
    parameters = {key: value for key, value in meta["parameters"].items() if key != "classes"}
    return {**{key: value for key, value in meta.items() if key != "signed"}, "parameters": parameters}
