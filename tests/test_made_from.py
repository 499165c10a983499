"""made_from: a result is kept only while all that it was made from is the same."""

from __future__ import annotations

from pathlib import Path

from stages.common.made_from import code_digest, folder_digest, made_from, read_result, write_result


def test_a_result_is_right_for_the_inputs_that_made_it(tmp_path: Path) -> None:
    path, inputs = tmp_path / "r.json", {"weights": "ab", "parameters": {"rank": 8}, "seed": 0}
    assert read_result(path, made_from(**inputs)) is None
    write_result(path, {"figure": 1.5}, made_from(**inputs))
    found = read_result(path, made_from(**inputs))
    assert found is not None and found["figure"] == 1.5
    assert set(found["made_from"]) == set(inputs)
    assert read_result(path, made_from(**inputs | {"parameters": {"rank": 9}})) is None
    for other in ("", "[]", "{}", '{"made_from": "0123"}'):  # "0123": as an earlier version wrote it
        path.write_text(other)
        assert read_result(path, made_from(**inputs)) is None


def test_digests_see_names_bytes_and_code(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    first = folder_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = folder_digest(tmp_path)
    (tmp_path / "b").write_text("y")
    assert len({first, second, folder_digest(tmp_path)}) == 3
    assert code_digest("finer.llava") != code_digest("finer.llava", "finer.tune.lora")
