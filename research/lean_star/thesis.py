"""What the thesis reports (chapter 7), to stand beside what is measured here."""

# Solved, in per cent: miniF2F-test and LeanDojo, K = 32 (Table 7.1, InternLM2-7B).
TABLE_7_1 = {
    "sft": (29.5, 30.6),
    "cot": (32.8, 35.6),
    "star-joint-1": (34.0, 38.4),
    "star-joint-2": (34.8, 39.4),
}
BEST_FIRST = {"sft mean": "30.7%"}  # miniF2F-test
# miniF2F-test, pass@32, of the base model and of the plus model (Table 7.3).
TABLE_7_3 = {
    "sft": (29.5, 41.3),
    "cot": (32.8, 43.4),
    "star-joint-1": (34.0, 45.5),
    "ei-joint-1": (30.7, 43.0),
}


def share(table: dict, system: str, column: int) -> str | None:
    """A number of a table as it is printed; None where it has none."""
    found = table.get(system)
    return None if found is None else f"{found[column]:.1f}%"
