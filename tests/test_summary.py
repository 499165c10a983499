"""The summary over data sets, models and methods: averages, marks, differences, warnings, published figures."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Call

from stages.common import paths
from stages.common.artifacts import UNTRAINED, EncoderMeta
from stages.common.errors import UserError
from stages.common.params import Params, load_params
from stages.ingest.datasets import READERS
from stages.report.published import compare, read_published
from stages.report.rows import Difference, Figures, SummaryRow, write_row
from stages.report.summary import read_rows
from stages.report.summary_latex import escaped
from stages.report.summary_tables import accuracies, make_grid

LATEX = shutil.which("pdflatex")


def encoder(name: str = "ViT-B-32", pretrained: str | None = "openai", weights: str = "aa") -> EncoderMeta:
    return EncoderMeta(
        weights=weights, architecture={}, activation="quick_gelu", image_size=224, preprocess={}, embedding_dim=512,
        precision="float32", name=name, pretrained=pretrained,
    )  # fmt: skip


def figures(top1: float, std: float | None = None, **others: Any) -> Figures:
    """A method's figures; without a `std` of a single run."""
    plain = {"top5": 99.0, "mean_per_class": top1 - 2, "std": std or 0.0, "runs": 1 if std is None else 20}
    return Figures(top1=top1, **{**plain, **others})


def row(dataset: str, model: str, made_by: EncoderMeta | None = None, **methods: Figures) -> SummaryRow:
    return SummaryRow(
        dataset=dataset, model=model, encoder=made_by or encoder(), demo=False, untrained=False, labelled=bool(methods),
        images=100, classes=10, seed=0, scoring="1", reference="wca" if "wca" in methods else None, sources=[],
        methods=methods,
    )  # fmt: skip


def changed(one: SummaryRow, **values: Any) -> SummaryRow:
    return one.model_copy(update=values)


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def listed(*rows: SummaryRow, **entries: dict[str, Any]) -> Params:
    """Write rows, and a params.yaml that lists their data sets and models.

    Args:
        entries: of data sets and models, other than the usual.
    """
    for one in rows:
        write_row(one)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    usual = {"reader": "folder", "root": "photos"}
    params["datasets"] = {one.dataset: entries.get(one.dataset, usual) for one in rows}
    params["models"] = {one.model: entries.get(one.model, {"name": "ViT-B-32", "pretrained": "openai"}) for one in rows}
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return load_params()


def written(ending: str) -> str:
    return (paths.summary() / f"summary.{ending}").read_text()


BIRDS = row(
    "birds", "vit", clip=figures(50.0), cupl=figures(70.0), wca=figures(60.0, 0.5),
    bifta=figures(69.996, 0.25, difference=Difference(points=9.996, low=-0.1, high=20)),
)  # fmt: skip
CARS = row(
    "old_cars", "vit", clip=figures(80.0), wca=figures(81.0, 0.5),
    bifta=figures(84.0, 0.25, difference=Difference(points=3, low=2, high=4)),
)  # fmt: skip
DOGS = row("dogs", "vit", clip=figures(40.0), cupl=figures(41.0), wca=figures(42.0), bifta=figures(43.0))


def test_the_terminal_shows_figures_marks_averages_and_differences(call: Call) -> None:
    listed(BIRDS, CARS, DOGS)
    done = call("report.summary")
    assert done.code == 0, done.err
    assert done.out.startswith(
        """\
Top-1 accuracy (%)
model                   method  birds          old_cars       dogs    average
vit (ViT-B-32, openai)  clip    50.00          80.00          40.00   45.00 (2)
                        cupl    70.00*             -          41.00   55.50+ (2)
                        wca     60.00 ± 0.50+  81.00 ± 0.50+  42.00+  51.00 (2)
                        bifta   70.00 ± 0.25*  84.00 ± 0.25*  43.00*  56.50* (2)
*: the best of a model; +: the second best.
±: standard deviation over runs.
(n): average over n data sets, those that all methods of the model have.

Difference to wca, top-1 accuracy (points)
model                   method  birds   old_cars  dogs   average
vit (ViT-B-32, openai)  clip    -10.00  -1.00     -2.00  -6.00 (2)
                        cupl    +10.00      -     -1.00  +4.50 (2)
                        bifta   +10.00  +3.00 †   +1.00  +5.50 (2)
"""
    )
    other = call("report.summary", "--metric", "mean_per_class", "--reference", "clip").out
    assert "Mean per-class accuracy (%)" in other and "Top-1" not in other
    assert "Difference to clip, mean per-class accuracy (points)" in other
    assert "68.00*" in other and "±" not in other and "†" not in other, "of top-1 only"


