"""Asking LVLMs: what is asked, how an interrupted run continues, and what becomes of answers that are not got."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import ROOT, Call, Project
from finer_models import make_tiny_language_model, make_tiny_llava
from finer_project import make_labelled
from openai_server import KEY, Endpoint
from PIL import Image

from stages.common.tables import read_meta
from stages.finer import artifacts, paths, prompts
from stages.finer.ask.picture import data_of
from stages.finer.ask.questions import Question, build_questions, choose
from stages.finer.attributes import Attributes, Concept
from stages.finer.params import Ask, load_finer_params
from stages.finer.unified import Sample

LVLM = "vlm"
ANSWERS, LOG = Path("data/finer/answers/vlm/toy.parquet"), Path("data/finer/responses/vlm/toy.jsonl")
CONCEPTS = [Concept(0, "blue tavo", Attributes(["blue crown", "long tail"], []))]


@pytest.fixture(scope="module")
def settings() -> Ask:
    return load_finer_params(ROOT / "params.yaml").finer.ask.model_copy(update={"images_per_class": None})


def sample_of(folder: Path, idx: int = 0, **labels: Any) -> Sample:
    path = folder / f"{idx}.png"
    Image.new("RGB", (8, 8), (idx, 0, 0)).save(path)
    known = {"superordinate": "bird", "coarse": ["finch"], "fine": ["blue tavo"]} | labels
    return Sample(idx, **known, img_path=str(path), metadata={"image_id": f"{idx}.png", "label": 0})


def questions_of(samples: list[Sample], settings: Ask, seed: int = 0) -> list[Question]:
    return build_questions(samples, CONCEPTS, settings, seed, "toy")


# What is asked


def test_every_granularity_tells_the_label_above(tmp_path: Path, settings: Ask) -> None:
    asked = {(q.granularity, q.prompting, q.modality): q for q in questions_of([sample_of(tmp_path)], settings)}
    assert {key: q.parent_label for key, q in asked.items() if key[1:] == ("plain", "image")} == {
        ("superordinate", "plain", "image"): None,
        ("coarse", "plain", "image"): "bird",
        ("fine", "plain", "image"): "finch",
    }
    superordinate = asked["superordinate", "plain", "image"].text
    assert superordinate.startswith("What is in the image? Choose one of: ") and " Birds," in superordinate
    assert "blue tavo" not in "".join(q.text for q in asked.values())
    assert asked["fine", "cot", "image"].text.endswith(prompts.STEPS)
    assert asked["fine", "few-shot-cot", "image"].text.count("Example:") == 2


def test_knowledge_is_asked_for_at_the_fine_level_with_the_taxonomy_above(tmp_path: Path, settings: Ask) -> None:
    questions = questions_of([sample_of(tmp_path)], settings)
    with_words = [q for q in questions if q.modality != "image"]
    assert {(q.granularity, q.prompting, q.modality) for q in with_words} == {
        ("fine", prompting, modality)
        for prompting in ("plain", "cot", "few-shot-cot")
        for modality in ("text", "image+attributes")
    }
    assert all("Taxonomy: bird, finch. Attributes: blue crown; long tail." in q.text for q in with_words)


def test_attrseek_is_one_conversation_of_two_turns(tmp_path: Path, settings: Ask, lvlm: Any) -> None:
    questions = questions_of([sample_of(tmp_path)], settings)
    fine = next(q for q in questions if (q.granularity, q.prompting) == ("fine", "attrseek"))
    first, second = fine.first(lvlm).body["messages"], fine.second(lvlm, "blue crown").body["messages"]
    assert [part["type"] for part in first[0]["content"]] == ["image_url", "text"]
    assert first[0]["content"][1]["text"] == prompts.seek("finch")
    assert second[0] == first[0]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[1]["content"] == "blue crown"
    assert second[2]["content"].startswith("Given these attributes: ")


@pytest.fixture(scope="module")
def lvlm() -> Any:
    from stages.finer.ask.questions import Lvlm

    return Lvlm("vlm", "a-model", None, {"temperature": 0.0, "seed": 0})


def test_a_text_only_question_shows_no_image_and_is_one_request_a_class(
    tmp_path: Path, settings: Ask, lvlm: Any
) -> None:
    questions = questions_of([sample_of(tmp_path, 0), sample_of(tmp_path, 1)], settings)
    texts = [q.first(lvlm) for q in questions if (q.modality, q.prompting) == ("text", "plain")]
    assert len(texts) == 2 and texts[0].digest == texts[1].digest
    assert texts[0].body["messages"] == [{"role": "user", "content": texts[0].turns[0].text}]


def test_answers_in_older_logs_are_found(tmp_path: Path, settings: Ask, lvlm: Any) -> None:
    """A request keeps its digest, or every answer that was paid for would be asked again."""
    questions = questions_of([sample_of(tmp_path, coarse=["finch", "land bird"])], settings)
    (text,) = (q for q in questions if (q.modality, q.prompting) == ("text", "few-shot-cot"))
    assert text.first(lvlm).digest == "a03e2261e9d8ea7d"


def test_of_several_coarse_labels_a_seeded_one_is_the_parent(tmp_path: Path, settings: Ask) -> None:
    samples = [sample_of(tmp_path, idx, coarse=["finch", "land bird"]) for idx in range(20)]
    parents = [q.parent_label for q in questions_of(samples, settings) if q.granularity == "fine"]
    assert set(parents) == {"finch", "land bird"}
    assert parents == [q.parent_label for q in questions_of(samples[::-1], settings)[::-1] if q.granularity == "fine"]
    assert parents != [q.parent_label for q in questions_of(samples, settings, seed=1) if q.granularity == "fine"]


def test_without_coarse_labels_the_fine_question_tells_the_superordinate(tmp_path: Path, settings: Ask) -> None:
    questions = questions_of([sample_of(tmp_path, coarse=[])], settings)
    assert {q.granularity for q in questions} == {"superordinate", "fine"}
    assert {q.parent_label for q in questions if q.granularity == "fine"} == {"bird"}


def test_the_images_a_class_are_chosen_by_seed_and_not_by_order(tmp_path: Path, settings: Ask) -> None:
    samples = [sample_of(tmp_path, idx) for idx in range(9)]
    few = settings.model_copy(update={"images_per_class": 3})
    chosen = [
        {q.sample.idx for q in questions_of(order, few, seed)}
        for order, seed in ((samples, 0), (samples[::-1], 0), (samples, 1))
    ]
    assert len(chosen[0]) == 3 and chosen[0] == chosen[1] != chosen[2]
    # The same images in another folder, in another table.
    moved = [replace(one, idx=one.idx + 7, img_path=f"elsewhere/{one.idx}.png") for one in samples]
    assert choose(samples, 3, 0) == choose(moved, 3, 0)


def test_a_jpeg_is_sent_as_it_is_and_what_endpoints_do_not_take_as_png(tmp_path: Path) -> None:
    picture = Image.new("RGB", (6, 4), (200, 10, 10))
    for name, kind in (("a.jpg", "image/jpeg"), ("b.bmp", "image/png")):
        picture.save(tmp_path / name)
        assert data_of(tmp_path / name)[0] == kind
    assert data_of(tmp_path / "a.jpg")[1] == (tmp_path / "a.jpg").read_bytes()


def test_a_turned_photo_is_sent_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    kind, data = data_of(tmp_path / "a.jpg")
    assert (kind, Image.open(io.BytesIO(data)).size) == ("image/png", (4, 6))


# The stage, at an endpoint that can be told to fail


def ask_little(params: dict[str, Any]) -> None:
    params["finer"]["endpoints"] = {LVLM: {"model": "a-model"}}
    params["finer"]["served"] = {}
    params["finer"]["ask"].update(
        granularities=["superordinate", "fine"], prompting=["plain", "attrseek"], images_per_class=1, max_retries=1
    )


def ask_for(inputs: list[str], params: dict[str, Any]) -> None:
    params["finer"]["ask"].update(inputs=inputs)


@pytest.fixture
def toy(project: Project, monkeypatch: pytest.MonkeyPatch, call: Call) -> Project:
    make_labelled(project)
    project.edit(ask_little)
    monkeypatch.chdir(project.folder)
    assert call("ingest", "--dataset", "toy").code == 0
    assert call("finer.unify", "--dataset", "toy").code == 0
    return project


REQUESTS = 3 * (1 + 2 + 1 + 2) + 3 + 3 + 1
"""Three images, plain and two turns of ATTRSEEK at two levels; text alone, image and attributes; one look for sight."""


SHOWS_AN_IMAGE = re.compile(r" [0-9a-f]{8}$")
"""The endpoint's way of telling requests with an image."""


