"""settings: sections of `params.yaml` and a data set's overrides -> `data/<dataset>/settings/*.json`."""

from __future__ import annotations

from stages.common.cli import parse_job
from stages.common.errors import run
from stages.common.settings import SECTIONS, write_settings


def main() -> None:
    job = parse_job("settings", __doc__, "dataset")
    write_settings(job.params, job.dataset, *SECTIONS)
    entry = job.params.datasets[job.dataset]
    own = [f"{section}.{key}" for section in ("crop", "refine", "score") for key in getattr(entry, section)]
    own += ["sources"] if entry.sources is not None else []
    print(f"settings {job.dataset}: {', '.join(own) or 'nothing'} of its own")


if __name__ == "__main__":
    run(main)
