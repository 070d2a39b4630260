"""Multipliers that make linear facts contradict each other, by simplex: untrusted."""

from data.minilean.polynomials import Work

MAX_PIVOTS = 200


def multipliers(facts: list[tuple[bool, dict]], work: Work) -> list[int] | None:
    """m with Σ m_i e_i a constant above 0, m_i >= 0 but for equations; None without.

    facts: (is an equation, its polynomial e), meaning e = 0 or e ≤ 0. Monomials other
    than 1 are taken as variables. Work is spent for every entry of every pivot.
    """
    columns: list[tuple[int, int]] = []  # (fact, sign)
    for i, (equation, _) in enumerate(facts):
        columns += [(i, 1), (i, -1)] if equation else [(i, 1)]
    # in the order in which they occur: that of a set is not the same everywhere
    monomials = {m: None for _, e in facts for m in e if m}
    # a row per monomial, which must cancel, and one for the constants: their sum is 1,
    # or above once the denominators are gone
    keys = [*monomials, frozenset()]
    table = [
        [sign * facts[i][1].get(key, 0) for i, sign in columns] + [int(not key)]
        for key in keys
    ]
    found = _feasible(table, work)
    if found is None:
        return None
    result = [0] * len(facts)
    for (i, sign), value in zip(columns, found, strict=True):
        result[i] += sign * value
    return result


def _feasible(table: list[list[int]], work: Work) -> list[int] | None:
    """x >= 0 with A x = k b, where table is A | b and b >= 0, k an int > 0; or None.

    Simplex on the sum of what is missing, with integers only (every pivot divides by
    the one before, exactly) and Bland's rule, which ends.
    """
    height, width = len(table), len(table[0])
    basis: list[int | None] = [None] * height
    goal = [sum(column) for column in zip(*table, strict=True)]
    scale = 1
    for _ in range(MAX_PIVOTS):
        if goal[-1] == 0:
            values = [0] * (width - 1)
            for row, column in zip(table, basis, strict=True):
                if column is not None:
                    values[column] = row[-1]
            return values
        enter = next((j for j in range(width - 1) if goal[j] > 0), None)
        if enter is None:
            return None
        leave = None
        for i, row in enumerate(table):
            if row[enter] <= 0:
                continue
            if leave is None:
                leave = i
                continue
            here = row[-1] * table[leave][enter]
            best = table[leave][-1] * row[enter]
            if here < best or (here == best and _order(basis, i, leave)):
                leave = i
        if leave is None:
            return None
        work.spend(height * width)
        pivot_row, pivot = table[leave], table[leave][enter]
        for i, row in enumerate(table):
            if i != leave:
                table[i] = _eliminated(row, pivot_row, enter, pivot, scale)
        goal = _eliminated(goal, pivot_row, enter, pivot, scale)
        basis[leave], scale = enter, pivot
    return None


def _eliminated(row, pivot_row, enter: int, pivot: int, scale: int) -> list[int]:
    factor = row[enter]
    return [
        (a * pivot - factor * b) // scale for a, b in zip(row, pivot_row, strict=True)
    ]


def _order(basis: list, i: int, j: int) -> bool:
    """Row i leaves rather than row j: artificial variables first, then by index."""
    if basis[i] is None or basis[j] is None:
        return basis[i] is None and basis[j] is not None
    return basis[i] < basis[j]