def rows() -> pl.DataFrame:
    return pl.read_parquet(ANSWERS)


def test_every_question_is_answered_and_paid_once(toy: Project, call: Call, endpoint: Endpoint) -> None:
    done = call("finer.ask", "--lvlm", LVLM)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{ANSWERS}: 18 questions about 3 images, {REQUESTS} asked for now; missing: none\n"
    assert sum(endpoint.paid.values()) == REQUESTS and max(endpoint.paid.values()) == 1
    assert rows()["answer"].null_count() == rows()["missing"].len() - 18 == 0
    assert rows().filter(pl.col("prompting") == "attrseek")["attributes"].null_count() == 0
    body = next(body for body in endpoint.bodies if isinstance(body["messages"][0]["content"], list))  # with an image
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.0, 512, 0)
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    sent = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    assert any(path.read_bytes() == sent for path in Path("toy-images").rglob("*.jpg"))
    first = ANSWERS.read_bytes()
    endpoint.forget()
    assert "0 asked for now" in call("finer.ask", "--lvlm", LVLM).out
    assert not endpoint.bodies and ANSWERS.read_bytes() == first
    assert KEY not in LOG.read_text() and "base64" not in LOG.read_text()


def test_a_changed_image_is_asked_about_again_and_no_other(toy: Project, call: Call, endpoint: Endpoint) -> None:
    call("finer.ask", "--lvlm", LVLM)
    changed = Path("toy-images") / rows()["image_id"][0]
    Image.new("RGB", (40, 40), (1, 2, 3)).save(changed)
    # Plain and two turns of ATTRSEEK at two levels, and with the attributes.
    assert "questions about 3 images, 7 asked for now;" in call("finer.ask", "--lvlm", LVLM).out


