"""Coq as a referee: `coqc`, where there is one, checks the embedded prover's terms.

    referee(certificates)  ->  a Verdict for each

A proof counts only if coqc accepts it and `Print Assumptions` names nothing but the
axioms that the certificate names itself.
"""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from data.minilean import coq, kernel
from research.lean_star.embedded import Certificate
from research.lean_star.environment import Verdict

COMMAND = "coqc"
CHECKER = "coqc"
MISSING = "coqc is not installed (Debian: apt-get install coq)"
AXIOMS = {"classic": kernel.CLASSICAL}
_CLOSED = "Closed under the global context"


class CoqMissing(RuntimeError):
    """There is no coqc on this machine."""


def available() -> bool:
    return shutil.which(COMMAND) is not None


def referee(certificates: Sequence[Certificate], seconds: float = 120) -> list[Verdict]:
    """What coqc says of each certificate, each in a file of its own.

    seconds: the limit for one file. Raises CoqMissing where coqc is not installed.
    """
    if not available():
        raise CoqMissing(MISSING)
    return [_one(certificate, seconds) for certificate in certificates]


def referee_together(
    certificates: Sequence[Certificate], seconds: float = 600
) -> list[Verdict]:
    """As `referee`, but in one file: fast, and all are refused where one is.

    Raises CoqMissing.
    """
    if not available():
        raise CoqMissing(MISSING)
    lemmas = []
    for i, (statement, proof, _) in enumerate(certificates):
        lemmas.append(coq.lemma(statement._replace(name=f"t{i}"), proof))
    began = time.perf_counter()
    code, output = _coqc(coq.HEADER + "\n".join(lemmas), seconds)
    spent = (time.perf_counter() - began) / max(len(certificates), 1)
    if code != 0:
        return [Verdict(False, CHECKER, (), spent, output[-2000:])] * len(certificates)
    found = assumptions(output)
    if len(found) != len(certificates):
        raise ValueError(f"{len(found)} answers of coqc to {len(certificates)} lemmas")
    return [
        _verdict(certificate, names, spent)
        for certificate, names in zip(certificates, found, strict=True)
    ]


def _one(certificate: Certificate, seconds: float) -> Verdict:
    began = time.perf_counter()
    text = coq.HEADER + coq.lemma(certificate.statement, certificate.proof)
    code, output = _coqc(text, seconds)
    spent = time.perf_counter() - began
    if code != 0:
        return Verdict(False, CHECKER, (), spent, output[-2000:])
    return _verdict(certificate, assumptions(output)[0], spent)


def _verdict(certificate: Certificate, names: tuple[str, ...], seconds: float):
    axioms = tuple(AXIOMS.get(name, name) for name in names)
    extra = sorted(set(axioms) - set(certificate.axioms))
    detail = f"rests on {', '.join(extra)} as well" if extra else ""
    return Verdict(not extra, CHECKER, axioms, seconds, detail)


def assumptions(output: str) -> list[tuple[str, ...]]:
    """The names that each `Print Assumptions` in coqc's output listed."""
    found: list[tuple[str, ...]] = []
    for block in re.split(r"^(?=Axioms:|Closed under)", output, flags=re.MULTILINE):
        if block.startswith(_CLOSED):
            found.append(())
        elif block.startswith("Axioms:"):
            names = re.findall(r"^([\w.']+)\s*:", block, flags=re.MULTILINE)
            found.append(tuple(name for name in names if name != "Axioms"))
    return found


def _coqc(text: str, seconds: float) -> tuple[int, str]:
    """(exit code, output) of coqc on a file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "proofs.v"
        path.write_text(text, encoding="utf-8")
        command = [COMMAND, "-q", str(path)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return 124, f"coqc took more than {seconds} s"
    return done.returncode, done.stdout + done.stderr
