"""Accuracy over one parameter, from DVC's experiments: `python -m stages.report.curves --param score.iou_threshold`.

It uses the workspace and those experiments on the present commit that differ from it only in that parameter.
`--param models` compares the models of params.yaml instead, without experiments.
Writes `data/curves/<param>.json` and `.png`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from stages.common import paths
from stages.common.artifacts import UNTRAINED
from stages.common.errors import UserError, nearest, run, warn
from stages.common.locks import hold
from stages.common.params import OVERRIDABLE, load_params
from stages.common.tables import write_plot

MODELS = "models"
WORKSPACE = "workspace"
"""What DVC calls the files as they are now."""
CURVES = paths.DATA / "curves"
METRICS = re.compile(rf"{paths.DATA}/([^/]+)/([^/]+)/(?:top1|metrics)\.json")
"""Files of a state; older states have only `metrics.json`."""
IRRELEVANT = ("report.", "describe.", "device", "score.csv_method", "supervised")
"""Parameters in which experiments may differ, because no accuracy depends on them."""
EXAMPLES = {
    "score.iou_threshold": "0.5,0.6,0.7,0.8,0.9",
    "score.views_per_run": "10,20,40,60,100",
    "refine.cosine_threshold": "0.8,0.9,0.95,0.99,1.01",
    "refine.top_k": "5,10,20,50",
    "refine.sources": "all,[cupl],[attrvr_des],[attrvr_dist]",
    "crop.layout": "random,grid",
}

Params = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """The accuracy of one method at one value of the parameter: top-1 in percent, and one deviation either way."""

    dataset: str
    model: str
    method: str
    value: Any
    top1: float
    low: float
    high: float
    note: str = ""
    """`UNTRAINED` where the weights were random."""

    @property
    def row(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "note" or value}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.report.curves", description=__doc__)
    parser.add_argument("--param", required=True, help="a parameter of params.yaml, as score.iou_threshold")
    parser.add_argument("--dataset", help="only this data set")
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--all-commits", action="store_true", help="experiments on earlier commits, too")
    asked = parser.parse_args()
    check_param(asked.param)
    hold("report.curves", asked.param)
    states = experiments(all_commits=asked.all_commits)
    changed = outdated(_params(states[0])) if states else []
    if changed:
        warn(f"{', '.join(changed)} changed since the last `dvc repro`: no point of the curve is the workspace's")
        states[0]["metrics"] = {}
    points = [
        point
        for point in (across_models(states) if asked.param == MODELS else collect(states, asked.param))
        if asked.dataset in (None, point.dataset) and asked.model in (None, point.model, point.value)
    ]
    if not points:
        raise UserError(f"no metrics here to draw a curve of; run `dvc repro`, then {more(asked.param)}")
    # Drawing needs a library that takes seconds to load.
    from stages.report import curve_plots, plots

    path = CURVES / f"{asked.param}.json"
    write_plot(path, [{"param": asked.param, **point.row} for point in points])
    plots.save(curve_plots.draw(points, asked.param), path.with_suffix(".png"))
    print(table(points, asked.param))
    print(f"\ncurve  {path}, {path.with_suffix('.png')}\nmore   {more(asked.param)}")
    if asked.param != MODELS and len({str(point.value) for point in points}) == 1:
        warn(f"only one value of {asked.param} so far; --all-commits looks at experiments on earlier commits, too")


def more(param: str) -> str:
    """How to run experiments over `param`."""
    if param == MODELS:
        return "add entries to `models` in params.yaml, then dvc repro"
    own = re.fullmatch(r"datasets\.([^.]+)\.(\w+)\.(\w+)", param)
    values = EXAMPLES.get(f"{own[2]}.{own[3]}" if own else param, "<value>,<value>")
    # Hydra sets an existing key; "+" makes it add a new one.
    added = own and own[2] in OVERRIDABLE and own[3] not in getattr(load_params().datasets[own[1]], own[2])
    return f"dvc exp run --queue -S '{'+' if added else ''}{param}={values}' && dvc queue start"


def check_param(param: str) -> None:
    """Refuse an unknown parameter and name the nearest.

    Raises:
        UserError: as above.
    """
    params = load_params()
    known = [*flatten(params.model_dump()), MODELS]
    own = [f"{section}.{key}" for section in OVERRIDABLE for key in getattr(params, section).model_dump()]
    known += [f"datasets.{dataset}.{key}" for dataset in params.datasets for key in own]
    if param not in known:
        raise UserError(f"params.yaml has no parameter '{param}'{nearest(param, known)}")


def experiments(*, all_commits: bool) -> list[dict[str, Any]]:
    """What `dvc exp show` says of the workspace, and of each experiment on the present commit or on all.

    It uses the JSON, because `dvc.api.exp_show` often omits the file of a metric.

    Raises:
        UserError: DVC says why not.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", *(["--all-commits"] if all_commits else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[0]
        raise UserError(f"`dvc exp show` failed: {reason.removeprefix('ERROR: ')}")
    return finished(json.loads(done.stdout))