def test_a_killed_run_continues_and_ends_with_the_same_bytes(toy: Project, call: Call, endpoint: Endpoint) -> None:
    call("finer.ask", "--lvlm", LVLM)
    whole = ANSWERS.read_bytes()
    ANSWERS.unlink()
    LOG.unlink()
    endpoint.forget()
    endpoint.delay = 0.1
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.finer.ask", "--lvlm", LVLM],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    while not LOG.exists() or LOG.read_bytes().count(b"\n") < 8:
        time.sleep(0.02)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    endpoint.delay = 0.0
    time.sleep(0.3)  # what was under way when it was killed is answered to nobody
    assert not ANSWERS.exists()
    received = {json.loads(line)["request"] for line in LOG.read_text().splitlines() if line.endswith("}")}
    endpoint.forget()
    assert call("finer.ask", "--lvlm", LVLM).code == 0
    assert sum(endpoint.paid.values()) == REQUESTS - len(received)
    assert ANSWERS.read_bytes() == whole


def test_a_signal_lets_answers_in_flight_arrive(toy: Project, call: Call, endpoint: Endpoint) -> None:
    endpoint.delay = 0.5
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.finer.ask", "--lvlm", LVLM],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not endpoint.running:
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.startswith("interrupted: ") and err.count("\n") == 1
    endpoint.delay = 0.0
    assert call("finer.ask", "--lvlm", LVLM).code == 0
    assert set(endpoint.paid.values()) == {1}


@pytest.mark.parametrize("fault", ["refused", "filtered", "no text"])
def test_an_image_that_the_model_refuses_is_missing_with_its_reason(
    toy: Project, call: Call, endpoint: Endpoint, fault: str
) -> None:
    question = prompts.question("fine", "plain", "image", "wader")
    endpoint.fault = lambda prompt, before: fault if prompt.startswith(question) else None
    done = call("finer.ask", "--lvlm", LVLM)
    reason = {"filtered": "content filter"}.get(fault, fault)
    assert done.code == 0 and done.out.endswith(f"missing: 1 {reason}\n")
    lost = rows().filter(pl.col("answer").is_null())
    assert lost["missing"].to_list() == [reason] and lost["fine"].to_list() == [["Grey_Heron"]]
    # It was paid for and would be refused again, so it is not asked again.
    endpoint.forget()
    assert call("finer.ask", "--lvlm", LVLM).out.endswith(f"0 asked for now; missing: 1 {reason}\n")
    assert not endpoint.bodies


def test_a_refused_first_turn_leaves_the_second_unasked(toy: Project, call: Call, endpoint: Endpoint) -> None:
    endpoint.fault = lambda prompt, before: "refused" if prompt.startswith(prompts.seek("wader")) else None
    assert call("finer.ask", "--lvlm", LVLM).out.endswith("missing: 1 refused\n")
    lost = rows().filter(pl.col("missing").is_not_null())
    assert (lost["attributes"].to_list(), lost["answer"].to_list()) == ([None], [None])


