"""The thesis's curves of voting and best-of-n: appendix figures 1 to 6.

Llemma, fine-tuned and judged on PRM800K's easy problems, on MATH500. Accuracies in
percent, means over sub-samples of one pool; None: not printed.
"""

import math

COUNTS = (1, 4, 16, 64, 256, 1024)
GROUPS = ("easy", "hard", "all")
# Easy, hard and all; of each, the accuracies with `COUNTS` answers.
CURVES = {
    ("easy", None, "majority"): (
        (27.84, 36.19, 49.84, 55.36, 57.03, 56.76),
        (6.84, 9.20, 14.14, 17.03, 18.38, 19.19),
        (16.87, 22.07, 31.09, 35.27, 36.78, 37.10),
    ),
    ("easy", "orm", "weighted"): (
        (28.00, 42.89, 53.16, 58.04, 60.25, 60.81),
        (6.92, 11.95, 15.87, 18.69, 20.51, 21.23),
        (16.97, 26.66, 33.61, 37.41, 39.42, 39.98),
    ),
    ("easy", "prm", "weighted"): (
        (28.02, 40.48, 50.42, 56.40, 59.14, 60.19),
        (6.90, 10.79, 14.95, 18.12, 20.89, 22.77),
        (16.99, 24.95, 31.83, 36.35, 39.05, 40.47),
    ),
    ("easy", "oprm", "weighted"): (
        (28.23, 41.63, 51.72, 58.29, 62.07, 63.20),
        (6.93, 11.41, 15.69, 19.25, 22.39, 24.12),
        (17.07, 25.84, 32.85, 37.86, 41.27, 42.74),
    ),
    ("easy", "large", "weighted"): (
        (28.22, 43.20, 54.09, 60.77, 64.65, 66.54),
        (6.83, 12.22, 17.35, 21.50, 25.25, 27.81),
        (17.03, 26.97, 34.83, 40.16, 44.04, 46.27),
    ),
    ("easy", "orm", "best"): (
        (28.21, 41.76, 48.51, 50.90, 51.29, 50.91),
        (6.88, 11.50, 14.06, 15.60, 16.25, 16.34),
        (17.06, 25.91, 30.44, 32.38, 32.88, 32.77),
    ),
    ("easy", "prm", "best"): (
        (28.02, 38.85, 45.54, 49.06, 50.21, 49.09),
        (6.93, 10.35, 12.88, 14.70, 15.67, 15.66),
        (17.00, 23.95, 28.40, 31.05, 32.09, 31.55),
    ),
    ("easy", "oprm", "best"): (
        (27.87, 41.69, 49.23, 52.86, 54.65, 55.06),
        (6.80, 11.84, 15.26, 17.66, 19.38, 19.91),
        (16.81, 26.04, 31.41, 34.42, 36.17, 36.66),
    ),
    ("easy", "large", "best"): (
        None,
        None,
        (16.9, None, 35.3, None, 42.6, 44.3),
    ),
    ("large", None, "majority"): (
        None,
        (10.19, 13.69, 20.59, 24.75, 26.09, 26.41),
        (23.21, 29.80, 40.28, 45.16, 46.52, 46.53),
    ),
    ("large", "oprm", "weighted"): (
        None,
        None,
        (23.31, 33.58, 41.04, 46.12, 49.10, 50.67),
    ),
    ("large", "oprm", "best"): (
        None,
        None,
        (23.27, 33.69, 38.75, 41.41, 42.69, 42.96),
    ),
    ("large", "large", "weighted"): (
        None,
        (10.34, 17.18, 23.04, 27.34, 30.50, 32.58),
        (23.26, 34.83, 42.99, 48.17, 50.98, 52.45),
    ),
    ("large", "large", "best"): (
        None,
        None,
        (23.41, 34.88, 41.86, 45.26, 46.25, 46.31),
    ),
}
GREEDY = {"easy": 28.2, "hard": 12.2, "all": 19.8}  # of 7B, Table 6.2


def nearest(votes: int) -> int:
    """The number of answers of the thesis's that ours are compared with.

    The nearest by its ratio to ours; of two as near, the smaller.
    """
    return min(COUNTS, key=lambda count: abs(math.log(count / votes)))


def percent(way: tuple, group: str, count: int) -> float | None:
    """The thesis's accuracy of a way with so many answers; None: not printed.

    Ways are those of `reranked.Reranked`; greedy decoding is the same at all counts.
    """
    if way[1] == "greedy":
        return GREEDY[group] if way[0] == "easy" else None
    curve = CURVES[way][GROUPS.index(group)]
    return None if curve is None else curve[COUNTS.index(count)]


def ahead(a: tuple, b: tuple, group: str, count: int) -> float | None:
    """Points by which way `a` is ahead of way `b`; None: one is not printed."""
    pair = [percent(way, group, count) for way in (a, b)]
    return None if None in pair else round(pair[0] - pair[1], 2)


def compared_at(a: tuple, b: tuple, group: str, votes: int) -> int:
    """The first count, from the nearest on, at which `a` is ahead of `b` in the thesis.

    Not always the nearest itself: its outcome model leads with 4 and 16 answers, its
    mixed one from 64 on. Raises ValueError where `a` is not ahead with more, either.
    """
    for count in COUNTS[COUNTS.index(nearest(votes)) :]:
        if (ahead(a, b, group, count) or 0) > 0:
            return count
    raise ValueError(f"{a} is not ahead of {b} on {group} problems in the thesis")


def said(a: tuple, b: tuple, group: str, votes: int) -> str:
    """A sentence with the thesis's numbers, with a space before it.

    With as many answers as ours, or the nearest; where `a` is ahead; and with most.
    """
    parts = []
    counts = (nearest(votes), compared_at(a, b, group, votes), COUNTS[-1])
    for count in dict.fromkeys(counts):
        pair = [percent(way, group, count) for way in (a, b)]
        if None not in pair:
            words = f"with {count} answer{'s' * (count > 1)}"
            parts.append(f"{pair[0]:.1f}% against {pair[1]:.1f}% {words}")
    return f" In the thesis, {'; '.join(parts)}." * bool(parts)
