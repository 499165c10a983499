"""From answers to tables and pictures: figures, what is missing, what is said, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from artifact_files import filled, read_raw, write_raw
from conftest import Call
from dvc_render.vega import VegaRenderer  # type: ignore[import-untyped]
from finer_project import answers_parameters
from matplotlib.text import Text
from PIL import Image

from stages.common import paths as common_paths
from stages.common.artifacts import CLASSES, ClassesParameters
from stages.common.tables import make_meta, read_table, write_json, write_table
from stages.finer import paths
from stages.finer.artifacts import ANSWERS, SCORES
from stages.finer.attributes import Attributes, Concept, write_attributes
from stages.finer.figures import MEASURES
from stages.finer.params import load_finer_params
from stages.finer.report import __main__ as report
from stages.finer.report import pictures, plots
from stages.finer.report.results import DEMO_NOTE, Results, read_results
from stages.finer.report.tables import LVLM, WIDTH, markdown, plain
from stages.finer.score import __main__ as score
from stages.finer.score.metrics import Draws, cell_figures, difference_figures

ROOT = Path(__file__).parents[1]
NAMES = ["red-crowned tavo", "blue tavo", "grey heron", "$4 finch"]
IMAGES = 8
FORMS = [
    *((level, kind, "image") for level in ("superordinate", "coarse", "fine") for kind in ("plain", "attrseek")),
    ("fine", "plain", "text"),
]
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path, monkeypatch)


def make_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with the demo and two LVLMs, and encoding of texts in place of a model."""
    monkeypatch.chdir(folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["finer"]["served"] = {"toy": "models/toy", "toy-tuned": "models/tuned"}
    params["finer"]["score"]["resamples"] = 200
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    labels = pa.array(range(len(NAMES)), pa.int32())
    coarse = [[name.split()[-1]] for name in NAMES]
    columns = {"label": labels, "name": NAMES, "superordinate": ["bird"] * len(NAMES), "coarse": coarse}
    classes = filled(CLASSES, columns)
    write_table(common_paths.classes("demo"), classes, make_meta(CLASSES, "demo", ClassesParameters()))
    concepts = [Concept(n, name, Attributes(["red crown", "long tail"], [])) for n, name in enumerate(NAMES)]
    write_attributes(paths.attributes_by_class("demo"), concepts)
    monkeypatch.setattr("stages.finer.score.lvlms.encoder", lambda params: unit_rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which both stages were run, once for all tests that only read what they wrote."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_project(folder, monkeypatch)
        both()
        write_probes()
        write_json(paths.MIXTURE / "classes.json", {"demo": {"seen": NAMES[:2], "held_out": NAMES[2:]}})
        (paths.REPORT / "pictures").mkdir(parents=True)
        (paths.REPORT / "pictures" / "stale-gap.png").write_bytes(b"")
        monkeypatch.setattr(sys, "argv", ["stage"])
        score.main()
        report.main()
    return folder


def unit_rows(texts: list[str]) -> np.ndarray:
    """Texts of as many letters alike: [N, 2]."""
    angles = np.array([len(text) for text in texts]) / 100
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def answer_rows(right: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    """A row a question, two images a class; an answer is the gold where `right`, else a name of nothing."""
    rows: list[Row] = []
    for idx in range(IMAGES):
        label = idx % len(NAMES)
        golds = {"superordinate": "bird", "coarse": NAMES[label].split()[-1], "fine": NAMES[label]}
        for level, kind, given in FORMS:
            row: Row = dict.fromkeys(ANSWERS.columns.names)
            row |= {"idx": idx, "image_id": f"{idx}.png", "label": label, "superordinate": "bird"}
            row |= {"coarse": [golds["coarse"]], "fine": [golds["fine"]], "question": "What is it?"}
            row |= {"granularity": level, "prompting": kind, "input": given, "finish_reason": "stop"}
            row["attributes"] = "red crown; long tail" if kind == "attrseek" else None
            row["answer"] = f"Answer: {golds[level]}</s>" if right(row) else "Answer: nothing known"
            rows.append(row)
    return rows


def write_answers(lvlm: str, rows: list[Row], dataset: str = "demo") -> None:
    meta = make_meta(ANSWERS, dataset, answers_parameters(lvlm))
    write_table(paths.answers(lvlm, "demo"), pa.Table.from_pylist(rows, schema=ANSWERS.columns), meta)


def is_form(row: Row, level: str, kind: str, given: str = "image") -> bool:
    return (row["granularity"], row["prompting"], row["input"]) == (level, kind, given)


def scored(call: Call) -> tuple[dict[str, Any], pl.DataFrame, str]:
    """Run the stage: metrics, scores and what it printed."""
    outcome = call("finer.score")
    assert outcome.code == 0, outcome.err
    table, _ = read_table(paths.SCORES, SCORES)
    metrics: dict[str, Any] = json.loads(paths.METRICS.read_text(encoding="utf-8"))
    return metrics, pl.DataFrame(table), outcome.out + outcome.err


def both(tuned: list[Row] | None = None) -> None:
    """Answers of both LVLMs: `toy` is right about superordinates and about the first class, `toy-tuned` mostly."""
    write_answers("toy", answer_rows(lambda row: row["granularity"] == "superordinate" or row["label"] == 0))
    write_answers("toy-tuned", tuned or answer_rows(lambda row: row["label"] != 3 or row["input"] == "text"))


def test_scores_are_a_row_a_question(call: Call) -> None:
    both()
    metrics, scores, printed = scored(call)
    assert len(scores) == 2 * IMAGES * len(FORMS)
    assert scores["extracted"][0] == "bird"
    toy = metrics["toy"]["demo"]
    assert toy["superordinate/image/plain"]["em"] == 100
    assert (toy["fine/image/plain"]["em"], toy["fine/image/plain"]["asked"]) == (25.0, 8)
    assert toy["fine/image/plain"]["em_low"] <= 25 <= toy["fine/image/plain"]["em_high"]
    assert toy["fine/image/plain"]["strict_em"] == 25
    assert "score toy demo: 56 questions, 0 without an answer, 0 answers without words" in printed


def test_a_missing_answer_is_null_and_never_zero(call: Call) -> None:
    rows = answer_rows()
    for row in [row for row in rows if is_form(row, "fine", "plain")][:3]:
        row |= {"answer": None, "missing": "refused: image too large", "finish_reason": None}
    rows[-1] |= {"answer": None}  # the text-only question of the last image; nobody says why
    both(rows)
    metrics, scores, printed = scored(call)
    cell = metrics["toy-tuned"]["demo"]["fine/image/plain"]
    assert (cell["em"], cell["f1"], cell["strict_em"], cell["strict_f1"]) == (100, 100, 100, 100)
    assert (cell["asked"], cell["missing"], cell["empty"]) == (8, 3, 0)
    lacking = scores.filter(pl.col("missing").is_not_null())
    assert len(lacking) == 4
    assert all(lacking[name].null_count() == 4 for name in ("em", "f1", "strict_em", "strict_f1", "extracted"))
    assert "4 without an answer (1 no reason given, 3 refused: image too large)" in printed
    gap = metrics["toy-tuned"]["demo"]["gap"]["plain"]
    assert (gap["pairs"], gap["left_out"], gap["em"]) == (4, 4, 0)


def test_where_all_is_missing_there_is_no_figure(call: Call) -> None:
    rows = answer_rows()
    for row in rows:
        if is_form(row, "fine", "plain"):
            row |= {"answer": None, "missing": "timeout"}
    both(rows)
    metrics, _, _ = scored(call)
    cell = metrics["toy-tuned"]["demo"]["fine/image/plain"]
    assert (cell["em"], cell["em_low"], cell["missing"]) == (None, None, 8)
    assert call("finer.report").code == 0
    results = read_results(load_finer_params())
    fine = plain(results).split("fine, image\n")[1].splitlines()
    assert fine[2].split() == ["plain", "toy-tuned", "–", "–", "–", "8", "8", "0", "0", "0"]
    assert "None" not in markdown(results)
    assert not [row for row in plots.granularity_rows(results) if row["em"] is None]


def test_empty_and_cut_answers_are_counted_and_scored_as_they_stand(call: Call) -> None:
    rows = answer_rows()
    mine = [row for row in rows if is_form(row, "fine", "plain")]
    for row, said in zip(mine, ["", "Answer: </s>", "Answer: ."], strict=False):
        row["answer"] = said
    mine[4]["finish_reason"] = "length"
    both(rows)
    metrics, scores, printed = scored(call)
    cell = metrics["toy-tuned"]["demo"]["fine/image/plain"]
    assert (cell["empty"], cell["missing"], cell["cut"], cell["em"]) == (3, 0, 1, 62.5)
    assert cell["unmarked"] == sum("Answer:" not in row["answer"] for row in mine)
    assert scores.filter("empty")["em"].to_list() == [0, 0, 0]
    assert "3 answers without words, " in printed
    assert 'without "Answer:" (the whole text is scored), 1 cut at max_tokens' in printed


def test_an_empty_gold_counts_as_published_is_refused_strictly_and_said(call: Call) -> None:
    rows = answer_rows(lambda row: False)
    for row in rows:
        if is_form(row, "fine", "plain"):
            row["fine"] = [""] if row["idx"] == 0 else [*row["fine"], "the"]
    both(rows)
    metrics, scores, printed = scored(call)
    cell = metrics["toy-tuned"]["demo"]["fine/image/plain"]
    assert (cell["em"], cell["strict_em"]) == (100, 0)
    assert scores.filter(pl.col("strict_em").is_null())["idx"].to_list() == [0]
    assert "8 questions have a gold label without words (idx 0 (fine), 1 (fine), 2 (fine))" in printed


def test_the_gap_and_the_gain_are_paired(call: Call) -> None:
    both()
    metrics, _, _ = scored(call)
    gap = metrics["toy-tuned"]["demo"]["gap"]["plain"]
    assert (gap["em_text"], gap["em_image"], gap["em"], gap["pairs"]) == (100, 75, 25, 8)
    assert gap["em_low"] == 0 and gap["em_high"] >= 50
    assert (gap["f1"], gap["strict_em"], gap["strict_f1"]) == (25, 25, 25)
    assert all(gap[f"{measure}_low"] is not None for measure in MEASURES), "of a difference all have an interval"
    gain = metrics["toy-tuned"]["demo"]["attrseek_gain"]
    assert list(gain) == ["superordinate", "coarse", "fine"]
    assert (gain["fine"]["em"], gain["fine"]["em_plain"], gain["fine"]["em_attrseek"]) == (0, 75, 75)


def test_images_asked_one_way_only_are_left_out_of_differences() -> None:
    draws = Draws(0, 100, "toy", "demo")
    columns = {"em": [1.0, 0.0, None], "f1": [1.0, 0.5, None], "strict_em": [1.0, 0.0, None], "strict_f1": [1.0] * 3}
    first = pl.DataFrame({"idx": [1, 2, 3], "label": [0, 1, 1], **columns})
    second = first.with_columns(idx=pl.col("idx") + 1)
    found = difference_figures(first, second, draws, ("a", "b"))
    # Only image 2 has an answer on both sides: 0 and 1.
    assert (found["em"], found["pairs"], found["left_out"], found["classes"]) == (-100, 1, 3, 1)
    assert (found["em_a"], found["em_b"], found["em_low"]) == (0, 100, None)
    assert difference_figures(first, second.clear(), draws, ("a", "b")) == {}


def test_figures_depend_on_no_order() -> None:
    draw = np.random.default_rng(0)
    em = draw.integers(0, 2, 40).astype(float)
    same = dict.fromkeys(("em", "f1", "strict_em", "strict_f1"), em)
    rows = pl.DataFrame({"label": np.repeat(np.arange(8), 5), **same, "missing": [None] * 40})
    rows = rows.with_columns(empty=False, unmarked=False, cut=False)
    draws = Draws(3, 100, "toy", "demo")
    assert cell_figures(rows, draws) == cell_figures(rows.sample(fraction=1, shuffle=True, seed=1), draws)
    assert cell_figures(rows, draws) != cell_figures(rows, Draws(4, 100, "toy", "demo"))


def test_an_older_table_of_answers_is_read_and_not_asked_again(call: Call) -> None:
    """A file of format 1: its column `parent_label` has the name `told`."""
    both()
    expected, _, _ = scored(call)
    path = paths.answers("toy", "demo")
    table, meta = read_raw(path)
    model = meta["parameters"].pop("lvlm")
    write_raw(path, table.rename_columns({"parent_label": "told"}), {**meta, "format": 1, "model": model})
    assert "told" in pq.read_schema(path).names
    assert scored(call)[0] == expected


def test_seen_and_held_out_classes_apart(call: Call) -> None:
    both()
    # Of `grey heron` the mixture has no conversation, and nobody drew it.
    parts = {"seen": NAMES[:2], "held_out": ["$4 finch", "no such bird"]}
    write_json(paths.MIXTURE / "classes.json", {"demo": parts})
    metrics, _, printed = scored(call)
    tuned = metrics["toy-tuned"]["demo"]
    assert (tuned["fine/image/plain/seen"]["em"], tuned["fine/image/plain/seen"]["asked"]) == (100, 4)
    assert tuned["fine/image/plain"]["asked"] == 8
    held_out = tuned["fine/image/plain/held-out"]
    assert (held_out["em"], held_out["asked"], held_out["em_low"]) == (0, 2, None)  # one class: no interval
    assert not any(key.startswith("coarse") and key.count("/") == 3 for key in tuned)
    assert "demo has no class 'no such bird'" in printed
    rows = plots.tuning_rows(read_results(load_finer_params()))
    assert {row["classes"] for row in rows} == {"seen", "held-out"}
    assert "low" not in next(row for row in rows if row["classes"] == "held-out")


@pytest.mark.parametrize("parts", [None, {"others": {"seen": [], "held_out": ["x"]}}])
def test_without_a_mixture_of_the_data_set_nothing_is_apart(parts: Any, call: Call) -> None:
    both()
    if parts is not None:
        write_json(paths.MIXTURE / "classes.json", parts)
    metrics, _, printed = scored(call)
    assert not any(key.count("/") == 3 for own in metrics.values() for key in own["demo"])
    assert "has no class" not in printed


def test_an_endpoint_was_not_tuned_and_has_no_seen_classes(call: Call) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["finer"].update(endpoints={"toy": {"model": "gpt"}}, served={"toy-tuned": "models/tuned"})
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    both()
    write_json(paths.MIXTURE / "classes.json", {"demo": {"seen": NAMES[:2], "held_out": NAMES[2:]}})
    metrics, _, _ = scored(call)
    apart = {lvlm for lvlm, own in metrics.items() for key in own["demo"] if key.count("/") == 3}
    assert apart == {"toy-tuned"}
    assert {row["lvlm"] for row in plots.tuning_rows(read_results(load_finer_params()))} == {"toy-tuned"}


def test_generated_attributes_are_compared(call: Call) -> None:
    rows = answer_rows()
    seeking = [row for row in rows if is_form(row, "fine", "attrseek")]
    seeking[0]["attributes"], seeking[1]["attributes"], seeking[2]["attributes"] = None, "", "red crown"
    both(rows)
    metrics, _, _ = scored(call)
    made = metrics["toy"]["demo"]["generation"]
    assert (made["rouge_l"], made["cosine"], made["empty"], made["missing"]) == (100, 1, 0, 0)
    assert made["bleu"] == 100 and "tok:13a" in made["bleu_signature"]
    tuned = metrics["toy-tuned"]["demo"]["generation"]
    assert (tuned["asked"], tuned["missing"], tuned["empty"], tuned["unknown"]) == (8, 1, 1, 0)
    assert tuned["rouge_l"] == pytest.approx(100 * (5 + 0 + 2 / 3) / 7, abs=0.01)
    assert tuned["rouge_l_low"] < tuned["rouge_l"] < tuned["rouge_l_high"]


def test_a_concept_without_required_attributes_is_named(call: Call) -> None:
    concepts = [Concept(n, name, Attributes(["red crown"] if n else [], [])) for n, name in enumerate(NAMES)]
    write_attributes(paths.attributes_by_class("demo"), concepts)
    both()
    metrics, _, printed = scored(call)
    assert metrics["toy"]["demo"]["generation"]["unknown"] == 2
    assert "has no required attributes of 1 concepts, left out of generation: red-crowned tavo" in printed


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda: paths.answers("toy", "demo").write_bytes(b"PAR1"), "is not a whole Parquet file"),
        (lambda: write_answers("toy", answer_rows(), "pets"), "holds answers of toy on pets"),
        (lambda: write_answers("toy", answer_rows() + answer_rows()[:1]), "question 0 .* 2 times"),
        (
            lambda: paths.attributes_by_class("demo").unlink(),
            "attributes/demo.json is missing; run `python -m stages.finer.concepts",
        ),
        (lambda: write_json(paths.MIXTURE / "classes.json", ["x"]), "classes.json is not"),
        (lambda: write_json(paths.MIXTURE / "classes.json", {"demo": ["x"]}), "classes.json is not"),
        (lambda: write_json(paths.MIXTURE / "classes.json", {"demo": {"seen": []}}), "classes.json is not"),
        (
            lambda: write_json(paths.MIXTURE / "classes.json", {"demo": {"seen": "x", "held_out": []}}),
            r"classes.json is not \{data set: \{seen: \[class name, ...\], held_out: \[...\]\}\}; run `python",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_line(spoil: Callable[[], None], said: str, call: Call) -> None:
    both()
    spoil()
    outcome = call("finer.score")
    assert outcome.code == 1
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error")]
    assert re.search(said, line)


def test_an_lvlm_without_answers_is_left_out_and_named(call: Call) -> None:
    write_answers("toy", answer_rows())
    metrics, _, printed = scored(call)
    assert list(metrics) == ["toy"]
    assert "toy-tuned is left out of demo" in printed
    paths.answers("toy", "demo").unlink()
    assert "no LVLM of params.yaml has answers" in call("finer.score").err


def test_the_same_answers_give_the_same_bytes(call: Call) -> None:
    both()
    write_probes()

    def made() -> dict[str, bytes]:
        assert call("finer.score").code == call("finer.report").code == 0
        files = [paths.SCORES, paths.METRICS, *(path for path in paths.REPORT.rglob("*") if path.is_file())]
        return {str(path): path.read_bytes() for path in files}

    first = made()
    assert first == made()
    assert len(first) == 2 + 6 + 4


def write_probes() -> None:
    for place, model in enumerate(("toy-tuned", "toy")):
        probe: dict[str, Any] = {"model": model, "dataset": "demo", "chance": 25.0}
        probe["before"] = {"mean": 80.0, "std": 2.0, "runs": [78.0, 82.0]}
        probe["after"] = {"mean": 60.0, "std": 2.0, "runs": [58.0, 62.0]}
        probe["difference"] = {"mean": -20.0, "std": 1.0, "low": -22.0, "high": -18.0}
        probe["images"] = {"train": 80, "test": 40}
        write_json(paths.PROBE / f"{place}.json", probe)


@pytest.fixture
def results(made: Path) -> Results:
    """Both stages were run on the answers of both LVLMs, with a mixture and probes: their files are here."""
    shutil.copytree(made / "data", "data", dirs_exist_ok=True)
    return read_results(load_finer_params())


def test_tables_have_every_figure_and_the_note(results: Results) -> None:
    text = (paths.REPORT / "table.md").read_text(encoding="utf-8")
    assert text == markdown(results)
    assert DEMO_NOTE in text
    rows = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]
    assert next(row for row in rows if row[0] == "plain")[1] == "toy"
    assert ["prompting", LVLM, "EM", "F1", "strict EM", "asked", "missing", "empty", "unmarked", "cut"] in rows
    # Before and after under one another.
    place = next(n for n, row in enumerate(rows) if row[:3] == ["plain", "held-out", "toy"])
    assert rows[place][3].startswith("0.00 [") and rows[place + 1][3].startswith("50.00 [")
    assert rows[place + 1][2] == "toy-tuned"
    gap = next(row for row in rows if row[:2] == ["plain", "toy-tuned"] and row[4].startswith("+"))
    assert gap[2:4] == ["100.00", "75.00"] and gap[4].startswith("+25.00 [+0.00, ") and gap[6:] == ["8", "0"]
    probes = [row for row in rows if row[1] == "demo"]
    assert [row[0] for row in probes] == ["toy", "toy-tuned"]
    assert probes[0][2:] == ["80.00 ± 2.00", "60.00 ± 2.00", "-20.00 [-22.00, -18.00]", "25.00", "80", "40"]


def test_plain_text_fits_and_is_what_the_command_prints(results: Results, call: Call) -> None:
    text = plain(results)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith(DEMO_NOTE)
    shown = call("finer")
    assert shown.code == 0 and text in shown.out and "pictures" in shown.out


def test_answers_without_a_mark_have_a_column_and_a_word_about_it(call: Call) -> None:
    rows = answer_rows()
    for row in [row for row in rows if is_form(row, "fine", "plain")][:3]:
        row["answer"] = "a bird"
    both(rows)
    scored(call)
    results = read_results(load_finer_params())
    for text in (markdown(results), plain(results)):
        chapter = re.split(r"(?m)^(?:### )?fine, image$", text)[1]
        heading, *lines = (re.split(r"[ |]+", line.strip("| ")) for line in chapter.strip().splitlines())
        line = next(line for line in lines if line[:2] == ["plain", "toy-tuned"])
        assert (heading[-2:], line[-2:]) == (["unmarked", "cut"], ["3", "0"])
        assert 'unmarked: no "Answer:" in it' in " ".join(text.split())


def test_the_widest_figures_leave_room_for_names(results: Results) -> None:
    cell = results.metrics["toy"]["demo"]["fine/image/plain"] | {"asked": 10000}
    for measure in ("em", "f1"):
        cell |= {measure: 100.0, f"{measure}_low": 100.0, f"{measure}_high": 100.0}
    text = plain(Results({"toy-tuned": {"demo": {"fine/image/few-shot-cot": cell}}}, [], results.demo))
    assert "toy-tuned" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_long_names_are_shortened_from_the_middle(results: Results) -> None:
    name = "llava-onevision-qwen2-72b-ov-chat-of-a-very-long-name"
    longer = Results({f"{name}-a": results.metrics["toy"], f"{name}-b": results.metrics["toy-tuned"]}, [], results.demo)
    lines = plain(longer).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert any("llava" in line and "…" in line and "-b " in line for line in lines)
    assert name in markdown(longer)


def test_a_real_data_set_has_no_note(results: Results) -> None:
    real = Results(results.metrics, results.probes, frozenset())
    assert DEMO_NOTE not in markdown(real) + plain(real)
    assert not any("note" in row for row in plots.gap_rows(real))
    mixed = Results({"toy": {**results.metrics["toy"], "pets": results.metrics["toy"]["demo"]}}, [], results.demo)
    assert plain(mixed).startswith(f"demo: {DEMO_NOTE}")
    assert [("note" in row, row["dataset"]) for row in plots.gap_rows(mixed)] == [(True, "demo"), (False, "pets")]


@pytest.mark.parametrize(
    ("name", "template", "x", "y"),
    [
        ("granularity", "finer_intervals", "em", "prompting"),
        ("tuning", "finer_intervals", "em", "prompting"),
        ("gap", "finer_differences", "difference", "prompting"),
        ("attrseek", "finer_differences", "difference", "granularity"),
        ("probe", "finer_probe", "side", "accuracy"),
    ],
)
def test_dvc_draws_the_plots_from_their_data(name: str, template: str, x: str, y: str, results: Results) -> None:
    rows = json.loads((paths.REPORT / f"{name}.json").read_text(encoding="utf-8"))
    assert rows and {row["note"] for row in rows} == {DEMO_NOTE}
    assert all(x in row and y in row for row in rows)
    rows = [row | {"rev": "workspace"} for row in rows]
    renderer = VegaRenderer(rows, "plot", template=template, template_dir=str(ROOT / ".dvc/plots"), x=x, y=y)
    filled = renderer.partial_html()
    assert "<DVC_METRIC" not in filled
    assert json.loads(filled)["data"]["values"] == rows


def test_pictures_are_drawn_and_old_ones_go(results: Results) -> None:
    folder = paths.REPORT / "pictures"
    drawn = sorted(path.name for path in folder.glob("*.png"))
    assert drawn == [f"demo-{name}.png" for name in ("attrseek", "gap", "granularity", "probe", "tuning")]
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert 400 <= image.width <= 2000 and 200 <= image.height <= 1500
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_pictures_hold_names_notes_and_nothing_that_overlaps(results: Results) -> None:
    rows = plots.granularity_rows(results)
    plot = pictures.Plot("$demo$: exact match", "exact match (%)", "em", "prompting", "granularity")
    figure = pictures.intervals(rows, results.lvlms, plot)
    pictures.save(figure, Path("picture.png"))
    figure.draw_without_rendering()
    found = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    words = {text.get_text().replace("\n", " ") for text in found}
    assert {"$demo$: exact match", "toy", "toy-tuned", "plain", "attrseek", "coarse", DEMO_NOTE} <= words
    boxes = [text.get_window_extent() for text in found]
    for place, box in enumerate(boxes):
        over = [
            text.get_text()
            for text, other in zip(found[place + 1 :], boxes[place + 1 :], strict=True)
            if box.width and other.width and box.overlaps(other)
        ]
        assert not over, found[place].get_text()


def test_without_text_only_questions_there_is_no_gap(call: Call) -> None:
    rows = [row for row in answer_rows() if row["input"] == "image" and row["prompting"] == "plain"]
    write_answers("toy", rows)
    metrics, _, _ = scored(call)
    assert metrics["toy"]["demo"]["gap"] == metrics["toy"]["demo"]["attrseek_gain"] == {}
    assert "generation" not in metrics["toy"]["demo"]
    assert call("finer.report").code == 0
    assert json.loads((paths.REPORT / "gap.json").read_text()) == []
    assert "modality gap" not in (paths.REPORT / "table.md").read_text(encoding="utf-8")
    assert [path.name for path in (paths.REPORT / "pictures").glob("*.png")] == ["demo-granularity.png"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"toy": {}}', '{"toy": {"demo": 3}}', "{"])
def test_metrics_that_are_none_are_refused_in_a_line(content: str, call: Call) -> None:
    assert "metrics.json is missing" in call("finer").err
    paths.METRICS.parent.mkdir(parents=True, exist_ok=True)
    paths.METRICS.write_text(content, encoding="utf-8")
    outcome = call("finer")
    assert outcome.code == 1 and outcome.err.count("\n") == 1 and "metrics.json is n" in outcome.err