def test_an_image_that_the_server_refuses_is_missing_too(toy: Project, call: Call, endpoint: Endpoint) -> None:
    question = prompts.question("fine", "plain", "image", "wader")
    endpoint.fault = lambda prompt, before: "400" if prompt.startswith(question) else None
    assert call("finer.ask", "--lvlm", LVLM).out.endswith("missing: 1 HTTP 400: unsupported parameter\n")


def test_an_endpoint_that_refuses_every_image_is_named(toy: Project, call: Call, endpoint: Endpoint) -> None:
    endpoint.fault = lambda prompt, before: "400" if SHOWS_AN_IMAGE.search(prompt) else None
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 1 and done.err.count("\n") == 1
    assert f"'{LVLM}' refuses every image (3 x HTTP 400 (image '" in done.err
    assert "does the model take images?" in done.err
    assert not ANSWERS.exists() and len(endpoint.bodies) == 4  # found out before the rest is asked


def test_an_endpoint_that_drops_images_without_a_word_is_found_out(
    toy: Project, call: Call, endpoint: Endpoint
) -> None:
    endpoint.image_tokens = 0
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 1
    assert "does not see images: a question took 7 tokens with its image and 7 without" in done.err
    assert not ANSWERS.exists() and len(endpoint.bodies) == 4


def test_an_endpoint_that_answers_nothing_is_named(toy: Project, call: Call, endpoint: Endpoint) -> None:
    endpoint.fault = lambda prompt, before: "400"
    for inputs in (["image", "text"], ["text"]):
        toy.edit(partial(ask_for, inputs))
        done = call("finer.ask", "--lvlm", LVLM)
        assert done.code == 1 and done.err.count("\n") == 1
        assert "'vlm' answers nothing (" in done.err and "HTTP 400" in done.err
        assert not ANSWERS.exists()


def test_many_refused_images_side_by_side_do_not_stop_the_rest(toy: Project, call: Call, endpoint: Endpoint) -> None:
    """However many requests in a row an endpoint refuses that has answered others, it is not down."""
    toy.edit(lambda params: params["finer"]["ask"].update(granularities=["superordinate", "coarse", "fine"]))
    toy.edit(lambda params: params["finer"]["ask"].update(images_per_class=None, concurrency=1))
    toy.edit(lambda params: params["finer"]["ask"].update(prompting=["plain", "cot", "few-shot-cot", "attrseek"]))
    digests: list[str] = []

    def fault(prompt: str, before: int) -> str | None:
        shown = SHOWS_AN_IMAGE.search(prompt)
        if shown and shown[0] not in digests:
            digests.append(shown[0])
        return "400" if shown and shown[0] in digests[-2:] and len(digests) >= 5 else None

    endpoint.fault = fault
    done = call("finer.ask", "--lvlm", LVLM)
    assert (done.code, done.err) == (0, "")
    assert int(re.search(r"missing: (\d+) HTTP 400", done.out)[1]) > 20  # type: ignore[index]


def test_a_blind_endpoint_is_found_out_by_another_image_where_the_first_is_refused(
    toy: Project, call: Call, endpoint: Endpoint
) -> None:
    endpoint.image_tokens = 0
    refused: set[str] = set()

    def fault(prompt: str, before: int) -> str | None:
        if SHOWS_AN_IMAGE.search(prompt) and (not refused or prompt in refused):
            refused.add(prompt)
            return "refused"
        return None

    endpoint.fault = fault
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 1 and "does not see images" in done.err


def test_what_is_sent_may_be_set_by_endpoint(toy: Project, call: Call, endpoint: Endpoint) -> None:
    own = {"settings": {"max_tokens": None, "max_completion_tokens": 9, "seed": None}}
    toy.edit(lambda params: params["finer"]["endpoints"][LVLM].update(own))
    assert call("finer.ask", "--lvlm", LVLM).code == 0
    expected = {"model", "messages", "temperature", "max_completion_tokens"}
    assert all(set(body) == expected for body in endpoint.bodies)
    toy.edit(lambda params: params["finer"]["endpoints"][LVLM].update(settings={"model": "x"}))
    assert "settings: must not hold 'model', which is set elsewhere" in call("finer.ask", "--lvlm", LVLM).err


def test_a_refusal_without_a_token_count_is_not_asked_for_again(toy: Project, call: Call, endpoint: Endpoint) -> None:
    question = prompts.question("fine", "plain", "image", "wader")
    endpoint.fault = lambda prompt, before: "refused uncounted" if prompt.startswith(question) else None
    assert call("finer.ask", "--lvlm", LVLM).out.endswith("missing: 1 refused\n")
    endpoint.forget()
    assert call("finer.ask", "--lvlm", LVLM).out.endswith("0 asked for now; missing: 1 refused\n")
    assert not endpoint.bodies