def finished(shown_by_dvc: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The `data` of each revision that has metrics of its own, the workspace first.

    For an experiment that is queued, running or failed, DVC shows the metrics of the commit that it started from.
    """
    found = []
    for baseline in shown_by_dvc:
        found.append(baseline)
        for experiment in baseline.get("experiments") or []:
            state = (experiment.get("executor") or {}).get("state", "success")
            if state == "success":
                found += experiment["revs"][:1]  # of its commits the latest
    return [{**revision["data"], "rev": revision.get("rev", WORKSPACE)} for revision in found if revision.get("data")]


def outdated(workspace: Params, lock: Path = Path("dvc.lock")) -> list[str]:
    """The parameters whose value in params.yaml differs from the last `dvc repro`.

    Keys that were added to a data set's entry or taken out of it are among them. An entry that is gone is not: nothing
    is shown of it.
    """
    if not lock.exists():
        return []
    changed: set[str] = set()
    for stage in yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {}).values():
        for name, value in stage.get("params", {}).get("params.yaml", {}).items():
            used = flatten({name: value})
            now = {key: own for key, own in workspace.items() if key == name or key.startswith(f"{name}.")}
            keys = {*used, *now} if now else set()
            changed |= {key for key in keys if key not in used or key not in now or used[key] != now[key]}
    return sorted(changed)


def collect(states: list[dict[str, Any]], param: str) -> list[Point]:
    """The points of the curve, by data set and model, in order of the table's methods and of the values.

    Args:
        states: `params` and `metrics` as `dvc exp show --json` gives them, the workspace first. If two have the same
        value, the first counts.
    """
    if not states:
        return []
    reference = _params(states[0])
    points: dict[tuple[str, str, str, str], Point] = {}
    for state in states:
        params = _params(state)
        if not alike(params, reference, param):
            continue
        for dataset, model, method, top1, spread, note in _figures(state):
            value = value_for(params, param, dataset)
            if value is None:
                continue
            low, high = round(top1 - spread, 4), round(top1 + spread, 4)
            point = Point(dataset, model, method, value, top1, low, high, note)
            points.setdefault((dataset, model, method, json.dumps(point.value)), point)
    methods = list(dict.fromkeys(point.method for point in points.values()))
    return sorted(points.values(), key=lambda p: (p.dataset, p.model, methods.index(p.method), order(p.value)))


def value_for(params: Params, param: str, dataset: str) -> Any:
    """The value that a data set was computed with, or None if the parameter does not apply to it.

    A global parameter that the data set overrides does not apply. `datasets.<key>.crop.candidates` applies to one
    data set, with
    the global value if its entry has none.
    """
    own = f"datasets.{dataset}."
    if param.startswith(own):
        return params.get(param, params.get(param.removeprefix(own)))
    if param.startswith("datasets.") or own + param in params:
        return None
    return params.get(param)


def across_models(states: list[dict[str, Any]]) -> list[Point]:
    """The workspace's points with the model for a value: the backbones side by side."""
    points = collect(states[:1], "seed")  # any parameter will do, because there is only one revision
    return [replace(point, model="each model", value=point.model) for point in points]


def alike(params: Params, reference: Params, param: str) -> bool:
    """Whether two sets of parameters differ only in `param` and in what no accuracy depends on."""
    return all(
        params.get(key) == reference.get(key)
        for key in {*params, *reference}
        if key != param and not key.startswith(IRRELEVANT)
    )


def order(value: Any) -> tuple[bool, float, str]:
    """Numbers ascending, then everything else by its text."""
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, "" if number else shown(value))


