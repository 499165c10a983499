"""The stage describe: against a local endpoint that fails in the ways that real ones do, nothing is paid for twice."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import yaml
from conftest import Call
from describe_project import (
    JSON,
    LOG,
    NAMES,
    PROMPTS,
    answers,
    command,
    log_lines,
    make_project,
    run_here,
    run_stage,
    write_prompts,
)
from openai_server import KEY, Endpoint

from stages.common.descriptions import read_descriptions
from stages.common.endpoint import GIVE_UP_AFTER
from stages.common.errors import UserError
from stages.common.received import scrub
from stages.common.responses import read_log

DEMO = {"reader": "demo", "root": "data/demo/images"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_asks_once_and_writes_whole_sentences_in_class_order(project: Path, endpoint: Endpoint) -> None:
    endpoint.answer = lambda prompt: f"\n\n1. Seen by {prompt[-3:]}: 3.5 cm of fur. The belly, e.g. its side, is pale."
    endpoint.delay = 0.02
    code, out, err = run_stage(project)
    assert (code, err) == (0, "")
    assert "16 descriptions of 4 classes from 8 answers, 8 of them asked for now; dropped: none" in out
    found = json.loads(JSON.read_text())
    assert list(found) == NAMES
    assert found["Abyssinian"][:2] == ["Seen by ian: 3.5 cm of fur.", "The belly, e.g. its side, is pale."]
    assert set(endpoint.paid.values()) == {1}
    assert 1 < endpoint.most_running <= 3
    first = answers()[0]
    assert {"class", "prompt", "sample", "model", "answer", "finish_reason", "time"} < set(first)
    assert first["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    assert log_lines()[-1]["file"] == JSON.as_posix()

    before = JSON.read_bytes(), LOG.read_bytes()
    endpoint.forget()
    run_here()
    assert (JSON.read_bytes(), LOG.read_bytes()) == before
    assert not endpoint.asked


def test_failures_are_counted_and_a_rerun_asks_only_for_the_rest(project: Path, endpoint: Endpoint) -> None:
    names = [f"bird {letter}" for letter in "abcdefghijkl"]
    make_project(project, names)
    write_prompts(project, "Describe {name}")
    faults = ["500", "reset", "truncated", "no choices", "filtered", "no text", "latin-1", "html", "azure filter"]
    by_prompt = {f"Describe {name}": fault for name, fault in zip(names, faults, strict=False)}

    def fault(prompt: str, before: int) -> str | None:
        if prompt == "Describe bird l":
            return "429" if before == 0 else None  # a retry of the client succeeds
        return by_prompt.get(prompt)

    endpoint.fault = fault
    code, _, err = run_stage(project)
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "9 of 12 answers are missing" in err
    for reason in ("1 x HTTP 500", "1 x no connection", "1 x no choices", "2 x content filter", "1 x no text"):
        assert reason in err
    assert "2 x broken JSON (class 'bird c': {" in err
    assert "1 x HTML and no answer (class 'bird h': busy)" in err
    assert "rerun asks only for the rest" in err
    assert not JSON.exists()
    assert {line["class"] for line in answers()} == {"bird j", "bird k", "bird l"}
    assert endpoint.asked["Describe bird l"] == 2

    endpoint.fault = lambda prompt, before: None
    run_here()
    assert endpoint.paid == {f"Describe {name}": 1 for name in names}
    assert list(json.loads(JSON.read_text())) == names
    assert len({line["request"] for line in answers()}) == len(answers()) == 12


def test_killed_run_continues_to_the_same_bytes(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"bird number {index}" for index in range(20)]
    for folder in (tmp_path / "whole", tmp_path / "killed"):
        make_project(folder, names, concurrency=2)
    endpoint.delay = 0.03
    process = command(tmp_path / "killed")
    while sum(endpoint.paid.values()) < 9 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    log = tmp_path / "killed" / LOG
    assert not (tmp_path / "killed" / JSON).exists()
    received = read_log(log).answers
    assert 7 <= len(received) < 40
    kept = [json.loads(line) for line in log.read_text().splitlines()[1:]]

    endpoint.forget()
    endpoint.delay = 0.0
    assert run_stage(tmp_path / "killed")[0] == 0
    assert not {line["prompt"] for line in kept} & set(endpoint.asked)
    assert sum(endpoint.paid.values()) == 40 - len(received)
    monkeypatch.chdir(tmp_path / "whole")
    run_here()
    assert (tmp_path / "killed" / JSON).read_bytes() == (tmp_path / "whole" / JSON).read_bytes()


def test_hopeless_endpoint_is_not_asked_on(project: Path, endpoint: Endpoint) -> None:
    make_project(project, [f"bird {index}" for index in range(60)], max_retries=0)
    for fault, reason in (
        ("401", "refuses the key"),
        ("404", "does not know the model"),
        ("quota", "quota is used up"),
        ("400", f"{GIVE_UP_AFTER} requests in a row failed"),
    ):
        endpoint.forget()
        endpoint.fault = lambda prompt, before, fault=fault: fault  # type: ignore[misc]
        with pytest.raises(UserError, match=reason) as error:
            run_here()
        assert "120 of 120 answers are missing" in str(error.value)
        assert sum(endpoint.asked.values()) <= (GIVE_UP_AFTER + 3 if fault == "400" else 6)


def test_slow_endpoint_is_a_time_out(project: Path, endpoint: Endpoint) -> None:
    make_project(project, ["wren"], timeout=0.2, max_retries=0)
    endpoint.fault = lambda prompt, before: "slow"
    with pytest.raises(UserError, match="2 x time-out"):
        run_here()


def test_dripping_endpoint_is_a_time_out(project: Path, endpoint: Endpoint) -> None:
    make_project(project, ["wren"], timeout=0.5, max_retries=0)
    endpoint.fault = lambda prompt, before: "drip"  # no single wait is long, all of them together are
    start = time.monotonic()
    with pytest.raises(UserError, match="2 x time-out"):
        run_here()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("fault", ["429", "429 bare", "429 later", "500", "502", "reset", "slow"])
def test_passing_fault_is_retried_by_the_client(fault: str, project: Path, endpoint: Endpoint) -> None:
    make_project(project, ["wren"], timeout=1.5)
    endpoint.fault = lambda prompt, before: fault if before == 0 else None
    start = time.monotonic()
    run_here()
    assert set(endpoint.asked.values()) == {2}
    assert set(endpoint.paid.values()) == {1}
    if fault == "429 later":
        assert time.monotonic() - start >= 1.5


def test_completions_with_samples_and_settings(project: Path, endpoint: Endpoint) -> None:
    write_prompts(
        project, "Q: {name}\nA:", api="completions", samples=3, temperature=0.5, max_tokens=9, extra={"top_p": 0.9}
    )
    endpoint.fault = lambda prompt, before: "cut" if before == 0 else None
    endpoint.answer = lambda prompt: "The ears are big. The tail is long and ends in"
    run_here()
    assert set(endpoint.paid.values()) == {3}
    assert endpoint.bodies[0].items() >= {"temperature": 0.5, "max_tokens": 9, "top_p": 0.9, "model": "a-model"}.items()
    cut = ["The ears are big."]
    whole = [*cut, "The tail is long and ends in"]
    assert sorted(json.loads(JSON.read_text())["Abyssinian"]) == sorted([*cut, *whole, *whole])


def test_key_is_nowhere(project: Path, endpoint: Endpoint) -> None:
    make_project(project, max_retries=0)
    endpoint.answer = lambda prompt: f"The header was Bearer {KEY} and more."
    endpoint.fault = lambda prompt, before: "500" if "ears" in prompt else None
    code, out, err = run_stage(project)
    assert (code, err.count("\n")) == (1, 1)
    endpoint.fault = lambda prompt, before: "401"
    with pytest.raises(UserError, match="refuses the key") as error:
        run_here()
    endpoint.fault = lambda prompt, before: None
    run_here()
    assert "***" in err
    assert "***" in str(error.value)
    told = f"{out}{err}{error.value}"
    written = b"".join(path.read_bytes() for path in project.rglob("*") if path.is_file()).decode(errors="replace")
    for part in (KEY, KEY[:9], KEY[-6:]):
        assert part not in told
        assert part not in written


@pytest.mark.parametrize("key", [KEY, "0123456789abcdef0123", "AIzaSyB-unusual_key.9"])
def test_scrub_hides_whole_and_partial_keys(key: str) -> None:
    for text in (
        f"bad key {key}.",
        f"bad key {key[:8]}****{key[-4:]}",
        f"Bearer\n{key}, of",
        "another sk-abc123def, of",
    ):
        clean_text = scrub(text, key)
        assert not any(key[i : i + 6] in clean_text for i in range(len(key) - 5))
        assert "abc123" not in clean_text
        assert "***" in clean_text
    assert scrub("none of them", "none") == "none of them"


def test_class_without_a_sentence_is_named(project: Path, endpoint: Endpoint) -> None:
    endpoint.answer = lambda prompt: "I'm sorry, I cannot." if "Mau" in prompt else "It is red."
    with pytest.raises(UserError, match=r"'Egyptian Mau'.*2 refusal.*max_tokens"):
        run_here()
    assert not JSON.exists()


# --- what is there already --------------------------------------------------------------------------------------------


def test_published_file_is_used_without_a_key(
    project: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    JSON.parent.mkdir(parents=True)
    JSON.write_text('{"abyssinian": [" catThe cat."], "beagle": []}')
    (project / "data/demo/classes.parquet").unlink()
    run_here()
    assert capsys.readouterr() == (f"{JSON}: used as it is, 1 descriptions of 2 classes\n", "")
    assert JSON.read_text() == '{"abyssinian": [" catThe cat."], "beagle": []}'
    assert read_log(LOG).answers == {}
    assert not endpoint.asked
    PROMPTS.unlink()
    run_here()


def test_missing_key_names_three_remedies(project: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    monkeypatch.setenv("OPENAI_BASE_URL", " ")
    with pytest.raises(UserError) as error:
        run_here()
    for part in (str(JSON), "put a published file there", "OPENAI_API_KEY", "remove 'parts' from sources"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for url in ("localhost:8000", "http://", "http://[::1", "http://host:port/v1"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(UserError, match="OPENAI_BASE_URL"):
            run_here()
    PROMPTS.unlink()
    with pytest.raises(UserError, match="both missing"):
        run_here()
    assert not endpoint.asked


def test_own_file_follows_its_prompts_and_a_hand_edited_one_does_not(project: Path, endpoint: Endpoint) -> None:
    run_here()
    endpoint.forget()
    write_prompts(project, "Describe {name}", "Which tail has {name}", "Which ears has {name}")
    run_here()
    assert set(endpoint.asked) == {f"Which tail has {name}" for name in NAMES}
    assert [text[-24:-1] for text in json.loads(JSON.read_text())["Abyssinian"]][1] == "ich tail has Abyssinian"

    endpoint.forget()
    write_prompts(project, "Describe {name}")
    run_here()
    assert [len(texts) for texts in json.loads(JSON.read_text()).values()] == [1] * 4

    edited = JSON.read_text().replace("Something", "Anything")
    JSON.write_text(edited)
    write_prompts(project, "Which claws has {name}")
    run_here()
    assert JSON.read_text() == edited
    assert not endpoint.asked

    JSON.unlink()  # made again, as asked
    run_here()
    assert set(endpoint.asked) == {f"Which claws has {name}" for name in NAMES}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b'{"a": ["caf\xe9"]}', "not valid JSON in UTF-8"),
        (b'["a"]', "not a list"),
        (b'{"wren": "A bird."}', "'wren' must be a list of sentences, but has 'A bird.'"),
        (b'{"wren": ["A bird.", null]}', "'wren' must be a list of sentences, but has None"),
    ],
)
def test_wrong_file_is_refused_in_one_line(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as error:
        read_descriptions(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_other_than_openai_s_needs_no_key(
    project: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint.answer = lambda prompt: "Nothing is like it, and none of its ears is round."
    run_here()
    assert endpoint.asked and "and none of its ears is round." in JSON.read_text()
    JSON.unlink()
    LOG.unlink()
    for default in ("", "https://api.openai.com/v1"):
        monkeypatch.setenv("OPENAI_BASE_URL", default)
        with pytest.raises(UserError, match=r"OpenAI's endpoint, the default, wants a key.*set OPENAI_BASE_URL"):
            run_here()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"models": {"vit": {"name": "ViT-B-33"}}}, "models.vit.name 'ViT-B-33'"),
        ({"models": {"vit": {"name": "ViT-B-32", "pretrained": "openia"}}}, "did you mean 'openai'"),
        ({"models": {"vit": {"name": "ViT-B-32", "pretrained": "far/away.pt"}}}, "neither a file nor a tag"),
        ({"models": {"own": {"name": "local-dir:nowhere"}}}, "local-dir:nowhere"),
        ({"datasets": {"demo": DEMO, "birds": {"reader": "folder", "root": "no"}}}, "datasets.birds.root 'no'"),
        ({"sources": {"parts": "sentences", "other": "sentences"}}, "descriptions/prompts/other.yaml"),
        ({"report": {"pictures": 1, "reference": "wcaa"}}, "report.reference 'wcaa' is no method"),
    ],
)
def test_what_costs_nothing_is_checked_before_anything_is_paid(
    change: dict, complaint: str, tmp_path: Path, call: Call, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(params | change))
    done = call("describe", "--dataset", "demo")
    assert done.code == 1 and done.err.count("\n") == 1 and complaint in done.err
    assert not endpoint.asked
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert call("describe", "--dataset", "demo").code == 0 and endpoint.asked