def test_the_files_have_every_metric_whatever_is_printed(call: Call) -> None:
    listed(BIRDS, CARS, DOGS)
    assert "Top-1" not in call("report.summary", "--quiet").out
    files = {ending: written(ending) for ending in ("md", "csv", "tex")}
    call("report.summary", "--metric", "mean_per_class", "--reference", "clip")
    assert files == {ending: written(ending) for ending in files}
    titles = [line for line in files["md"].splitlines() if line.startswith("## ")]
    assert titles == [
        "## Top-1 accuracy (%)", "## Difference to wca, top-1 accuracy (points)",
        "## Mean per-class accuracy (%)", "## Difference to wca, mean per-class accuracy (points)",
    ]  # fmt: skip
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in files["md"].splitlines()]
    assert ["", "wca", "<ins>60.00</ins> ± 0.50", "<ins>81.00</ins> ± 0.50", "<ins>42.00</ins>", "51.00 (2)"] in cells
    assert ["", "bifta", "**70.00** ± 0.25", "**84.00** ± 0.25", "**43.00**", "**56.50** (2)"] in cells
    assert r"cupl & \textbf{70.00} & -- & 41.00 & \underline{55.50} (2) \\" in files["tex"]
    assert r"wca & \underline{60.00} $\pm$ 0.50 & \underline{81.00} $\pm$ 0.50" in files["tex"]
    assert r"clip & $-10.00$ & $-1.00$ & $-2.00$ & $-6.00$ (2) \\" in files["tex"]
    lines = {(line["dataset"], line["method"]): line for line in csv.DictReader(files["csv"].splitlines())}
    assert len(lines) == 4 + 3 + 4
    bifta = lines["birds", "bifta"]
    wanted = {
        "top1": "69.996", "std": "0.25", "mean_per_class": "67.996", "rank_top1": "1", "average_top1": "56.498",
        "averaged_over": "2", "reference": "wca", "difference": "9.996", "low": "-0.1", "high": "20.0",
    }  # fmt: skip
    assert {key: bifta[key] for key in wanted} == wanted
    assert lines["birds", "wca"]["difference"] == "" and lines["birds", "clip"]["std"] == ""


def test_models_are_ranked_and_averaged_each_for_itself() -> None:
    small = row("dogs", "small", encoder("RN50"), clip=figures(20.0), attrseek=figures(30.0))
    table = accuracies(make_grid([BIRDS, CARS, DOGS, small], ["birds", "old_cars", "dogs"]), "top1")
    cells = table.by_place()
    assert [(line.method) for line in table.blocks[1].lines] == ["clip", "attrseek"]
    assert cells["small", "attrseek", "dogs"].rank == 1 and cells["vit", "bifta", "dogs"].rank == 1
    assert cells["small", "clip", "birds"].value is None
    average = cells["small", "attrseek", None]
    assert (average.value, average.averaged) == (30.0, 1)


def test_without_a_common_data_set_there_is_no_average_and_one_data_set_needs_none() -> None:
    apart = [row("a", "vit", clip=figures(20.0)), row("b", "vit", wca=figures(30.0))]
    cells = accuracies(make_grid(apart, ["a", "b"]), "top1").by_place()
    assert cells["vit", "wca", None].value is None
    assert cells["vit", "clip", "a"].rank == 0, "a method alone is not the best"
    assert accuracies(make_grid(apart[:1], ["a"]), "top1").columns == ["a"]


def test_warnings_and_what_is_left_out_stand_in_every_format(call: Call) -> None:
    random = changed(row("birds", "rand", encoder(pretrained=UNTRAINED), clip=figures(9.0)), untrained=True)
    drawn = changed(row("demo", "vit", clip=figures(99.0)), demo=True)
    photos = row("photos", "vit")
    listed(BIRDS, random, drawn, photos)
    write_row(row("removed", "vit", clip=figures(1.11)))
    printed = call("report.summary").out
    for text in (printed, written("md"), written("tex")):
        assert "rand (ViT-B-32) —" in text.replace("---", "—") and UNTRAINED in text
        assert "random weights" in text and "no evidence about the paper" in text and "demo with vit" in text
        assert "Without labels, and so without accuracies: photos with vit." in text
        assert "rand on demo, photos" in text and "Without wca: rand." in text
        assert "removed" not in text and "1.11" not in text
    lines = list(csv.DictReader(written("csv").splitlines()))
    assert Counter(line["warning"] for line in lines) == {"": 4, UNTRAINED: 1, "demo": 1}
    assert not {line["dataset"] for line in lines} & {"photos", "removed"}


