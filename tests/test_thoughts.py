"""Answers of reasoning models: what was thought is no part of them, in whichever marks and however they were cut."""

from __future__ import annotations

import pytest

from stages.common.thoughts import END_MARKS, without_marks, without_thoughts
from stages.describe.clean import clean
from stages.finer.matching import extract_answer

MARKS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<Thinking mode=deep>", "</THINKING>"),
    ('<think effort="low" budget="9">', "</think>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<analysis>", "</analysis>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final <|message|>"),
    (
        "<|channel|>commentary to=x <|constrain|>json<|message|>",
        "<|call|><|start|>assistant<|channel|>final<|message|>",
    ),
    ("analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("analysis", "assistantfinal"),
    ("Here is my thought process:", "Here is my response:"),
]


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_thoughts_are_no_answer_whole_unopened_or_cut(opening: str, closing: str) -> None:
    thought = "Answer: Dog, or\n\nis it?"
    for text in (
        f"{opening}{thought}{closing}Answer: Cat",
        f"\n{opening}{thought}{closing}\n\nAnswer: Cat",
        f"{thought}{closing}Answer: Cat",  # the chat template opened them
        f"{opening}{thought}{closing}{opening}{thought}{closing}Answer: Cat",
    ):
        assert without_thoughts(text).strip() == "Answer: Cat"
        assert extract_answer(without_thoughts(text)) == "Cat"
    assert clean(f"{opening}It is blue.{closing}It is red.", "sentences", "stop")[0] == ["It is red."]
    whole = f"{opening}{thought}{closing}"
    cut_at = range(len(opening) + (opening == "analysis"), len(whole) + 1)  # in the thought or in its closing mark
    for length in cut_at:
        assert without_thoughts(whole[:length]).strip() == ""


def test_a_cut_header_is_no_answer() -> None:
    for text in ("<|channel|>ana", "<|channel|>analysis<|mess", "<|chan", "<thin", "[THI", "◁th", ""):
        assert without_thoughts(text) == ""
    harmony = "<|channel|>analysis<|message|>Answer: Dog<|end|><|start|>assistant<|channel|>fin"
    assert all(without_thoughts(harmony[:length]) == "" for length in range(len(harmony)))


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("b", "b"),
        ("<think>a</think>\n\nb", "\n\nb"),
        ("a <think>b</think>\nc</think>\nd", "\nd"),  # a thought that speaks of its own mark
        ("<think>a [THINK] b [/THINK] c</think>d", "d"),
        ("a</think>b<think>c", "b"),  # cut while it thought again
        ("<think>a</think>b<think>c</think>d", "d"),
        ("b<think>c</think>", "b"),  # second thoughts that change nothing
        ("<|channel|>final<|message|>b<|return|><|start|>assistant<|channel|>analysis<|message|>c", "b"),
        ("An analysis of its reasoning: thinking birds.", "An analysis of its reasoning: thinking birds."),
        ("analysis of it", "analysis of it"),
        ("final<|message|>b", "b"),
        ("The button says [THINK] in white.\nIt is red.", "The button says [THINK] in white.\nIt is red."),
        ("Use `<think>` here, and std::vector<int>.", "Use `<think>` here, and std::vector<int>."),
        ("<reflection of light> on its wings", "<reflection of light> on its wings"),
        ("It is red.\n<think>c", "It is red.\n"),
        ("x < y > z, [thought] and <b>bold</b>", "x < y > z, [thought] and <b>bold</b>"),
    ],
)
def test_only_thoughts_are_removed(text: str, rest: str) -> None:
    assert without_thoughts(text) == rest


@pytest.mark.parametrize(
    "text",
    [
        "<|begin_of_box|>Cat<|end_of_box|>",
        "<think>Answer: Dog</think><answer><|begin_of_box|>Cat<|end_of_box|></answer>",
        "Answer: <|begin_of_box|>Cat",  # cut
        "<think>Answer: Dog, so <answer>Cat</answer>",  # not closed
        "It may be a dog.\n<answer>Cat</answer>",  # nor opened
        "<SUMMARY>Dog</SUMMARY><REASONING>Answer: Dog</REASONING><CONCLUSION>Cat</CONCLUSION>",
        "<|begin_of_solution|>Answer: Cat<|end_of_solution|>",
        "<|START_RESPONSE|>Cat<|END_RESPONSE|>",
        r"Answer: \boxed{Cat}",
        r"\boxed{\text{Cat}}",
        r"$$\boxed{\textbf{Cat}}$$",
        "Answer: Cat\x00",
        "Answer: \ufffdCat",
        "<|channel|>analysis<|message|>Answer: Dog<|end|><|start|>assistant<|channel|>final<|message|>Cat<|return|>",
        *(f"Answer: Cat{mark}" for mark in END_MARKS),
    ],
)
def test_boxes_and_ends_of_turns_are_no_part_of_an_answer(text: str) -> None:
    assert extract_answer(without_thoughts(text)) == "Cat"


def test_marks_are_removed_from_descriptions() -> None:
    assert clean("<answer>It is red.</answer><|im_end|>", "sentences", "stop")[0] == ["It is red."]
    assert clean("<|begin_of_box|>- red fur\n- blue eyes<|end_of_box|>", "list", "stop")[0] == ["red fur", "blue eyes"]
    assert without_marks("a\tb\nc <i>d</i> {e}") == "a\tb\nc <i>d</i> {e}"
