"""Curves over experiments: which are taken, what is written, what DVC's own commands give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from matplotlib.text import Text
from PIL import Image

from stages.common.errors import UserError
from stages.report import curve_plots, curves
from stages.report.curves import Point, collect, flatten, order, shown, table

PARAM = "score.iou_threshold"


def figures(top1: float, std: float = 0.5, runs: int = 20) -> dict[str, float]:
    return {"top1": top1, "top5": 90.0, "std": std, "images": 10, "runs": runs}


def state(methods: dict[str, Any], path: str = "data/birds/vit/metrics.json", **changed: Any) -> dict[str, Any]:
    """What `dvc exp show --json` says of a revision; `changed` are parameters, with `__` for the dot."""
    params: dict[str, Any] = {
        "seed": 0,
        "score": {"iou_threshold": 0.8, "runs": 20},
        "refine": {"sources": "all"},
        "report": {"pictures": 4},
    }
    for key, value in changed.items():
        *sections, name = key.split("__")
        target = params
        for section in sections:
            target = target[section]
        target[name] = value
    return {"params": {"params.yaml": {"data": params}}, "metrics": {path: {"data": methods}}}


def test_experiments_that_differ_in_that_parameter_alone_are_taken() -> None:
    states = [
        state({"bifta": figures(60.0)}),
        state({"bifta": figures(99.0)}),  # the baseline, with the workspace's values
        state({"bifta": figures(50.0)}, score__iou_threshold=0.5),
        state({"bifta": figures(40.0)}, score__iou_threshold=0.6, seed=1),
        state({"bifta": figures(55.0)}, score__iou_threshold=0.7, report__pictures=0),
    ]
    assert [(p.value, p.top1) for p in collect(states, PARAM)] == [(0.5, 50.0), (0.7, 55.0), (0.8, 60.0)]


def test_error_bars_are_one_deviation_and_a_single_run_has_none() -> None:
    points = collect([state({"clip": figures(40.0, 3.0, runs=1), "bifta": figures(60.0, 1.25)})], PARAM)
    assert [point.row for point in points] == [
        {"dataset": "birds", "model": "vit", "method": "clip", "value": 0.8, "top1": 40.0, "low": 40.0, "high": 40.0},
        {
            "dataset": "birds",
            "model": "vit",
            "method": "bifta",
            "value": 0.8,
            "top1": 60.0,
            "low": 58.75,
            "high": 61.25,
        },
    ]


def test_a_data_set_that_overrides_the_parameter_has_a_curve_of_its_own() -> None:
    """`-S +datasets.cub.score.iou_threshold=0.6` is no value of another data set, and the global one is none of CUB."""
    cub, param = "data/cub/vit/metrics.json", "datasets.cub.score.iou_threshold"

    def both(top1: float, own: float | None = None, **changed: Any) -> dict[str, Any]:
        made = state({"bifta": figures(top1)}, **changed)
        made["metrics"][cub] = {"data": {"bifta": figures(top1 + 1)}}
        score = {} if own is None else {"iou_threshold": own}
        made["params"]["params.yaml"]["data"]["datasets"] = {"cub": {"score": score}, "birds": {}}
        return made

    def found(states: list[dict[str, Any]], param: str) -> list[tuple[str, float, float]]:
        return [(point.dataset, point.value, point.top1) for point in collect(states, param)]

    assert found([both(60.0), both(50.0, 0.6)], param) == [("cub", 0.6, 51.0), ("cub", 0.8, 61.0)]
    states = [both(60.0, 0.6), both(50.0, 0.6, score__iou_threshold=0.5)]
    assert found(states, PARAM) == [("birds", 0.5, 50.0), ("birds", 0.8, 60.0)]


def test_random_weights_are_said() -> None:
    points = collect([state({"bifta": figures(4.0), "weights": "UNTRAINED"})], PARAM)
    assert points[0].row["note"] == "UNTRAINED"
    assert "UNTRAINED" in table(points, PARAM)
    assert "UNTRAINED" in written(points)


def test_what_dvc_lends_to_unfinished_experiments_is_not_theirs() -> None:
    def experiment(value: float, executor: dict[str, str] | None) -> dict[str, Any]:
        own = state({"bifta": figures(100 * value)}, score__iou_threshold=value)
        return {"executor": executor, "revs": [{"data": own}, {"data": state({"bifta": figures(1.0)})}]}

    said: list[dict[str, Any]] = [
        {"data": state({"bifta": figures(80.0)}), "experiments": None},
        {
            "data": None,
            "experiments": [
                experiment(0.5, {"state": "success"}),
                experiment(0.6, {"state": "failed"}),
                experiment(0.7, {"state": "queued"}),
                experiment(0.75, {"state": "running"}),
                experiment(0.9, None),  # run in the workspace
            ],
        },
    ]
    assert [(p.value, p.top1) for p in collect(curves.finished(said), PARAM)] == [(0.5, 50), (0.8, 80), (0.9, 90)]


def test_parameters_changed_since_the_last_run_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text("stages: {a: {cmd: x}, b: {params: {params.yaml: {seed: 0, score: {runs: 3, scale: 4.0}}}}}")
    assert curves.outdated({"seed": 0, "score.runs": 3, "score.scale": 4.0}, lock) == []
    assert curves.outdated({"seed": 1, "score.runs": 3, "score.scale": 2.0}, lock) == ["score.scale", "seed"]
    assert curves.outdated({"seed": 1}, tmp_path / "none") == []


def test_overrides_added_since_the_last_run_and_taken_out_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text(
        "stages: {settings@a: {params: {params.yaml: {datasets.a: {root: x, crop: {candidates: 5}}}}}, "
        "settings@gone: {params: {params.yaml: {datasets.gone: {root: z}}}}}"
    )
    assert curves.outdated({"datasets.a.root": "x", "datasets.a.crop.candidates": 5}, lock) == []
    assert curves.outdated({"datasets.a.root": "x", "datasets.a.score.runs": 2}, lock) == [
        "datasets.a.crop.candidates",
        "datasets.a.score.runs",
    ]


def test_without_metrics_there_is_no_point() -> None:
    queued = state({}, score__iou_threshold=0.5)
    queued["metrics"] = None
    broken = state({}, score__iou_threshold=0.6)
    broken["metrics"] = {"data/birds/vit/metrics.json": {"error": {"type": "FileNotFoundError", "msg": ""}}}
    elsewhere = state({"bifta": figures(1.0)}, path="finer/metrics.json", score__iou_threshold=0.7)
    points = collect([state({"bifta": figures(60.0)}), queued, broken, elsewhere, {"params": None}], PARAM)
    assert [point.value for point in points] == [0.8]
    assert collect([], PARAM) == []


def test_values_are_in_order_and_lists_are_values() -> None:
    values: list[Any] = [["cupl", "own"], 100, "all", 20, ["cupl"]]
    assert sorted(values, key=order) == [20, 100, "all", ["cupl"], ["cupl", "own"]]
    assert shown(["cupl", "own"]) == "cupl+own"
    assert flatten({"refine": {"sources": ["a"], "top_k": 3}, "seed": 0}) == {
        "refine.sources": ["a"],
        "refine.top_k": 3,
        "seed": 0,
    }


def test_the_table_has_a_column_a_value_and_gaps_where_a_method_is_missing() -> None:
    states = [
        state({"wca": figures(50.0), "bifta": figures(60.0)}),
        state({"wca": figures(51.0)}, refine__sources=["cupl"]),
    ]
    lines = table(collect(states, "refine.sources"), "refine.sources").splitlines()
    assert lines[0] == "birds with vit: top-1 over refine.sources"
    assert lines[1].split() == ["all", "cupl"]
    assert lines[2].split() == ["wca", "50.00", "±", "0.50", "51.00", "±", "0.50"]
    assert lines[3].split() == ["bifta", "60.00", "±", "0.50", "-"]


def test_models_are_compared_in_the_workspace() -> None:
    now = state({"clip": figures(40.0), "bifta": figures(60.0)})
    now["metrics"]["data/birds/rn50/metrics.json"] = {"data": {"clip": figures(30.0)}}
    points = curves.across_models([now, state({"clip": figures(99.0)}, seed=1)])
    assert [(p.dataset, p.method, p.value, p.top1) for p in points] == [
        ("birds", "clip", "rn50", 30.0),
        ("birds", "clip", "vit", 40.0),
        ("birds", "bifta", "vit", 60.0),
    ]


def written(points: list[Point], param: str = PARAM) -> str:
    return "\n".join(artist.get_text() for artist in curve_plots.draw(points, param).findobj(Text))


@pytest.mark.parametrize("values", [[0.5, 0.8], ["all", 0.8], ["random", "grid"], [["a"], ["a", "b"]], [0.5]])
def test_the_figure_names_data_set_model_methods_and_values(values: list[Any]) -> None:
    points = [
        Point("birds", model, method, value, 50.0, 49.0, 51.0)
        for model in ("vit", "rn50")
        for method in ("clip", "own$method$")
        for value in values
    ]
    said = written(points)
    for text in ("birds with vit", "birds with rn50", "own$method$", PARAM, *map(shown, values)):
        assert text in said


def test_a_parameter_that_is_none_is_refused_with_the_nearest(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    with pytest.raises(UserError, match=r"no parameter 'score.iou_treshold' \(did you mean 'score.iou_threshold'\?\)"):
        curves.check_param("score.iou_treshold")


def test_more_points_of_one_data_set_are_asked_for_as_dvc_takes_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC refuses to set a key that an entry lacks, unless a plus says that it is new."""
    monkeypatch.chdir(project.folder)
    param = "datasets.toy.score.iou_threshold"
    assert curves.more(param) == f"dvc exp run --queue -S '+{param}=0.5,0.6,0.7,0.8,0.9' && dvc queue start"
    project.edit(lambda params: params["datasets"]["toy"].update(score={"iou_threshold": 0.8}))
    assert curves.more(param) == f"dvc exp run --queue -S '{param}=0.5,0.6,0.7,0.8,0.9' && dvc queue start"


