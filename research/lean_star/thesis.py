"""What the thesis reports (chapter 7), to stand beside what is measured here.

All in per cent. Its base model is InternLM2-7B, whose rounds of expert iteration are
joint; its plus model, InternLM2-plus-7B, continues. Where its text and its tables do
not agree, these are the tables' numbers.
"""

from typing import Literal

Era = Literal["base", "plus"]

# miniF2F-test, sampling, N = 50, by K (Tables 7.1 and 7.2).
MINIF2F: dict[Era, dict[int, dict[str, float]]] = {
    "base": {
        32: {
            "untuned": 28.7,
            "sft": 29.5,
            "cot": 32.8,
            "star-joint-1": 34.0,
            "star-joint-2": 34.8,
        },
        64: {"star-joint-2": 36.1},
    },
    "plus": {
        32: {"untuned": 40.9, "sft": 41.3, "cot": 43.4, "star-continue-1": 45.4},
        64: {"untuned": 42.2, "sft": 43.4, "cot": 45.5, "star-continue-1": 46.3},
    },
}
# LeanDojo, novel premises, K = 32 (Table 7.1).
LEANDOJO: dict[Era, dict[str, float]] = {
    "base": {
        "untuned": 29.7,
        "sft": 30.6,
        "cot": 35.6,
        "star-joint-1": 38.4,
        "star-joint-2": 39.4,
    },
    "plus": {},
}
# miniF2F-test, best-first search by the mean, S = 32: with the base model N = 50, with
# the plus model, as reproduced in the thesis, N = 1000.
BEST_FIRST: dict[Era, dict[str, float]] = {
    "base": {"untuned mean": 30.3, "sft mean": 30.7},
    "plus": {"untuned mean": 42.6},
}
# miniF2F-test, pass@32, of the base model and of the plus model (Table 7.3).
TABLE_7_3: dict[str, tuple[float, float]] = {
    "untuned": (28.7, 40.9),
    "sft": (29.5, 41.3),
    "cot": (32.8, 43.4),
    "star-1": (34.0, 45.5),
    "ei-1": (30.7, 43.0),
}
# Of others, cited by the thesis (Table 7.1): N, K and S as given, miniF2F-test.
CITED: dict[str, tuple[str, float]] = {
    "GPT-3.5, few-shot": ("50 / 1 / 1", 2.8),
    "GPT-4, few-shot": ("50 / 1 / 1", 11.9),
    "Polu et al., without RL": ("512 / 1 / 8", 24.6),
    "Llemma-34B": ("50 / 1 / 32", 25.8),
    "Llemma-7B": ("50 / 1 / 32", 26.2),
    "ReProver": ("50 / 1 / 64", 26.5),
    "InternLM2-34B": ("50 / 1 / 32", 29.5),
    "Polu et al., with RL": ("512 / 1 / 8", 29.6),
    "COPRA (GPT-4), K = 60": ("– / 60 / –", 29.9),
    "COPRA (GPT-4), K = 100": ("– / 100 / –", 30.7),
}


def percent(value: float | None) -> str | None:
    """A number as the thesis prints it; None where it has none."""
    return None if value is None else f"{value:.1f}%"


def minif2f(era: Era, system: str, k: int) -> str | None:
    """Solved of miniF2F-test by k trajectories."""
    return percent(MINIF2F[era].get(k, {}).get(system))


def leandojo(era: Era, system: str) -> str | None:
    """Solved of LeanDojo's theorems by 32 trajectories."""
    return percent(LEANDOJO[era].get(system))


def best_first(era: Era, name: str) -> str | None:
    """Solved of miniF2F-test by search; name: "<system> <score>"."""
    return percent(BEST_FIRST[era].get(name))


def table_7_3(system: str, era: Era) -> str | None:
    """Of a system whatever its regime: the thesis's table does not tell them apart."""
    name = system.replace("-joint", "").replace("-continue", "")
    found = TABLE_7_3.get(name)
    return None if found is None else percent(found[era == "plus"])