def test_a_train_split_is_no_column(call: Call) -> None:
    train = {"reader": "folder", "root": "photos", "sources": []}
    listed(BIRDS, row("birds-train", "vit", clip=figures(1.11)), **{"birds-train": train})
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["supervised"] = [{"dataset": "birds", "train": "birds-train"}]
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    printed = call("report.summary").out
    assert "birds" in printed and "1.11" not in printed and "average" not in printed
    assert "Train splits, and so not in the tables: birds-train." in printed
    assert "birds-train" not in written("csv")


def test_rows_that_do_not_belong_together_are_named(call: Call) -> None:
    other = changed(row("dogs", "vit", encoder(weights="bb"), clip=figures(1.0)), scoring="2", seed=3)
    listed(BIRDS, other)
    printed = call("report.summary").out
    assert "vit had other weights or settings on some data sets" in printed
    assert "several versions of the scoring: 1, 2" in printed and "several seeds: 0, 3" in printed


def test_only_unlabelled_data_sets_give_files_without_tables(call: Call) -> None:
    listed(row("photos", "vit"))
    done = call("report.summary")
    assert done.code == 0 and "photos with vit" in done.out and "average" not in done.out
    assert written("md") and written("tex") and written("csv")


def test_faults_are_one_line(call: Call) -> None:
    params = listed(BIRDS)
    done = call("report.summary", "--reference", "wac")
    assert done.err.startswith("error: --reference 'wac' was not scored (did you mean 'wca'?)")
    path = paths.summary_row("birds", "vit")
    text = path.read_text()
    unsigned = {key: value for key, value in json.loads(text).items() if key != "bifta_digest"}
    for wrong in (text.replace("69.996", "79.996"), json.dumps(unsigned)):
        path.write_text(wrong)
        with pytest.raises(UserError, match="damaged"):
            read_rows(params)
    path.unlink()
    write_row(changed(BIRDS, model="v2"))
    paths.summary_row("birds", "v2").rename(path)
    with pytest.raises(UserError, match="is of birds with v2"):
        read_rows(params)
    path.unlink()
    done = call("report.summary")
    assert (done.code, done.out) == (1, "") and "dvc repro" in done.err and len(done.err.splitlines()) == 1


PETS = row(
    "my_pets",
    "vit",
    clip=figures(84.0),
    cupl=figures(80.0),
    waffle=figures(85.5),
    wca=figures(90.0),
    bifta=figures(91.0),
)
READ_AS_PETS = {"reader": "oxford-pets", "root": "x"}