@pytest.fixture
def experimented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A repository whose one stage writes an accuracy that depends on the threshold, with two experiments."""
    folder = tmp_path / "repository"
    folder.mkdir()
    made = Project(folder)
    root = Path(__file__).parents[1]
    (folder / "params.yaml").write_text((root / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "stage.py").write_text(
        "import json, yaml, pathlib\n"
        "t = yaml.safe_load(open('params.yaml'))['score']['iou_threshold']\n"
        "folder = pathlib.Path('data/birds/vit')\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "(folder / 'top1.json').write_text(json.dumps({'bifta': 100 * t}))\n"
        "whole = dict(top1=100 * t, top5=99.0, std=1.0, images=5, runs=3)\n"
        "(folder / 'metrics.json').write_text(json.dumps({'bifta': whole}))\n"
    )
    (folder / "dvc.yaml").write_text(
        "stages:\n  score:\n    cmd: python stage.py\n    deps: [stage.py]\n    params: [score, report]\n"
        "    outs: [data/birds/vit/metrics.json]\n    metrics: [data/birds/vit/top1.json]\n"
    )
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["git", "add", "-A"]):
        made.run(*command)
    made.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x")
    monkeypatch.chdir(folder)
    return made


def test_dvc_experiments_become_a_curve(experimented: Project) -> None:
    for value in ("0.5", "0.7"):
        experimented.run("dvc", "exp", "run", "-q", "-S", f"{PARAM}={value}")
    done = experimented.run("python", "-m", "stages.report.curves", "--param", PARAM)
    rows = json.loads(Path(f"data/curves/{PARAM}.json").read_text(encoding="utf-8"))
    assert [(row["value"], row["top1"]) for row in rows] == [(0.5, 50.0), (0.7, 70.0)]
    assert "70.00 ± 1.00" in done.stdout
    assert f"dvc exp run --queue -S '{PARAM}=0.5,0.6,0.7,0.8,0.9' && dvc queue start" in done.stdout
    with Image.open(f"data/curves/{PARAM}.png") as image:
        image.load()
    params = Path("params.yaml")
    params.write_text(params.read_text(encoding="utf-8").replace("iou_threshold: 0.7", "iou_threshold: 0.6"), "utf-8")
    done = experimented.run("python", "-m", "stages.report.curves", "--param", PARAM)
    assert f"{PARAM} changed since the last `dvc repro`" in done.stderr
    assert "0.6" not in done.stdout.splitlines()[1]
    none = experimented.run("python", "-m", "stages.report.curves", "--param", PARAM, "--model", "no", check=False)
    assert none.returncode == 1
    assert "\nerror: no metrics here" in none.stderr