def shown(value: Any) -> str:
    """A parameter's value as text, for tables and ticks."""
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def flatten(values: dict[str, Any], prefix: str = "") -> Params:
    """Nested sections -> dotted keys; lists stay whole."""
    flat: Params = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _params(state: dict[str, Any]) -> Params:
    return flatten((state.get("params") or {}).get("params.yaml", {}).get("data", {}))


def _figures(state: dict[str, Any]) -> Iterator[tuple[str, str, str, float, float, str]]:
    """Data set, model, method, top-1, its deviation over runs, and note, of every method in a state."""
    for path, content in (state.get("metrics") or {}).items():
        place = METRICS.fullmatch(Path(path).as_posix())
        if not place or "data" not in content:
            continue
        whole = _whole_metrics(state, Path(path)) if path.endswith("top1.json") else content["data"]
        note = content["data"].get("weights", "")
        for method, own in content["data"].items():
            figures = whole.get(method, {})
            spread = figures["std"] if isinstance(figures, dict) and figures.get("runs", 1) > 1 else 0.0
            if isinstance(own, int | float):
                yield place[1], place[2], method, own, spread, note
            elif isinstance(own, dict) and "top1" in own:
                yield place[1], place[2], method, own["top1"], spread, note


def _whole_metrics(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """The `metrics.json` beside a `top1.json`, of the state's revision; empty, with a warning, if it is not there."""
    beside, revision = path.with_name("metrics.json"), state.get("rev", WORKSPACE)
    try:
        if revision == WORKSPACE:
            text = beside.read_text(encoding="utf-8")
        else:
            # DVC takes seconds to load.
            import dvc.api

            text = dvc.api.read(beside.as_posix(), rev=revision, encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
    except Exception as error:  # DVC raises errors of many kinds
        warn(f"{beside} of {revision[:7]} cannot be read ({error}): its points have no error bars")
        return {}
    return found


def table(points: list[Point], param: str) -> str:
    """Methods down, values across, for each data set and model."""
    lines = []
    for dataset, model in dict.fromkeys((point.dataset, point.model) for point in points):
        mine = [point for point in points if (point.dataset, point.model) == (dataset, model)]
        values = sorted({shown(point.value): point.value for point in mine}.values(), key=order)
        cells = {(point.method, shown(point.value)): point for point in mine}
        head = f"{dataset} with {model}: top-1 over {param}" + (f" — {UNTRAINED}" if mine[0].note else "")
        rows = [["", *(shown(value) for value in values)]]
        for method in dict.fromkeys(point.method for point in mine):
            rows.append([method, *(_cell(cells.get((method, shown(value)))) for value in values)])
        sides = ["left", *["right"] * len(values)]
        text = tabulate(rows, (), "plain", disable_numparse=True, colalign=sides, preserve_whitespace=True)
        lines += ["", head, *(line.rstrip() for line in text.splitlines())]
    return "\n".join(lines[1:])


def _cell(point: Point | None) -> str:
    if point is None:
        return "-"
    spread = (point.high - point.low) / 2
    return f"{point.top1:.2f} ± {spread:.2f}" if spread else f"{point.top1:.2f}       "


if __name__ == "__main__":
    run(main)
