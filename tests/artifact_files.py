"""Artifacts of tests: tables with some of their columns, and files whose metadata is changed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.artifacts import Artifact, BoxesParameters, EncoderMeta, PredictionsParameters
from stages.common.params import load_params
from stages.common.tables import METADATA_KEY

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
    """Write a table with any JSON as its metadata."""
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(meta).encode()}), path)


def as_format_1(meta: dict[str, Any]) -> dict[str, Any]:
    """The metadata of texts or views as the version before FORMAT 2 wrote it."""
    model = {key: value for key, value in meta["model"].items() if key != "architecture"}
    old = {**meta, "format": 1, "model": model}
    if "shard" in meta:
        shard = dict(meta["shard"])
        old["shard"] = {"drawings": shard.pop("crops_digests"), **shard}
    return old
