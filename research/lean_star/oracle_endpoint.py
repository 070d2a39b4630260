"""An oracle behind an OpenAI-compatible endpoint: retries, resume, raw outputs kept.

    oracle = EndpointOracle(Endpoint("https://host/v1", "model"), folder)
    rows = annotate(oracle, select(theorems, counts), counts)

Every answer is appended to `folder/raw.jsonl` as it comes, whole, with what was asked;
an answer that is there is not asked for again, so a run that was cut short continues
with the same command. The key is read from the environment and written nowhere.
Defaults: the original's (temperature 0.7, top_p 0.95, 800 tokens, five tries).
"""

import dataclasses
import hashlib
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.errors import DataError
from research.lean_star.retrospect import VERSION, messages, parse

_LATER = (408, 409, 425, 429)  # worth another try, like everything from 500
_REFUSED = (400, 413, 422)  # of this question only: a content filter, a length


class EndpointError(ValueError):
    """The endpoint cannot be used as configured, or does not answer any more."""

    user_error = True


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where and how to ask. `key_variable`: the environment variable of the key.

    tries: for one question, with pauses of `pause_seconds`, doubled each time, or what
    the server asks for. patience: so many questions in a row without an answer, after
    all their tries, are the end of the run.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 800
    tries: int = 5
    timeout_seconds: float = 120.0
    pause_seconds: float = 1.0
    parallel: int = 8
    patience: int = 20

    def __post_init__(self):
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected http:// or https://, got {self.url!r}")
        for name in ("tries", "parallel", "patience", "max_tokens"):
            if getattr(self, name) < 1:
                got = getattr(self, name)
                raise ValueError(f"{name}: expected at least 1, got {got}")

    def body(self, state: str, tactic: str) -> dict:
        """The request about one step."""
        return {
            "model": self.model,
            "messages": messages(paired(state), paired(tactic)),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
        }


class EndpointOracle:
    """Thoughts of an `Endpoint`; `counts` tells what became of the questions."""

    def __init__(
        self,
        endpoint: Endpoint,
        folder: Path,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.endpoint, self.counts = endpoint, Counter()
        self._path, self._sleep = Path(folder) / "raw.jsonl", sleep
        self._writing = threading.Lock()
        self._unanswered = 0

    def __call__(self, steps: Sequence[tuple[str, str]]) -> list[str | None]:
        """The REASONING of every answer, None where there is none that can be read.

        Also none where the answer gives another tactic: its reasons are for that one.
        Raises EndpointError; what was answered until then is kept.
        """
        known = self._read()
        keys = [self._key(*step) for step in steps]
        missing = {k: s for k, s in zip(keys, steps, strict=True) if k not in known}
        self.counts["reused"] += len({*keys} - {*missing})
        with ThreadPoolExecutor(self.endpoint.parallel) as pool:
            asked = {
                key: pool.submit(self._answer, key, *step)
                for key, step in missing.items()
            }
            try:
                known |= {key: future.result() for key, future in asked.items()}
            finally:
                pool.shutdown(cancel_futures=True)
        return [
            self._thought(known[k], tactic)
            for k, (_, tactic) in zip(keys, steps, strict=True)
        ]

    def _thought(self, output: str | None, tactic: str) -> str | None:
        if output is None:
            self.counts["no_answer"] += 1
            return None
        try:
            answer = parse(output)
        except DataError:
            self.counts["unreadable"] += 1
            return None
        if answer.tactic.split() != tactic.split():
            self.counts["other_tactic"] += 1
            return None
        return answer.reasoning

    def _key(self, state: str, tactic: str) -> str:
        asked = {"prompt": VERSION, **self.endpoint.body(state, tactic)}
        text = json.dumps(asked, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _answer(self, key: str, state: str, tactic: str) -> str | None:
        """The text of the answer to one question; None after all tries, or refused."""
        reply = self._ask(self.endpoint.body(state, tactic))
        with self._writing:
            if reply is None:
                self._unanswered += 1
                self.counts["gave_up"] += 1
                if self._unanswered >= self.endpoint.patience:
                    raise EndpointError(
                        f"{self.endpoint.url}: no answer to {self._unanswered} "
                        "questions in a row; what was answered is kept, and the same "
                        "command continues"
                    )
                return None
            self._unanswered = 0
            self.counts["answered" if "choices" in reply else "refused"] += 1
            row = {"key": key, "state": state, "tactic": tactic, "reply": reply}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return content(reply)

    def _ask(self, body: dict) -> dict | None:
        """The reply, whole, or {"error"} of a question that is refused.

        None after all tries. Raises EndpointError where no question can be answered.
        """
        key = os.environ.get(self.endpoint.key_variable, "")
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        url = self.endpoint.url.rstrip("/") + "/chat/completions"
        data = json.dumps(body).encode()
        pause = self.endpoint.pause_seconds
        for attempt in range(self.endpoint.tries):
            request = urllib.request.Request(url, data, headers)
            wait = pause * 2**attempt
            try:
                with urllib.request.urlopen(
                    request, timeout=self.endpoint.timeout_seconds
                ) as response:
                    reply = json.loads(response.read())
                if content(reply) is not None:
                    return reply
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(2000).decode("utf-8", "replace")
                if error.code in _REFUSED:
                    return {"error": {"code": error.code, "message": said}}
                if error.code not in _LATER and error.code < 500:
                    raise EndpointError(
                        f"{url}: {error.code} {error.reason}: {said[:200]}"
                    ) from error
                wait = max(wait, _seconds(error.headers.get("Retry-After")))
            except (OSError, ValueError, http.client.HTTPException):
                pass  # no connection, or half an answer: the next try may be better
            self.counts["retries"] += 1
            if attempt + 1 < self.endpoint.tries:
                self._sleep(wait)
        return None

    def _read(self) -> dict[str, str | None]:
        """The answers so far, by key; a last line that was cut off is taken away."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        known, whole = {}, 0
        if not self._path.exists():
            return known
        for number, line in enumerate(self._path.read_bytes().splitlines(True), 1):
            if not line.endswith(b"\n"):
                os.truncate(self._path, whole)
                break
            whole += len(line)
            try:
                row = json.loads(line)
                known[row["key"]] = content(row["reply"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self._path}:{number}: expected an answer of this oracle"
                ) from error
        return known


def content(reply: dict) -> str | None:
    """The text of the first choice of a reply; None where there is none."""
    try:
        text = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None


def paired(text: str) -> str:
    """The text with every pair of surrogates as the one character that they mean.

    Raises DataError for half of a pair.
    """
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise DataError(f"half of a surrogate pair in {text[:60]!r}") from error


def _seconds(header: str | None) -> float:
    """Retry-After in seconds, at most a minute; 0 for none, or a date."""
    try:
        return min(max(float(header or 0), 0.0), 60.0)
    except ValueError:
        return 0.0
