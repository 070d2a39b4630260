"""A search tree as a picture: from left to right, each state with its tactic."""

from collections.abc import Sequence
from html import escape

from research.plots import COLOURS, INK

STEP, ROW, MARGIN, RADIUS = 190, 26, 24, 9  # pixels
MOST = 60  # nodes that a picture shows


def draw(nodes: Sequence[dict]) -> str:
    """SVG text of `best_first.Node`s as rows, parents before their children.

    A number is the place in the order of expansion; states without one were left in the
    queue. The proof, if there is one, is drawn in colour; a cross counts the tactics
    that did not apply. Beyond MOST nodes, leaves that were never expanded are left out.
    """
    kept = shown(nodes)
    proof = on_proof(nodes)
    places = layout(nodes, kept)
    wide = max(x for x, _ in places.values()) + STEP
    high = max(y for _, y in places.values()) + MARGIN
    lines, marks = [], []
    for i in kept:
        node, (x, y) = nodes[i], places[i]
        colour = COLOURS[0] if i in proof else INK
        if node["parent"] >= 0:
            px, py = places[node["parent"]]
            lines.append(
                f'<path d="M{px + RADIUS},{py:.0f} C{px + 60},{py:.0f} {x - 60},'
                f'{y:.0f} {x - RADIUS},{y:.0f}" fill="none" stroke="{colour}" '
                f'stroke-width="{2 if i in proof else 1}" stroke-opacity="0.7"/>'
            )
        fill = colour if node["closed"] else "none"
        marks.append(
            f'<circle cx="{x}" cy="{y:.0f}" r="{RADIUS}" fill="{fill}" '
            f'stroke="{colour}" stroke-width="1.5"/>'
        )
        if node["expanded"]:
            marks.append(_text(x, y + 3.5, str(node["expanded"]), colour, "middle", 10))
        failed = f" ×{len(node['failed'])}" if node["failed"] else ""
        label = _short(node["tactic"] or "start") + failed
        marks.append(_text(x + RADIUS + 4, y + 4, label, colour, "start", 11))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high:.0f}" '
        f'width="{wide}" height="{high:.0f}">{"".join(lines)}{"".join(marks)}</svg>'
    )


def shown(nodes: Sequence[dict]) -> list[int]:
    """Which nodes are drawn: all, or those that were expanded or close the proof."""
    if len(nodes) <= MOST:
        return list(range(len(nodes)))
    proof = on_proof(nodes)
    # A parent was expanded before its children, so what is kept hangs together.
    ordered = sorted(
        (i for i, n in enumerate(nodes) if n["expanded"] and i not in proof),
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


def layout(nodes: Sequence[dict], kept: Sequence[int]) -> dict[int, tuple[int, float]]:
    """(x, y) of every node that is drawn: by depth; leaves one below the other, a
    parent in the middle of its children."""
    children: dict[int, list[int]] = {i: [] for i in kept}
    for i in kept:
        if nodes[i]["parent"] >= 0:
            children[nodes[i]["parent"]].append(i)
    depth, rows, order = {}, {}, []
    waiting = [kept[0]]
    while waiting:
        i = waiting.pop()
        order.append(i)
        parent = nodes[i]["parent"]
        depth[i] = depth[parent] + 1 if parent >= 0 else 0
        waiting += reversed(children[i])
    leaves = (i for i in order if not children[i])
    rows = {i: float(k) for k, i in enumerate(leaves)}
    for i in reversed(order):
        if children[i]:
            rows[i] = sum(rows[c] for c in children[i]) / len(children[i])
    return {i: (MARGIN + STEP * depth[i], MARGIN + ROW * rows[i]) for i in kept}


def _short(text: str, most: int = 24) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(x, y, text: str, colour: str, anchor: str, size: int) -> str:
    return (
        f'<text x="{x}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" '
        f'font-family="sans-serif" font-size="{size}">{escape(text)}</text>'
    )
