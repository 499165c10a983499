"""The files that scoring a data set writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stages.common import methods, paths
from stages.common.artifacts import PREDICTIONS, TOP5, UNTRAINED, EncoderMeta, PredictionsParameters, SourceFile
from stages.common.cli import Job
from stages.common.digests import ALL
from stages.common.metrics import METRICS, metrics_digest, write_metrics
from stages.common.tables import make_meta, writing
from stages.score.outcomes import Ledger
from stages.score.people import open_people


@contextmanager
def open_ledger(
    job: Job,
    scored: Sequence[methods.Method],
    model: EncoderMeta,
    names: Sequence[str],
    shown: str,
    files: list[SourceFile],
    *,
    labelled: bool,
) -> Iterator[Ledger]:
    """A ledger that writes `predictions.parquet`, `top5.parquet`, `predictions.csv` and, at the end, the metrics.

    Args:
        model: that made the views.
        names: of the classes, by label, each once.
        shown: the method of `predictions.csv`.
        files: what the texts were made of.
        labelled: whether the images have labels.
    """
    score, known = job.params.score, [method.name for method in methods.METHODS]
    made_by = PredictionsParameters(
        seed=job.params.seed, methods=known, scoring=methods.SCORING, files=files, **score.model_dump()
    )
    metas = [make_meta(artifact, job.dataset, made_by, model) for artifact in (PREDICTIONS, TOP5)]
    with writing(paths.predictions(job.dataset, job.model), PREDICTIONS.columns, metas[0]) as writer:
        with (
            writing(paths.top5(job.dataset, job.model), TOP5.columns, metas[1]) as top5,
            open_people(paths.predictions_csv(job.dataset, job.model), names, shown) as people,
        ):
            ledger = Ledger(scored, score.runs, len(names), writer, top5, people, labelled=labelled)
            yield ledger
        metrics = ledger.metrics()
        if model.pretrained == UNTRAINED:
            metrics["weights"] = UNTRAINED
        writer.digests[METRICS] = metrics_digest(metrics)
        writer.digests[TOP5.name] = top5.digests[ALL]
    write_metrics(paths.metrics(job.dataset, job.model), metrics)
