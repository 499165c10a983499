"""What a reasoning model thought, and the marks that servers leave in an answer: neither is part of the answer.

`describe` and FINER read every answer through these functions. The response logs keep the answers as they came.
"""

from __future__ import annotations

import re

END_MARKS = (
    *("</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<|return|>", "<eos>", "<end_of_turn>"),
    *("<|end_of_text|>", "<|END_OF_TURN_TOKEN|>", "<|eom_id|>", "<｜end▁of▁sentence｜>", "<|user|>", "<pad>", "<s>"),
)
"""End-of-turn marks of models, which some servers leave in the text."""

_NAMES = r"(?:\w+:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis)"
_HEADER = r"(?:[^<]*(?:<\|constrain\|>[^<]*)?(?:<\|message\|>|<\|?\w*\|?\Z)|\s*<\|constrain\|>[^<]*\Z)?"  # or cut
_WORDS = (  # people write this as well
    rf"<{_NAMES}(?:\s+[\w-]+\s*=[^<>]*+)?\s*>",  # DeepSeek, Qwen, GLM; <thinking>; <seed:think>
    r"\[think(?:ing)?\]",  # Magistral
)
_OPENING = (
    rf"<\|{_NAMES}\|?>",
    r"<\|(?:begin_of|start)_(?:thought|thinking)\|>",  # OpenThinker, Command A
    r"◁think(?:ing)?▷",  # Kimi
    r"<unused94>(?:thought)?",  # MedGemma
    rf"<\|channel\|>(?!\s*final\b){_HEADER}",  # gpt-oss: every channel except the last
    r"\A\s*(?:analysis|commentary)\s*<\|message\|>",  # if the prompt begins the header
    r"<\|channel>\s*thought",
    r"(?-i:\A\s*analysis(?=[A-Z]))",  # gpt-oss behind a server that drops the special tokens
    r"\A\s*here(?:'s| is) my thought process:?",  # Granite
)
_CLOSING = (
    rf"<\|?/{_NAMES}\s*\|?>",
    r"<\|end_of_thought\|>|<\|end_(?:thought|thinking)\|>",
    r"◁/think(?:ing)?▷",
    r"\[/think(?:ing)?\]",
    r"<unused95>",
    rf"<\|channel\|>\s*final\b{_HEADER}",
    r"\A\s*(?:final\s*)?<\|message\|>",
    r"<channel\|>",
    r"<\|start\|>\s*assistant",  # another message: the one before was not the answer
    r"assistantfinal",
    r"here(?:'s| is) my response:?",
    # Text marked as the answer ends an unclosed thought.
    r"<(?:answer|response|final_answer|conclusion)>|<\|begin_of_solution\|>|<\|start_response\|>",
)
_MARK = re.compile(
    rf"(?P<closing>{'|'.join(_CLOSING)})|(?P<word>{'|'.join(_WORDS)})|{'|'.join(_OPENING)}", re.IGNORECASE
)
_WHOLE_MARKS = ("<think>", "<thinking>", "◁think▷", "[THINK]", "<|channel|>", "<|start|>assistant", "<unused94>")

_BOXED = re.compile(r"(?:(?<!\$)\$++)?+\\boxed\s*\{(?:\s*\\(?:text|math)\w*\s*\{([^{}]*)\}\s*|([^{}]*))\}\$*")
_ANSWER_MARKS = re.compile(
    "|".join(map(re.escape, END_MARKS)) + r"|</?(?:answer|response|final_answer|conclusion)>"
    r"|<\|(?:begin|end)_of_(?:box|solution)\|>|<\|(?:start|end)_response\|>"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\ufffd]",
    re.IGNORECASE,
)


def without_thoughts(answer: str) -> str:
    """The answer without what a reasoning model thought, whichever marks it uses.

    A thought without an opening mark begins with the text: the chat template has opened it. A thought without a closing
    mark lasts to the end: the model was cut while it thought. Of several texts outside thoughts the last is the answer.
    The one mark of an answer, inside of a line and without an end, is a word of it ("the button says [THINK]").
    """
    said: list[str] = []
    start, thinking = 0, False
    text = answer.partition("<|return|>")[0]
    marks = list(_MARK.finditer(text))
    if len(marks) == 1 and marks[0]["word"] and text[: marks[0].start()].rpartition("\n")[2].strip():
        return text
    for mark in marks:
        if mark["closing"]:
            if not thinking:
                said.clear()  # it is all thought
            start, thinking = mark.end(), False
        elif not thinking:
            said.append(text[start : mark.start()])
            thinking = True
    if not thinking:
        said.append(text[start:])
    last = next((part for part in reversed(said) if part.strip()), "")
    begun = last.strip().casefold()
    return "" if any(mark.casefold().startswith(begun) for mark in _WHOLE_MARKS) else last


def without_marks(answer: str) -> str:
    """The answer without boxes, answer tags, ends of turns, control characters and halves of characters.

    What boxes and tags enclose stays.
    """
    return _ANSWER_MARKS.sub("", _BOXED.sub(lambda box: box[1] or box[2] or "", answer))
