"""Short names of systems, for tables; `results.title` says what they are."""

from research.lean_star.results import Results, title

SHORT = {
    "untuned": "as published",
    "sft": "SFT",
    "sft-data": "SFT, equal data",
    "sft-tokens": "SFT, equal tokens",
    "sft-longer": "SFT, longer",
    "cot": "Lean-CoT",
    "cot-longer": "Lean-CoT, longer",
    "cot-shuffled": "CoT, shuffled",
    "cot-filler": "CoT, filler",
    "star-joint": "STaR, joint {}",
    "star-continue": "STaR, cont. {}",
    "ei-joint": "EI, joint {}",
    "ei-continue": "EI, cont. {}",
    "ei-tokens": "EI, equal tokens",
}


def short(system: str) -> str:
    """A system in a word or two."""
    return title(system, SHORT)


def key(systems) -> list[list[str]]:
    """[short name, what it is] of the systems whose short name leaves something out."""
    pairs = ([short(system), title(system)] for system in systems)
    return [pair for pair in pairs if pair[0] != pair[1]]


def pairs_of(results: Results) -> list[tuple[str, str]]:
    """Systems with thoughts, each with what is the same without, where there are both.

    The first is Lean-CoT's, at equal data.
    """
    pairs = [("cot", "sft-data"), *([results.last] if results.last else [])]
    return [pair for pair in pairs if results.has(*pair)]
