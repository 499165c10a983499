"""The settings of the stages for a data set: `data/<dataset>/settings/{dataset,sources,crop,refine,score}.json`.

`dataset` is its entry in `params.yaml` as `ingest` reads it. The others are sections with the entry's overrides.
DVC compares these files instead of the sections. So an override for one data set reruns only stages of that data set
that read
it.
"""

from __future__ import annotations

import json
from typing import Any

from stages.common import paths
from stages.common.params import OVERRIDABLE, Params
from stages.common.tables import write_text

SECTIONS = ("dataset", "sources", *OVERRIDABLE)
ELSEWHERE = {"root", "remote_root", "sources", *OVERRIDABLE}
"""Keys of an entry that are not in `dataset.json`: folders of this machine, and the content of the other files."""


def write_settings(params: Params, dataset: str, *sections: str) -> None:
    """Write the files of `sections` if they differ from the parameters.

    A stage calls this for the sections that it reads. Under DVC the files are right already; a stage that is run by
    hand updates them.

    Args:
        params: as of `Params.for_dataset`.
    """
    for section in sections:
        path = paths.settings(dataset, section)
        text = json.dumps(_values(params, dataset, section), indent=2, ensure_ascii=False) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def _values(params: Params, dataset: str, section: str) -> Any:
    if section == "dataset":
        return params.datasets[dataset].model_dump(exclude=ELSEWHERE)
    return params.sources if section == "sources" else getattr(params, section).model_dump()
