"""A search tree as a picture: a state to a line, children below, set to the right."""

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

from research.plots import COLOURS, INK

INDENT, ROW, MARGIN, RADIUS = 26, 24, 16, 8  # pixels
WIDTH, LETTER = 680, 6.3  # of the page's text; of a letter, about
LEAST = 40  # letters that a line always has
MOST = 60  # states that a picture shows
TACTIC = 44  # letters of a tactic that are shown


def draw(
    nodes: Sequence[dict], thought: Callable[[str], str] = lambda output: ""
) -> str:
    """SVG text of `best_first.Node`s as rows, parents before their children.

    A number is the place in the order of expansion; states without one were left in the
    queue. Equal states that one state's candidates led to are drawn once. The proof, if
    there is one, is drawn in colour. Beyond MOST states, those that were never expanded
    are left out. thought: of what the model wrote, for the text that a state shows when
    pointed at.
    """
    counts = merged(nodes)
    kept = shown(nodes, counts)
    proof = on_proof(nodes)
    places = layout(nodes, kept)
    # Lines first, those of the proof last: no line is drawn over a name.
    ordered = sorted(
        (i for i in kept if nodes[i]["parent"] >= 0), key=proof.__contains__
    )
    lines = [_line(places, i, nodes[i]["parent"], i in proof) for i in ordered]
    wide = max(WIDTH, max(x for x, _ in places.values()) + round(LEAST * LETTER))
    high = max(y for _, y in places.values()) + MARGIN
    marks = [
        f"<g><title>{escape(told(nodes, i, thought))}</title>"
        f"{_mark(nodes[i], *places[i], counts[i], i in proof, wide)}</g>"
        for i in kept
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" '
        f'width="{wide}" height="{high}">{"".join(lines)}{"".join(marks)}</svg>'
    )


def merged(nodes: Sequence[dict]) -> dict[int, int]:
    """{state that is drawn: how many of its parent's candidates led to it}.

    Of equal ones that is the one that was expanded or has no goals left, or the first.
    """
    groups: dict[tuple[int, str], list[int]] = {}
    for i, node in enumerate(nodes):
        groups.setdefault((node["parent"], node["state"]), []).append(i)
    counts: dict[int, int] = {}
    for group in groups.values():
        used = [i for i in group if nodes[i]["expanded"] or nodes[i]["closed"]]
        kept = used or group[:1]
        counts |= dict.fromkeys(kept, 1)
        counts[kept[0]] += len(group) - len(kept)
    return dict(sorted(counts.items()))


def shown(nodes: Sequence[dict], drawn: Sequence[int]) -> list[int]:
    """Which of these are drawn: all, or those that were expanded or close the proof."""
    if len(drawn) <= MOST:
        return list(drawn)
    proof = on_proof(nodes)
    # A parent was expanded before its children, so what is kept hangs together.
    ordered = sorted(
        (i for i in drawn if nodes[i]["expanded"] and i not in proof),
        key=lambda i: nodes[i]["expanded"],
    )
    return sorted([*proof, *ordered[: max(0, MOST - len(proof))]])


def on_proof(nodes: Sequence[dict]) -> set[int]:
    """The nodes from the start to the one that closed the proof."""
    at = next((i for i, node in enumerate(nodes) if node["closed"]), -1)
    found = set()
    while at >= 0:
        found.add(at)
        at = nodes[at]["parent"]
    return found


def layout(nodes: Sequence[dict], kept: Sequence[int]) -> dict[int, tuple[int, int]]:
    """(x, y) of every node that is drawn: x by depth, a line for each, and a node's
    children below it before what comes next."""
    children: dict[int, list[int]] = {i: [] for i in kept}
    for i in kept:
        if nodes[i]["parent"] >= 0:
            children[nodes[i]["parent"]].append(i)
    places: dict[int, tuple[int, int]] = {}
    waiting = [(kept[0], 0)]
    while waiting:
        i, depth = waiting.pop()
        places[i] = (MARGIN + INDENT * depth, MARGIN + ROW * len(places))
        waiting += [(child, depth + 1) for child in reversed(children[i])]
    return places


def told(nodes: Sequence[dict], i: int, thought: Callable[[str], str]) -> str:
    """How a state came about, the state, and what did not apply there."""
    node = nodes[i]
    said = thought(node["output"])
    failed = Counter(tactic for tactic, _ in node["failed"])
    parts = [
        f"“{said}”" * bool(said),
        f"▸ {node['tactic']}" * bool(node["tactic"]),
        node["state"],
        *(f"✕ {n} × {tactic}" for tactic, n in failed.most_common()),
    ]
    return "\n".join(part for part in parts if part)


def _line(places: dict, i: int, parent: int, proof: bool) -> str:
    """From below the parent's circle down, then right to the child's."""
    (px, py), (x, y) = places[parent], places[i]
    colour, width = (COLOURS[0], 2) if proof else (INK, 1)
    return (
        f'<path d="M{px},{py + RADIUS} V{y} H{x - RADIUS}" fill="none" '
        f'stroke="{colour}" stroke-width="{width}" stroke-opacity="0.7"/>'
    )


def _mark(node: dict, x: int, y: int, count: int, proof: bool, wide: int) -> str:
    """A state's circle; behind it the tactic that led here, counts, and the goal."""
    colour = COLOURS[0] if proof else INK
    circle = (
        f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="'
        f'{colour if node["closed"] else "none"}" stroke="{colour}" '
        'stroke-width="1.5"/>'
    )
    number = ""
    if node["expanded"]:
        number = (
            f'<text x="{x}" y="{y + 3.5}" fill="{colour}" text-anchor="middle" '
            f'font-family="sans-serif" font-size="10">{node["expanded"]}</text>'
        )
    tactic = _short(node["tactic"] or "start", TACTIC)
    more = f" ×{count}" * (count > 1)
    failed = f"{len(node['failed'])} failed" * bool(node["failed"])
    goal = "no goals" if node["closed"] else _goal(node["state"])
    room = int((wide - x) / LETTER) - len(tactic + more + failed) - 6
    goal = _short(goal, room) if room > 8 else ""
    return (
        f'{circle}{number}<text x="{x + RADIUS + 6}" y="{y + 4}" fill="{colour}" '
        f'font-family="sans-serif" font-size="12"><tspan font-weight="600">'
        f"{escape(tactic)}</tspan><tspan>{more}</tspan>"
        f'<tspan dx="6" font-size="11">{failed}</tspan>'
        f'<tspan dx="10" font-size="11">{escape(goal)}</tspan></text>'
    )


def _goal(state: str) -> str:
    """The first goal's target, and how many goals follow."""
    goals = state.split("\n\n")
    targets = [line for line in goals[0].split("\n") if line.startswith("⊢ ")]
    more = f"  (+{len(goals) - 1})" * (len(goals) > 1)
    return (targets[0] if targets else " ".join(goals[0].split())) + more


def _short(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
