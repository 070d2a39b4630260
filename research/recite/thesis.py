"""What the thesis reports (chapter 4), to stand beside what is measured here."""

from research.recite import errors

# Exact match and F1, in per cent (thesis, tables 4.1 to 4.3).
TABLE_4_1 = {
    "Natural Questions": {
        "direct": ("25.76/36.47", "10.16/20.17", "14.97/22.93", "31.45/44.75"),
        "recite": ("28.70/39.76", "14.16/23.13", "17.84/26.74", "35.84/49.12"),
    },
    "TriviaQA": {
        "direct": ("65.38/71.85", "48.73/54.32", "45.90/50.68", "81.84/86.09"),
        "recite": ("65.84/72.10", "53.42/58.69", "49.02/54.22", "83.50/88.03"),
    },
    "HotpotQA": {
        "direct": ("20.51/28.90", "16.99/24.99", "16.70/25.21", "28.32/39.03"),
        "chain of thought": (
            "23.73/32.80", "17.68/24.87", "16.89/24.03", "34.38/45.50",
        ),
        "recite": ("26.46/35.67", "19.04/27.32", "17.77/26.58", "37.11/48.37"),
    },
}  # fmt: skip
TABLE_4_2 = {  # with 5 and 64 exemplars
    "direct": ("25.76/36.47", "28.98/40.13"),
    "recite": ("28.70/39.76", "31.34/42.48"),
    "diversified": ("32.20/44.02", "33.23/45.29"),
}
TABLE_4_3 = {
    "direct": ("10.16/20.17", "31.45/44.75"),
    "gold": ("41.02/55.73", "49.32/64.32"),
    "retrieved": ("16.31/27.66", "33.20/47.45"),
    "recite": ("14.16/23.13", "35.84/49.12"),
}
# Shares of questions and of paths, TriviaQA, in per cent (tables 4.4 and 4.5). That of
# the right paths is printed as 20.07 for OPT-30B; with 20.70, which is 212 of 1,024
# questions, the column adds up to 100.
TABLE_4_4 = {
    errors.MAJORITY: (53.42, 49.02),
    errors.NOT_RECITED: (21.09, 22.27),
    errors.RECITED: (5.66, 8.01),
    errors.PATH: (19.82, 20.70),
}
TABLE_4_5 = {
    (True, True): (33.60, 30.06),
    (True, False): (7.87, 9.79),
    (False, True): (12.10, 12.57),
    (False, False): (46.44, 47.58),
}
ANSWERED = TABLE_4_5[True, True], TABLE_4_5[False, True]
SYSTEMS = ("PaLM-62B", "UL2-20B", "OPT-30B", "Codex")
SYSTEMS_4_3 = ("UL2-20B", "Codex")

# Table 4.1 of Natural Questions with more exemplars than 5.
MORE_EXEMPLARS = {
    (64, "PaLM-62B"): {"direct": "28.98/40.13", "recite": "31.34/42.48"},
    (16, "UL2-20B"): {"direct": "12.70/21.97", "recite": "14.94/24.29"},
}
USUAL = {"Natural Questions": 5, "TriviaQA": 5, "HotpotQA": 4}


def answers(system: str, data: str, shots: int, method: str) -> str | None:
    """Exact match / F1 in Tables 4.1 and 4.3; None where they have none."""
    if data == "Natural Questions" and (shots, system) in MORE_EXEMPLARS:
        return MORE_EXEMPLARS[shots, system].get(method)
    if shots != USUAL[data]:
        return None
    found = TABLE_4_1[data].get(method)
    if found is not None:
        return found[SYSTEMS.index(system)]
    contexts = TABLE_4_3.get(method) if data == "Natural Questions" else None
    if contexts is None or system not in SYSTEMS_4_3:
        return None
    return contexts[SYSTEMS_4_3.index(system)]


def differences(better: str, worse: str, hops: int) -> list[float]:
    """Of exact match in points, of all systems and data where both methods are.

    Those of questions of so many hops, in the first of Tables 4.1 to 4.3 that has them.
    worse: may be "one path", the mean of all of them (Tables 4.4 and 4.5).
    """
    if worse == "one path":
        voted, right = TABLE_4_4[errors.MAJORITY], zip(*ANSWERED, strict=True)
        pairs = zip(voted, right, strict=True)
        return [v - sum(cells) for v, cells in pairs] if hops == 1 else []
    first = [t for data, t in TABLE_4_1.items() if (data == "HotpotQA") == (hops == 2)]
    for tables in (first, *([[TABLE_4_2], [TABLE_4_3]] if hops == 1 else [])):
        found = [
            float(b.partition("/")[0]) - float(w.partition("/")[0])
            for table in tables
            if better in table and worse in table
            for b, w in zip(table[better], table[worse], strict=True)
        ]
        if found:
            return found
    return []
