"""From an LLM's answer to whole sentences or list items."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.describe.clean import Parse, clean

CASES = [
    ("\n\nThe coat is short.", ["The coat is short."], []),
    ("1. The coat is short.\n2) It has\ttwo  ears.", ["The coat is short.", "It has two ears."], []),
    ("- **Ears**: big.\n* Tail\n• Paws.", ["Ears: big.", "Tail", "Paws."], []),
    ('"The coat is short."', ["The coat is short."], []),
    ("“The coat is short. It shines.”", ["The coat is short.", "It shines."], []),
    ('"Yorkie" is a name for it.', ['"Yorkie" is a name for it.'], []),
    ('It is called a "Yorkie".', ['It is called a "Yorkie".'], []),
    ('"""Dotted cloth.', ["Dotted cloth."], []),
    ("'A wine's colour.", ["A wine's colour."], []),
    (" catThe pet Abyssinian cat is lean.", ["The pet Abyssinian cat is lean."], ["fragment"]),
    (" breedsA terrier is small.", ["A terrier is small."], ["fragment"]),
    ("'sA bumpy cloth is uneven.", ["A bumpy cloth is uneven."], ["fragment"]),
    ("-textureA cloth is sprinkled.", ["A cloth is sprinkled."], ["fragment"]),
    (" glass\nBanded glass has layers.", ["Banded glass has layers."], ["fragment"]),
    ("_pointer\nThe pointer is lean.", ["The pointer is lean."], ["fragment"]),
    ("**Abyssinian Cat**\n\nIt is lean.", ["It is lean."], ["fragment"]),
    (" RM550\nThe cat is blue.", ["The cat is blue."], ["fragment"]),
    ("The LaPerm has curls.", ["The LaPerm has curls."], []),
    ("iPhone cases are flat.", ["iPhone cases are flat."], []),
    (",The keeshond is grey.", ["The keeshond is grey."], []),
    (":\nCracked earth is dry.", ["Cracked earth is dry."], ["no words"]),
    (".", [], ["no words"]),
    ("1.", [], ["no words"]),
    ("", [], ["empty"]),
    (" \n ", [], ["empty"]),
    ("There are several features:1.", [], ["header"]),
    ("It has:-A short coat\n-A round head", ["A short coat", "A round head"], ["header"]),
    ("A wingspan of up to 3.5 inches. It soars.", ["A wingspan of up to 3.5 inches.", "It soars."], []),
    ("It weighs approx. 9 kg. Mt. Etna and St. Moritz.", ["It weighs approx. 9 kg.", "Mt. Etna and St. Moritz."], []),
    ("It is white.The tail is long.", ["It is white.", "The tail is long."], []),
    ("Ist es weiß? Ja! Über dem Auge ist es rot.", ["Ja!", "Über dem Auge ist es rot."], ["chatter"]),
    ("I'm sorry, but I can't describe that.", [], ["refusal"]),
    ("I’m sorry. The coat is red.", ["The coat is red."], ["refusal"]),
    ("As an AI language model, I do not have eyes.", [], ["refusal"]),
    ("My apologies, I am an AI and cannot see.", [], ["refusal"]),
    ("A bird that cannot fly, as a kiwi.", ["A bird that cannot fly, as a kiwi."], []),
    ("Sure! Here are three sentences:\n- It is red.", ["It is red."], ["header"]),
    ('Sure! Here is a caption: "A cat on a sofa."', ["A cat on a sofa."], []),
    ("It is red. Let me know if you need more!", ["It is red."], ["chatter"]),
    ("<think>Hm. A cat.</think>\nIt is red.", ["It is red."], []),
    ("# Wren\nIt is brown.", ["It is brown."], []),
    ("![wren](https://i.", [], ["empty"]),
    (
        "The head is round and rather small beside the long\nbody, with a short bill.",
        ["The head is round and rather small beside the long body, with a short bill."],
        [],
    ),
    ("The coat is short\x00 and\u2028soft.", ["The coat is short and soft."], []),
]


@pytest.mark.parametrize(("answer", "kept", "dropped"), CASES)
def test_clean_sentences(answer: str, kept: list[str], dropped: list[str]) -> None:
    found, reasons = clean(answer, "sentences", "stop")
    assert (found, sorted(reasons.elements())) == (kept, dropped)


@pytest.mark.parametrize(
    ("answer", "kept", "dropped"),
    [
        ("- black, grey, or brown fur\n- pointed ears.", ["black, grey, or brown fur", "pointed ears"], []),
        ("Useful features:\n1. big ears\n2. a long tail\nThese tell it apart.", ["big ears", "a long tail"], 2),
        ("short fur\n- big ears\n- a long tail", ["short fur", "big ears", "a long tail"], []),
        ("short fur; big ears; a long tail", ["short fur", "big ears", "a long tail"], []),
        ("I'm sorry, I can't help with that.", [], ["refusal"]),
    ],
)
def test_clean_lists(answer: str, kept: list[str], dropped: list[str] | int) -> None:
    found, reasons = clean(answer, "list", "stop")
    assert found == kept
    assert (reasons.total() if isinstance(dropped, int) else sorted(reasons.elements())) == dropped


@pytest.mark.parametrize(
    ("answer", "parse", "kept"),
    [
        ("It is red. It is as long as", "sentences", ["It is red."]),
        ("It is red. It is up to 3.", "sentences", ["It is red."]),
        ("It is red. It is long.", "sentences", ["It is red.", "It is long."]),
        ("- red\n- lon", "list", ["red"]),
        ("<think>It could be", "sentences", []),
    ],
)
def test_unfinished_end_is_dropped(answer: str, parse: Parse, kept: list[str]) -> None:
    assert clean(answer, parse, "length")[0] == kept


@given(st.text(alphabet=st.sampled_from("aBé .!?:;,-*\"'’“\n\t1)(<>#_[]"), max_size=60) | st.text(max_size=60))
def test_clean_gives_single_lines_with_words(answer: str) -> None:
    for text in clean(answer, "sentences")[0] + clean(answer, "list")[0]:
        assert text == " ".join(text.split())
        assert sum(map(str.isalnum, text)) >= 2
