"""What asking costs: estimated before anything is sent, and counted from the log afterwards.

`python -m stages.describe --estimate [--dataset D] [--source S]` prints the estimate and sends nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import add

from tabulate import tabulate

from stages.common import paths
from stages.common.errors import UserError
from stages.common.params import Describe, Params, Prices
from stages.common.requests import Request
from stages.common.responses import Records, Tokens
from stages.common.workers import output_of
from stages.describe.plan import Plan, make_plan, names_of_table
from stages.describe.prompts import ClassName

CHARACTERS_A_TOKEN = 4
"""About, for English text. Each model has its own tokenizer, which servers do not reveal."""


@dataclass(frozen=True)
class Estimate:
    """What one source of one data set would cost. `output` is None if nothing limits it."""

    dataset: str
    source: str
    requests: int
    missing: int
    under_way: int
    input: int
    output: int | None
    from_log: bool
    as_is: bool = False


def estimate(dataset: str, source: str, plan: Plan, model: str) -> Estimate:
    """Tokens by the mean of the log's answers of `model`; without them by characters and by max_tokens."""
    under_way = plan.records.under_way()
    missing = [request for request in plan.missing() if request.digest not in under_way]
    waiting = len(plan.missing()) - len(missing)
    paid = plan.records.tokens.get(model, Tokens())
    counted = paid.replies - paid.unknown
    output: int | None
    if counted:
        given, output = (-(-total * len(missing) // counted) for total in (paid.input, paid.output))
    else:
        given = sum(map(_input_tokens, missing))
        bound = plan.prompts.max_tokens if plan.prompts else 0
        output = 0 if not missing else None if bound is None else bound * len(missing)
    as_is = plan.found is not None
    return Estimate(
        dataset, source, len(plan.requests), len(missing), waiting, given, output, counted > 0 or not missing, as_is
    )


def _input_tokens(request: Request) -> int:
    texts = [message["content"] for message in request.body.get("messages", [])] or [request.body["prompt"]]
    return -(-sum(map(len, texts)) // CHARACTERS_A_TOKEN)


def print_estimate(params: Params, dataset: str | None, source: str | None) -> None:
    """Print a table of what is missing and what it would cost, of all data sets and sources or of those given.

    Raises:
        UserError: some cannot be estimated, because an input is missing or wrong. The table has the others.
    """
    rows: list[Estimate] = []
    problems: list[str] = []
    names = cache(names_of)
    for key in [dataset] if dataset else params.datasets:
        for name in [source] if source else params.for_dataset(key).sources:
            try:
                plan = make_plan(key, name, params.describe, names)
            except UserError as error:
                problems.append(str(error))
            else:
                rows.append(estimate(key, name, plan, params.describe.model))
    if rows:
        print("\n".join(format_table(rows, params.describe)), flush=True)
    if problems:
        raise UserError("; ".join(dict.fromkeys(problems)))


def names_of(dataset: str) -> list[ClassName]:
    """The classes of a data set: of its table, or before `ingest` has run of what its reader finds.

    Raises:
        UserError: the table cannot be read, or what the reader says.
    """
    if paths.classes(dataset).exists():
        return names_of_table(dataset)
    # In a process of its own, because stages do not import each other.
    found = json.loads(output_of("stages.ingest.names", "--dataset", dataset))
    return [ClassName(*entry) for entry in found]


def format_table(rows: Sequence[Estimate], settings: Describe) -> list[str]:
    """The lines of the table, and a line that explains its numbers."""
    prices = settings.prices
    head = ["data set", "source", "requests", "missing", "input tokens", "output tokens"]
    head += ["USD"] if prices else []
    body = [[row.dataset, row.source, *_cells([row], prices), _note(row)] for row in rows]
    body += [["all", "", *_cells(rows, prices), ""]] if len(rows) > 1 else []
    sides = ["left", "left", *["right"] * (len(head) - 2), "left"]
    text = tabulate([[*head, ""], *body], (), "plain", disable_numparse=True, colalign=sides)
    lines = [line.rstrip() for line in text.splitlines()]
    marks = f"~ characters / {CHARACTERS_A_TOKEN}; <= max_tokens, an upper bound; without a mark: means of the log"
    return [*lines, f"{marks} ({settings.model}). Nothing was sent."]


def _cells(rows: Sequence[Estimate], prices: Prices | None) -> list[str]:
    exact = all(row.from_log for row in rows)
    given = sum(row.input for row in rows)
    outputs = [row.output for row in rows if row.output is not None]
    output = sum(outputs) if len(outputs) == len(rows) else None
    below = "" if exact else "<= "
    cells = [f"{sum(row.requests for row in rows):,}", f"{sum(row.missing for row in rows):,}"]
    cells += [f"{'' if exact else '~ '}{given:,}", "no limit" if output is None else f"{below}{output:,}"]
    if prices:
        cells.append("no limit" if output is None else below + _usd(given, output, prices))
    return cells


def _note(row: Estimate) -> str:
    if row.as_is:
        return "a file is there and used as it is"
    return f"{row.under_way:,} more are in a batch" if row.under_way else ""


def _usd(given: int, output: int, prices: Prices) -> str:
    usd = (given * prices.input + output * prices.output) / 1e6
    return f"{usd:,.2f}" if usd >= 1 or not usd else f"{usd:.6f}"


def total(tokens: Iterable[Tokens]) -> Tokens:
    return reduce(add, tokens, Tokens())


def explain_spent(before: dict[str, Tokens], records: Records, settings: Describe) -> str:
    """What was spent since the log's tokens were `before`, and in total; money at the model's present prices."""
    everything = records.tokens.get(settings.model, Tokens())
    now = everything - before.get(settings.model, Tokens())
    text = f"spent now {_explain(now, settings.prices)}, in all {_explain(everything, settings.prices)}"
    others = total(tokens for model, tokens in records.tokens.items() if model != settings.model)
    if others.replies:
        text += f", and by other models {_explain(others, None)}"
    if everything.unknown:
        text += f" ({everything.unknown} replies came without a count)"
    return text


def _explain(tokens: Tokens, prices: Prices | None) -> str:
    text = f"{tokens.input:,} + {tokens.output:,} tokens"
    return f"{text} (USD {_usd(tokens.input, tokens.output, prices)})" if prices else text