def test_an_endpoint_that_fails_keeps_what_was_received(toy: Project, call: Call, endpoint: Endpoint) -> None:
    toy.edit(lambda params: params["finer"]["ask"].update(max_retries=0))
    endpoint.fault = lambda prompt, before: "500" if prompt.startswith("Given these") else None
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 1 and done.err.count("\n") == 1
    assert "6 of 6 answers of 'vlm' are missing: 6 x HTTP 500 (image '" in done.err and KEY not in done.err
    assert "a rerun asks only for the rest" in done.err and not ANSWERS.exists()
    endpoint.fault = lambda prompt, before: "429" if before == 0 else None  # which the client retries
    toy.edit(lambda params: params["finer"]["ask"].update(max_retries=2))
    assert call("finer.ask", "--lvlm", LVLM).code == 0
    assert sum(endpoint.paid.values()) == REQUESTS


def test_without_a_key_the_line_names_the_variable(toy: Project, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.edit(lambda params: params["finer"]["endpoints"][LVLM].update(api_key_env="VLM_KEY"))
    monkeypatch.delenv("VLM_KEY", raising=False)
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 1 and "there is no key to ask 'vlm' with: set VLM_KEY" in done.err


def test_an_endpoint_of_its_own_address_gets_its_own_key(
    toy: Project, call: Call, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"base_url": endpoint.url, "api_key_env": "VLM_KEY"}
    toy.edit(lambda params: params["finer"]["endpoints"][LVLM].update(own))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("VLM_KEY", "another-key")
    assert call("finer.ask", "--lvlm", LVLM).code == 0


def test_a_missing_image_is_named(toy: Project, call: Call, endpoint: Endpoint) -> None:
    lines = paths.unified("toy", paths.TEST).read_text().splitlines()
    for line in lines:
        Path(json.loads(line)["img_path"]).unlink()
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 1 and "cannot be read (no such file or directory); put it there" in done.err
    assert not endpoint.bodies


# A real server


def test_a_checkpoint_is_served_by_transformers_and_asked(
    toy: Project, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    make_tiny_llava(tmp_path / "llava")
    served = {"endpoints": {}, "served": {LVLM: str(tmp_path / "llava")}}
    toy.edit(lambda params: params["finer"].update(served))
    toy.edit(lambda params: params["finer"]["ask"].update(max_tokens=4))
    done = call("finer.ask", "--lvlm", LVLM)
    assert (done.code, done.err) == (0, "")
    assert f"18 questions about 3 images, {REQUESTS} asked for now; missing: none" in done.out
    assert read_meta(ANSWERS, artifacts.ANSWERS).parameters.lvlm.name == LVLM
    usage = [json.loads(line).get("usage") for line in LOG.read_text().splitlines()]
    assert Counter(bool(counts and counts["prompt_tokens"]) for counts in usage)[True] == REQUESTS
    first = ANSWERS.read_bytes()
    LOG.unlink()  # asked again, greedy decoding says the same
    assert call("finer.ask", "--lvlm", LVLM).code == 0
    assert ANSWERS.read_bytes() == first
    assert KEY not in Path("data/finer/servers/vlm.log").read_text()
    shared = [path for name in ("answers", "responses") for path in Path("data/finer", name).rglob("*.*")]
    assert len(shared) == 2 and not any(str(tmp_path).encode() in path.read_bytes() for path in shared)
    # Other weights in the same folder are another model: its answers are asked for.
    make_tiny_llava(tmp_path / "llava", seed=1)
    assert f"{REQUESTS} asked for now" in call("finer.ask", "--lvlm", LVLM).out


def test_a_language_model_without_vision_is_found_out_at_a_real_server(
    toy: Project, call: Call, tmp_path: Path
) -> None:
    """`transformers serve` drops the images without a word."""
    make_tiny_language_model(tmp_path / "lm")
    toy.edit(lambda params: params["finer"].update(endpoints={}, served={LVLM: str(tmp_path / "lm")}))
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 1 and done.err.count("\n") == 1
    assert "does not see images: a question took" in done.err
    assert not ANSWERS.exists()


def test_a_folder_without_a_checkpoint_is_named(toy: Project, call: Call, tmp_path: Path) -> None:
    toy.edit(lambda params: params["finer"].update(endpoints={}, served={LVLM: str(tmp_path)}))
    done = call("finer.ask", "--lvlm", LVLM)
    assert done.code == 1 and "holds no checkpoint (config.json and *.safetensors)" in done.err
