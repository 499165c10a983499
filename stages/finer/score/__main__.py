"""score: `data/finer/answers/<lvlm>/<dataset>.parquet` -> `data/finer/scores.parquet` and `metrics.json`."""

from __future__ import annotations

import argparse

import pyarrow as pa

from stages.common.errors import UserError, run
from stages.common.tables import Meta, make_meta, write_json, write_table
from stages.finer import paths
from stages.finer.figures import Figures
from stages.finer.params import load_finer_params
from stages.finer.score.metrics import Draws
from stages.finer.score.score_answers import (
    MIXTURE_CLASSES,
    Known,
    _encoder,
    _has_answers,
    figures_of,
    read_answers,
    read_mixture_classes,
    score_answers,
    summary,
)


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.finer.score", description=__doc__).parse_args()
    params = load_finer_params()
    lvlms, datasets = [*params.finer.endpoints, *params.finer.served], list(params.finer.datasets)
    mixture, encode = read_mixture_classes(MIXTURE_CLASSES), _encoder(params)
    tables: list[pa.Table] = []
    metrics: Figures = {lvlm: {} for lvlm in lvlms}
    models: Meta = {lvlm: {} for lvlm in lvlms}
    for dataset in datasets:
        known = Known(dataset, mixture)
        for lvlm in (lvlm for lvlm in lvlms if _has_answers(lvlm, dataset)):
            answers, meta = read_answers(paths.answers(lvlm, dataset), lvlm, dataset)
            scores = score_answers(answers, lvlm, dataset)
            draws = Draws(params.seed, params.finer.score.resamples, lvlm, dataset)
            # An endpoint was not tuned on this mixture: to it all classes are alike.
            parts = known.parts if lvlm in params.finer.served else None
            metrics[lvlm][dataset] = figures_of(answers, scores, known, parts, draws, encode)
            models[lvlm][dataset] = meta.get("model")
            tables.append(scores)
            print(summary(lvlm, dataset, scores), flush=True)
    if not tables:
        raise UserError("no LVLM of params.yaml has answers; run `dvc repro stages/finer/dvc.yaml`")
    asked = {"lvlms": lvlms, "datasets": datasets}
    write_table(paths.SCORES, pa.concat_tables(tables), make_meta("scores", "finer", parameters=asked, model=models))
    write_json(paths.METRICS, {lvlm: own for lvlm, own in metrics.items() if own})


if __name__ == "__main__":
    run(main)
