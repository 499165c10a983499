"""finer.unify: `images.parquet` and `classes.parquet` -> `unified-<dataset>-{train,test}-combined.jsonl`."""

from __future__ import annotations

from stages.common import paths
from stages.common.errors import run
from stages.common.tables import read_table
from stages.common.unpacked import image_root
from stages.finer.classes import read_classes
from stages.finer.cli import parse_finer_job
from stages.finer.paths import TEST, TRAIN, unified
from stages.finer.unified import Sample, write_unified
from stages.finer.unify.build import as_published, build_samples, check_classes, split_of
from stages.finer.unify.published import Row, published


def main() -> None:
    job = parse_finer_job("finer.unify", __doc__, "dataset")
    benchmark, reader = job.finer.datasets[job.dataset], job.params.datasets[job.dataset].reader
    classes = read_classes(job.dataset)
    table, meta = read_table(paths.images(job.dataset), "images", ["image_id", "label", "content"])
    root = image_root(job.dataset, job.params.datasets[job.dataset].root, meta.parameters.unpacked)
    image_ids, labels, contents = (table[name].to_pylist() for name in ("image_id", "label", "content"))
    split: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    built = as_published(job.dataset, classes, reader, benchmark.rank)
    if benchmark.unified is not None:
        images = dict(zip(image_ids, map(Row, labels, contents), strict=True))
        split = published(job.dataset, benchmark, root, classes, images)
    else:
        check_classes(job.dataset, built)
        samples = build_samples(job.dataset, root, zip(image_ids, labels, contents, strict=True), built)
        splits = split_of(job.params.seed, job.dataset, image_ids, labels, benchmark.train_share)
        for sample, name in zip(samples, splits, strict=True):
            split[name].append(sample)
    for name, samples in split.items():
        write_unified(unified(job.dataset, name), samples)
    print(
        f"finer.unify {job.dataset}: {len(split[TRAIN])} images to train on, {len(split[TEST])} to be asked about, "
        f"{len(classes)} classes"
    )


if __name__ == "__main__":
    run(main)
