"""Sends requests to an LVLM, and finds out what the endpoint refuses and whether it sees images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stages.common.endpoint import Failure, Outcome, ask_all, summarise
from stages.common.errors import UserError, warn
from stages.common.responses import LogWriter, Records, Reply
from stages.finer.ask.questions import ChatRequest, Lvlm, Question, Turn
from stages.finer.params import Ask

REFUSED = ("refused", "content filter", "no text")
"""Refusals by the model or its filter. They are final, because the same question would be refused again."""

REFUSED_BY_SERVER = ("HTTP 400", "HTTP 413", "HTTP 415", "HTTP 422")
"""Refusals of one request by the server, which may answer others."""

TRIED_FIRST = 4
"""Images that are asked about before all the others, to find out whether the endpoint takes any."""


@dataclass(frozen=True)
class Connection:
    """Where an LVLM is reached; `vision` if the user says that it sees images."""

    url: str | None
    key: str
    vision: bool = False


def refused_before(records: Records) -> dict[str, str]:
    """Digests of requests that the model refused, which cost money, and the reasons."""
    return {digest: reason for (digest, _), reason in records.unusable.items() if reason in REFUSED}


@dataclass
class Asker:
    """A connection to an LVLM, with the requests that it has refused."""

    lvlm: Lvlm
    settings: Ask
    connection: Connection
    log: LogWriter
    received: int = 0

    def __post_init__(self) -> None:
        self.refused = refused_before(self.log.records)

    def ask(self, requests: Sequence[ChatRequest]) -> None:
        """Get an answer to each of `requests` into the log, or note that it was refused.

        Raises:
            UserError: answers that are missing for another reason, or an endpoint that takes no images.
        """
        outcome, wanted = self._send(requests)
        self._check_images(requests, outcome.failures)
        self._check_endpoint(outcome, requests, wanted)
        for failure in outcome.failures:
            self.refused[failure.request.digest] = f"{failure.reason}{_said(failure)}"

    def ask_second(self, requests: Sequence[ChatRequest]) -> None:
        """As `ask`, for ATTRSEEK's second turns. A server may refuse all of them after it answered the first turns.

        Raises:
            UserError: answers that are missing for another reason than a refusal.
        """
        outcome, wanted = self._send(requests)
        self._check_endpoint(outcome, requests, wanted)
        for failure in outcome.failures:
            by_server = " in the second turn" if failure.reason in REFUSED_BY_SERVER else ""
            self.refused[failure.request.digest] = f"{failure.reason}{by_server}{_said(failure)}"
        refused = [failure for failure in outcome.failures if failure.reason in REFUSED_BY_SERVER]
        if refused:
            warn(
                f"'{self.lvlm.key}' refuses the second turn of ATTRSEEK ({summarise(refused, 'image')}); these rows "
                "have no answer, all others are kept. Once the server takes them (a longer context), run `python -m "
                f"stages.finer.ask --lvlm {self.lvlm.key}`; or take attrseek out of finer.ask.prompting in params.yaml"
            )

    def _send(self, requests: Sequence[ChatRequest]) -> tuple[Outcome, int]:
        """Send the requests that are neither answered nor refused; the outcome, and how many there were."""
        settled = self.log.records.answers.keys() | self.refused.keys()
        wanted = list({request.digest: request for request in requests if request.digest not in settled}.values())
        if not wanted:
            return Outcome(), 0
        # Once an endpoint has answered, such a status is about the request and not about the endpoint.
        own = REFUSED_BY_SERVER if self.log.records.answers else ()
        key, url = self.connection.key, self.connection.url
        outcome = ask_all(wanted, self.settings, key, self.log, url, own_faults=own, final=REFUSED)
        self.received += outcome.received
        return outcome, len(wanted)

    def _check_images(self, requests: Sequence[ChatRequest], failures: Sequence[Failure]) -> None:
        """Refuse an endpoint that has refused images and never taken one."""
        shown = {request.digest for request in requests if request.turns[0].picture}
        refused = [f for f in failures if f.reason in REFUSED_BY_SERVER and f.request.digest in shown]
        answered = self.log.records.answers.keys()
        if failures and not answered:
            raise UserError(
                f"'{self.lvlm.key}' answers nothing ({summarise(failures, 'image')}): check the endpoint, and what is "
                "sent with each question (finer.ask, and `settings` of the endpoint, in params.yaml)"
            )
        if refused and not shown & answered:
            raise UserError(
                f"'{self.lvlm.key}' refuses every image ({summarise(refused, 'image')}): does the model take images? "
                f"If it does, look at finer.ask in params.yaml; what was received is kept in {self.log.path}"
            )

    def _check_endpoint(self, outcome: Outcome, requests: Sequence[ChatRequest], wanted: int) -> None:
        """Stop if answers failed for another reason than the request itself."""
        lost = [f for f in outcome.failures if f.reason not in (*REFUSED, *REFUSED_BY_SERVER)]
        if lost or outcome.gave_up:
            gave_up = f"{outcome.gave_up}, so asking stopped: " if outcome.gave_up else ""
            answered = {bool(r.turns[0].picture) for r in requests if r.digest in self.log.records.answers}
            sight = " (only questions without an image were answered: does the model take images?)"
            why = summarise(lost or outcome.failures, "image") + (sight if answered == {False} else "")
            raise UserError(
                f"{wanted - outcome.received} of {wanted} answers of '{self.lvlm.key}' are missing: {gave_up}"
                f"{why}; the {outcome.received} received are kept in "
                f"{self.log.path}, and a rerun asks only for the rest"
            )

    def check_sight(self, questions: Sequence[Question], images: int | None = None) -> bool:
        """Refuse an endpoint that drops images silently: a question must take more tokens with its image than without.

        This costs one answer for each log. If an endpoint counts no tokens, a line says so. With `vision: true` the
        counts are not compared.

        Args:
            images: how many of the first images are tried; None for all.

        Returns:
            Whether the check is done. False if no question about these images was answered.

        Raises:
            UserError: the endpoint does not see images.
        """
        by_image = {q.sample.idx: q.first(self.lvlm) for q in reversed(questions) if q.modality != "text"}
        if not by_image:
            return True
        tried = list(by_image.values())[::-1][:images]
        if self.connection.vision:
            self.ask(tried)
            return True
        words = replace(tried[0], turns=(Turn("user", tried[0].turns[0].text),))
        self.ask([*tried, words])
        answers = self.log.records.answers
        seeing = next((request for request in tried if request.digest in answers), None)
        if seeing is None:
            return False
        blind = replace(seeing, turns=(Turn("user", seeing.turns[0].text),))
        self.ask([blind])
        counts = [_prompt_tokens(answers.get(request.digest)) for request in (seeing, blind)]
        if counts[0] is None or counts[1] is None:
            print(f"'{self.lvlm.key}' counts no tokens: whether it sees the images cannot be checked", flush=True)
        elif counts[0] <= counts[1]:
            raise UserError(
                f"'{self.lvlm.key}' does not see images: a question took {counts[0]} tokens with its image and "
                f"{counts[1]} without; name a vision-language model under finer in params.yaml{self._vision_remedy()}"
            )
        return True

    def _vision_remedy(self) -> str:
        """The remedy for an endpoint that sees images without counting them; a served checkpoint counts them."""
        if self.lvlm.weights:
            return ""
        return f", or, if it does see them, set `vision: true` in finer.endpoints.{self.lvlm.key}"


def _said(failure: Failure) -> str:
    return f": {failure.detail}" if failure.detail else ""


def _prompt_tokens(reply: Reply | None) -> int | None:
    return reply.usage.get("prompt_tokens") if reply else None