def published_for(one: SummaryRow, *others: SummaryRow, **entries: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Method, paper and figure of what stands beside the first row."""
    rows = [changed(one, images=3669), *others]
    return [
        (found.method, found.reported_in, found.published)
        for found in compare(rows, listed(*rows, **entries), read_published())
        if (found.dataset, found.model) == (one.dataset, one.model)
    ]


WCA, WAFFLE = "WCA, arXiv 2406.02915", "WaffleCLIP, arXiv 2306.07282"
BESIDE_PETS = [
    ("clip", WCA, 85.04), ("clip", WAFFLE, 85.06), ("cupl", WCA, 87.03), ("waffle", WCA, 85.5),
    ("waffle", WAFFLE, 85.71), ("wca", WCA, 89.89),
]  # fmt: skip


def test_published_figures_stand_beside_the_same_data_set_backbone_and_method() -> None:
    assert published_for(PETS, my_pets=READ_AS_PETS) == BESIDE_PETS
    assert published_for(PETS, my_pets={**READ_AS_PETS, "split": "test"}) == BESIDE_PETS
    assert published_for(PETS, my_pets={**READ_AS_PETS, "split": "trainval"}) == []
    assert published_for(changed(PETS, dataset="oxford_pets")) == [], "a key says nothing"
    quick = changed(PETS, encoder=encoder("ViT-B-32-quickgelu"))
    assert published_for(quick, my_pets=READ_AS_PETS, vit={"name": "x", "pretrained": "openai"}) == BESIDE_PETS


@pytest.mark.parametrize(
    ("made_by", "pretrained"),
    [
        (encoder(pretrained="laion2b_s34b_b79k"), "laion2b_s34b_b79k"),
        (encoder("ViT-B-32-256"), "openai"),
        (encoder("ViT-L-14-336"), "openai"),
        (encoder(pretrained="ViT-B-32.pt"), "/weights/ViT-B-32.pt"),
        (encoder(pretrained="openai"), "/weights/openai"),
        (encoder("local-dir:ViT-B-32", None), None),
        (None, "openai"),
    ],
)
def test_other_weights_stand_beside_nothing(made_by: EncoderMeta | None, pretrained: str | None) -> None:
    entry = {"name": "ViT-B-32", "pretrained": pretrained}
    assert published_for(changed(PETS, encoder=made_by), my_pets=READ_AS_PETS, vit=entry) == []


def test_a_checkpoint_file_is_openais_if_a_model_with_the_tag_is_the_same() -> None:
    file = changed(PETS, encoder=encoder(pretrained="mine.pt"))
    entry = {"name": "ViT-B-32", "pretrained": "/weights/mine.pt"}
    tagged = row("birds", "tagged", clip=figures(50.0))
    assert published_for(file, tagged, my_pets=READ_AS_PETS, vit=entry) == BESIDE_PETS
    gelu = changed(file, encoder=encoder(pretrained="mine.pt").model_copy(update={"activation": "gelu"}))
    assert published_for(gelu, tagged, my_pets=READ_AS_PETS, vit=entry) == []


def test_published_and_difference_are_shown_and_other_images_are_marked(call: Call) -> None:
    listed(
        changed(PETS, images=120), changed(PETS, dataset="pets", images=3669), my_pets=READ_AS_PETS, pets=READ_AS_PETS
    )
    printed = call("report.summary").out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert f"pets vit clip 84.00 85.04 -1.04 {WCA}" in lines
    assert f"pets vit waffle 85.50 85.71 ± 0.25 -0.21 {WAFFLE}" in lines
    assert f"my_pets vit wca 90.00 89.89 ± 0.09 +0.11 ‡ {WCA}" in lines
    assert "my_pets has 120 images here, 3669 there" in printed
    assert "my_pets has 120 images here" in written("md") and r"my\_pets has 120 images here" in written("tex")
    table = {(line["dataset"], line["method"]): line for line in csv.DictReader(written("csv").splitlines())}
    assert table["pets", "clip"][f"published in {WCA}"] == "85.04"
    assert table["pets", "clip"][f"difference to {WAFFLE}"] == "-1.06"
    assert table["my_pets", "clip"][f"difference to {WCA}"] == "", "of other images"
    assert "Published" not in call("report.summary", "--metric", "mean_per_class").out, "papers report overall accuracy"


def test_the_published_file_is_whole_and_keeps_differences_apart() -> None:
    published = read_published()
    assert Counter(one.quantity for one in published) == {"top1": 261, "difference": 3}
    assert all(one.source and 15 < one.value < 100 for one in published if one.quantity == "top1")
    assert {one.dataset for one in published} - {"average"} <= set(READERS)
    assert all((one.images is None) == (one.dataset == "average") for one in published)


def test_a_line_that_is_no_figure_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text((ROOT / "stages/report/published.csv").read_text().replace("62.05", "62.o5", 1))
    with pytest.raises(UserError, match=r"published\.csv, row 2: no valid 'value'"):
        read_published(path)


ODD_NAME = '50%_é&größe\\#{x}~^$|鸟 <y>`ß".pt'


def test_latex_shows_any_name() -> None:
    assert escaped("a_b & 50% #1 {x}") == r"a\_b \& 50\% \#1 \{x\}"
    assert escaped("é") == escaped("e\u0301") == r"\'{e}"


@pytest.mark.skipif(LATEX is None, reason="no pdflatex on this machine")
def test_the_latex_compiles_alone_and_in_a_paper(call: Call) -> None:
    odd = encoder(pretrained=ODD_NAME)
    listed(BIRDS, CARS, PETS, changed(DOGS, model="odd", encoder=odd), my_pets=READ_AS_PETS)
    call("report.summary", "--quiet")
    paper = (
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{data/summary/summary}Text.\end{document}"
    )
    Path("paper.tex").write_text(paper)
    for source in ("data/summary/summary.tex", "paper.tex"):
        command = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "-output-directory=.", source]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
