"""The estimate: what is missing, its tokens and money, without a key and without a request."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import make_folder_data
from describe_project import JSON, LOG, NAMES, ROOT, make_project, run_here, write_prompts
from openai_server import Endpoint

from stages.common.errors import UserError
from stages.common.params import load_params
from stages.common.responses import LogWriter, Tokens
from stages.describe.estimate import print_estimate
from stages.describe.plan import make_plan

PRICES = {"input": 1.0, "output": 10.0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    only_parts(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def only_parts(folder: Path, **settings: object) -> None:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["sources"] = {"parts": "sentences"}
    params["describe"] |= settings
    path.write_text(yaml.safe_dump(params))


def table(capsys: pytest.CaptureFixture[str], dataset: str | None = None, source: str | None = None) -> list[list[str]]:
    """The cells of the table that is printed, below its head, without the line on how they came about."""
    print_estimate(load_params(), dataset, source)
    return [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]


def test_before_anything_is_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    characters = [len(f"{question} {name}") for question in ("Describe", "Which ears has") for name in NAMES]
    tokens = str(sum(-(-n // 4) for n in characters))
    assert table(capsys) == [["demo", "parts", "8", "8", "~", tokens, "<=", "1,600"]]
    assert not LOG.exists()

    only_parts(folder, prices=PRICES)
    money = (int(tokens) + 16000) / 1e6
    assert table(capsys, "demo", "parts")[0][-2:] == ["<=", f"{money:.6f}"]
    write_prompts(folder, "Describe {name}", max_tokens=None, system="Four.")
    assert table(capsys)[0][5:] == ["26", "no", "limit", "no", "limit"]
    write_prompts(folder, "Describe {name}", max_tokens=10, api="completions", samples=2)
    assert table(capsys)[0][2:] == ["8", "8", "~", "44", "<=", "80", "<=", "0.000844"]


def test_means_of_the_log_and_what_was_spent(
    folder: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    only_parts(folder, prices=PRICES)
    run_here()  # each costs 7 + 5 tokens
    out = capsys.readouterr().out
    assert "spent now 56 + 40 tokens (USD 0.000456), in all 56 + 40 tokens (USD 0.000456)" in out
    assert table(capsys)[0][2:] == ["8", "0", "0", "0", "0.00"]
    write_prompts(folder, "Describe {name}", "Which tail has {name}", samples=2)
    assert table(capsys)[0][2:] == ["16", "12", "84", "60", "0.000684"]
    run_here()
    assert "spent now 84 + 60 tokens (USD 0.000684), in all 140 + 100 tokens" in capsys.readouterr().out
    only_parts(folder, model="another")
    assert table(capsys)[0][4] == "~"  # another model's answers say nothing
    endpoint.fault = lambda prompt, before: "401"
    with pytest.raises(UserError):
        run_here()
    assert "spent now 0 + 0 tokens (USD 0.00)" in (out := capsys.readouterr().out)
    assert "and by other models 140 + 100 tokens" in out
    assert "missing, not asked for: 'Abyssinian'" in out or "missing, HTTP 401: 'Abyssinian'" in out


def test_replies_that_are_no_answers_are_spent_too(
    folder: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.fault = lambda prompt, before: "filtered" if "ears" in prompt else None
    with pytest.raises(UserError, match="4 x content filter"):
        run_here()
    assert "spent now 56 + 40 tokens" in capsys.readouterr().out
    assert make_plan("demo", "parts", load_params().describe).records.tokens == {"a-model": Tokens(8, 56, 40)}
    assert table(capsys)[0][2:] == ["8", "4", "28", "20"]


@pytest.mark.parametrize(
    ("prices", "complaint"),
    [
        (
            {"input": 1.0, "outputs": 2.0},
            r"prices.outputs: unknown key .did you mean 'output'.* input, output",
        ),
        ({"input": 1.0}, "describe.prices.output: missing"),
        ({"input": -1.0, "output": 2.0}, "describe.prices.input: "),
        (0.5, "describe.prices: "),
    ],
)
def test_wrong_prices_are_refused_in_one_line(prices: object, complaint: str, folder: Path) -> None:
    only_parts(folder, prices=prices)
    with pytest.raises(UserError, match=complaint) as error:
        load_params()
    assert "\n" not in str(error.value)


def test_what_is_in_a_batch_is_not_counted_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = make_plan("demo", "parts", load_params().describe).requests
    with LogWriter(LOG) as log:
        log.add_batch("batch_7", "a-model", [request.digest for request in requests[:6]])
    row = table(capsys)[0]
    assert row[2:4] == ["8", "2"]
    assert " ".join(row).endswith("6 more are in a batch")


def test_table_of_everything_says_what_it_cannot_say(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["datasets"]["birds"] = params["datasets"]["demo"]
    params["sources"]["cupl"] = "sentences"
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "descriptions/prompts/cupl.yaml").write_bytes((ROOT / "descriptions/prompts/cupl.yaml").read_bytes())
    JSON.parent.mkdir()
    JSON.with_name("cupl.json").write_text('{"a": ["b c"]}')
    with pytest.raises(UserError, match=r"datasets.birds.root 'data/demo/images' does not exist") as error:
        print_estimate(load_params(), None, None)
    assert str(error.value).count("does not exist") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[1:4]] == [
        ["demo", "cupl", "0", "0"],
        ["demo", "parts", "8", "8"],
        ["all", "8", "8", "~"],
    ]
    assert lines[1].endswith("a file is there and used as it is")
    assert lines[-1].endswith("Nothing was sent.")


def test_command_needs_no_key_and_sends_nothing(folder: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")} | {"PYTHONPATH": str(ROOT)}
        line = [sys.executable, "-m", "stages.describe", "--estimate", *arguments]
        return subprocess.run(line, env=environment, capture_output=True, text=True)

    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("data set  source  requests  missing  input tokens  output tokens\n")
    assert "Nothing was sent." in done.stdout
    wrong = run("--source", "partz")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "did you mean 'parts'" in wrong.stderr
    (folder / "data/demo/classes.parquet").unlink()
    missing = run("--dataset", "demo")
    assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (1, "", 1)
    assert "datasets.demo.root 'data/demo/images' does not exist" in missing.stderr


def test_before_ingest_the_classes_are_those_that_the_reader_finds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder_data(folder / "toy-images", images_per_class=1)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["datasets"]["toy"] = {"reader": "folder", "root": "toy-images", "names": {"blue tavo": "azure tavo"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    named = ["Grey_Heron", "azure tavo", "red-crowned tavo"]
    characters = [len(f"{question} {name}") for question in ("Describe", "Which ears has") for name in named]
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert table(capsys, "toy")[0][:6] == ["toy", "parts", "6", "6", "~", str(sum(-(-n // 4) for n in characters))]
    assert {path for path in folder.rglob("*") if path.is_file()} == before
