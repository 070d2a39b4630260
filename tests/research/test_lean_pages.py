"""Chapter 7's search trees: what is drawn where, and which problems are shown."""

import re

import pytest
from helpers import lean_stages
from helpers.lean_stages import HALF

from research.lean_star import pages, tree

EVIL = "<script>alert(1)</script>"


def node(parent, tactic="", expanded=0, closed=False, failed=(), state=None, output=""):
    """A node whose state is its tactic's own, where none is given."""
    return {
        "parent": parent, "tactic": tactic, "expanded": expanded, "closed": closed,
        "failed": list(failed), "state": f"⊢ {tactic}" if state is None else state,
        "output": output, "cost": 0.0,
    }  # fmt: skip


# Four candidates of the start lead to one state, of which one was expanded.
NODES = [
    node(-1, expanded=1, failed=[("ring", "illegal")] * 2),
    node(0, "a", state="⊢ x"),
    node(0, "a", 2, state="⊢ x", output="why"),
    node(0, "b", state="⊢ x"),
    node(0, "<c>", state="⊢ y"),
    node(2, "d", state="⊢ x"),
    node(2, "e", closed=True, state="no goals"),
]


def numbers(pattern: str, picture: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, found)) for found in re.findall(pattern, picture)]


def test_equal_states_of_one_parent_are_drawn_once():
    """The one that was expanded stays, and counts them; of another parent it is new."""
    assert tree.merged(NODES) == {0: 1, 2: 3, 4: 1, 5: 1, 6: 1}
    picture = tree.draw(NODES)
    assert picture.count("<circle") == 5 and picture.count("×3</tspan>") == 1
    assert "2 failed</tspan>" in picture and "&lt;c&gt;" in picture
    # All states are in it, however they are merged.
    assert sum(tree.merged(NODES).values()) == len(NODES)


def test_no_line_runs_through_a_name():
    """Each line of the page has one state, whose name is right of all lines there."""
    picture = tree.draw(NODES)
    circles = numbers(r'<circle cx="(\d+)" cy="(\d+)"', picture)
    lines = numbers(r'd="M(\d+),(\d+) V(\d+) H(\d+)"', picture)
    names = numbers(r'<text x="(\d+)" y="(\d+)"[^>]*><tspan', picture)
    assert len(circles) == len(names) == len(lines) + 1 == 5
    assert len({y for _, y in circles}) == 5
    for x, y in names:
        for px, top, bottom, end in lines:
            assert not top <= y - 4 <= bottom or max(px, end) < x
    # A child is right of its parent and below it, before what comes next.
    places = tree.layout(NODES, [0, 2, 4, 5, 6])
    assert [*places] == [0, 2, 5, 6, 4]
    assert [x for x, _ in places.values()] == [
        tree.MARGIN + depth * tree.INDENT for depth in (0, 1, 2, 2, 1)
    ]
    assert [y for _, y in places.values()] == [
        tree.MARGIN + row * tree.ROW for row in range(5)
    ]


def test_the_proof_has_its_colour_and_states_their_texts():
    """Nodes up to the closed one; a state says its thought, tactic, goal, failures."""
    assert tree.on_proof(NODES) == {0, 2, 6}
    picture = tree.draw(NODES, lambda output: f"so {output}" if output else "")
    assert picture.count(f'stroke="{tree.COLOURS[0]}" stroke-width="2"') == 2
    assert "<title>“so why”\n▸ a\n⊢ x</title>" in picture
    assert "<title>⊢ \n✕ 2 × ring</title>" in picture


def test_large_trees_keep_their_proof():
    """What was never expanded goes first, and every node keeps its parent."""
    nodes = [node(-1, expanded=1)] + [
        node(max(0, i - 2), f"t{i}", expanded=i + 1 if i % 2 else 0, closed=i == 99)
        for i in range(1, 100)
    ]
    kept = tree.shown(nodes, [*tree.merged(nodes)])
    assert tree.on_proof(nodes) <= set(kept) and len(kept) <= tree.MOST
    assert all(nodes[i]["parent"] in kept for i in kept if i)


def row(solved: bool, size: int) -> dict:
    return {"solved": solved, "tree": [node(i - 1, f"t{i}") for i in range(size)]}


@pytest.mark.parametrize(
    "of_cot, expected",
    [
        # The largest that both prove, and the largest that one of them proves.
        ({"a": (1, 5), "b": (1, 9), "c": (0, 4), "d": (0, 6)}, ["b", "d"]),
        ({"a": (1, 5), "b": (1, 99), "c": (0, 2), "d": (0, 2)}, ["a"]),
        ({"a": (0, 5), "b": (0, 4), "c": (0, 2), "d": (0, 2)}, ["a"]),
        ({"a": (1, 2), "b": (1, 2), "c": (0, 2), "d": (0, 2)}, []),
    ],
)
def test_all_searches_are_shown_on_the_same_problems(of_cot, expected):
    """By how many prove them, and of trees that are neither tiny nor huge."""
    grown = {
        "cot mean": {name: row(bool(s), n) for name, (s, n) in of_cot.items()},
        "sft mean": {name: row(True, 4) for name in of_cot},
    }
    assert pages.picked(grown) == expected
    assert pages.picked({}) == []


def test_where_nothing_is_proved_the_largest_tree_is_shown():
    """Two searches that come to nothing on both problems."""
    of_each = {"a": row(False, 3), "b": row(False, 8)}
    assert pages.picked({"cot mean": of_each, "sft mean": of_each}) == ["b"]


def test_trees_are_of_all_searches_but_by_the_tactic(tmp_path):
    """A picture says if it has a proof; its texts are escaped; the states are below."""
    nodes = [
        node(-1, expanded=1, state="s"),
        node(0, EVIL, 2, state="t"),
        node(1, "h", closed=True, state="no goals"),
    ]
    results = lean_stages.results(tmp_path / "own", {"cot": HALF, "sft": HALF})
    results.made["searched"] = {
        f"{name} 0": lean_stages.searched(tmp_path / name[:3] / name[4:], marks, nodes)
        for name, marks in
        (("cot mean", "2" * 48), ("cot tactic", "2" * 48), ("sft mean", "0" * 48))
    }  # fmt: skip
    one, states, other, _ = pages.trees(results).blocks
    assert one.alt == "A search tree of 3 states, with a proof"
    assert other.alt == "A search tree of 3 states, with no proof"
    problem = one.caption.removeprefix("Lean-CoT, by mean: ").partition(". ")[0]
    assert other.caption.startswith(f"SFT, by mean: {problem}. Numbers")
    assert "<script" not in one.content and "&lt;script" in one.content
    assert states.folded and states.text == f"1.\ns\n\n2.\n▸ {EVIL}\nt"
    results.made["searched"] = {}
    assert pages.trees(results) is None
