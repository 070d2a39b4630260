"""Proofs as people read them: state, thought, tactic, next state; and what failed."""

from collections import Counter
from collections.abc import Mapping, Sequence

from research.lean_star import tree
from research.lean_star.formats import Format
from research.lean_star.results import Results, kind_of, title
from research.lean_star.steps import calls
from research.report import Figure, Section, Text

PROOFS = 3  # of each system
STATES = 12  # whose failures are listed
LEAST, MOST = 3, 40  # states of a tree that is shown
INDENT = "        "


def proofs(results: Results) -> Section:
    """Proofs of the first seed by the last system with thoughts, and by SFT."""
    best = results.last[0] if results.last else "cot"
    seed, blocks = results.seeds[0], []
    for system in (best, "sft"):
        found = [row for row in results.outcomes(system, seed) if row["proof"]]
        tests = [row for row in found if row["split"] == "test"]
        kept = _calls(results, system, seed)
        # Those of which every tactic was kept come first, then the longest.
        order = sorted(tests, key=lambda r: (r["name"] not in kept, -len(r["proof"])))
        for row in order[:PROOFS]:
            caption = f"{title(system)}: {row['statement']}"
            text = written(row["proof"], Format(results.era, kind_of(system)))
            blocks.append(Text(text, caption, verbatim=True))
            if row["name"] in kept:
                blocks += failures(kept[row["name"]])
    if not blocks:
        blocks = [Text("Nothing was proved.")]
    return Section("Proofs to read", blocks)


def written(steps: Sequence[dict], form: Format) -> str:
    """A proof, step by step: what the model read, what it wrote."""
    lines = []
    for step in steps:
        lines.append(step["state"])
        thought = form.thought(step["output"])
        if thought:
            lines.append(f"{INDENT}“{thought}”")
        lines += [f"{INDENT}▸ {step['tactic']}", ""]
    return "\n".join([*lines, "no goals"])


def failures(own: Sequence[dict]) -> list[Text]:
    """Tactics that did not apply, by the state they were tried on; folded."""
    tried: dict[str, Counter] = {}
    legal: Counter = Counter()
    for call in own:
        if call["result"] in ("progress", "proved"):
            legal[call["state"]] += 1
        else:
            why = call["detail"].splitlines()[0] if call["detail"] else call["result"]
            tried.setdefault(call["state"], Counter())[call["tactic"], why] += 1
    if not tried:
        return []
    parts = []
    for state, counts in list(tried.items())[:STATES]:
        parts += [state, f"{INDENT}{legal[state]} tactics applied"]
        parts += [
            f"{INDENT}✕ {n} × {tactic}   ({why})"
            for (tactic, why), n in counts.most_common()
        ]
        parts.append("")
    total = sum(counts.total() for counts in tried.values())
    more = f", {STATES} of them shown" if len(tried) > STATES else ""
    caption = f"Failed: {total} tactics, on {len(tried)} states{more}"
    return [Text("\n".join(parts).strip(), caption, verbatim=True, folded=True)]


def trees(results: Results) -> Section | None:
    """Best-first search trees of the first seed; None where there was no search.

    All searches on the same problems: the largest that all of them prove, and the
    largest that only some prove.
    """
    grown = {}
    for name in results.names("searched"):
        if not name.endswith(" tactic"):
            rows = results.found(results.stages("searched", name)[0])
            grown[name] = {row["name"]: row for row in rows if row["split"] == "test"}
    blocks: list[Figure | Text] = []
    for problem in picked(grown):
        for name, rows in grown.items():
            blocks += _tree(results, name, rows[problem])
    return Section("Search trees", blocks) if blocks else None


def picked(grown: Mapping[str, Mapping[str, dict]]) -> list[str]:
    """Problems whose trees are shown, of {search: {problem: its row}}."""
    sizes = {}
    for problem in next(iter(grown.values()), {}):
        own = [rows[problem] for rows in grown.values()]
        drawn = [len(tree.merged(row.get("tree", ()))) for row in own]
        if min(drawn) >= LEAST and max(drawn) <= MOST:
            sizes[problem] = (sum(row["solved"] for row in own), sum(drawn))
    kinds = [
        [name for name, (solved, _) in sizes.items() if solved == len(grown)],
        [name for name, (solved, _) in sizes.items() if 0 < solved < len(grown)],
    ]
    found = [max(names, key=lambda name: sizes[name][1]) for names in kinds if names]
    # Where nothing was proved, a search that came to nothing.
    return found or sorted(sizes, key=lambda name: -sizes[name][1])[:1]


def _tree(results: Results, name: str, row: dict) -> list[Figure | Text]:
    system, _, score = name.rpartition(" ")
    form = Format(results.era, kind_of(system))
    nodes = row["tree"]
    end = "a proof" if row["solved"] else "no proof"
    caption = f"{title(system)}, by {score}: {row['statement']}"
    figure = Figure(
        tree.draw(nodes, form.thought),
        f"{caption}. Numbers: the order of expansion; ×: how many candidates led to "
        "the state; failed: candidates that did not apply there; in colour, the proof.",
        f"A search tree of {len(tree.merged(nodes))} states, with {end}",
    )
    told = "\n\n".join(
        f"{node['expanded']}.\n{tree.told(nodes, i, form.thought)}"
        for i, node in sorted(enumerate(nodes), key=lambda pair: pair[1]["expanded"])
        if node["expanded"]
    )
    label = "The states that were expanded, and the thoughts that led to them"
    return [figure, Text(told, label, verbatim=True, folded=True)]


def _calls(results: Results, system: str, seed: int) -> dict[str, list[dict]]:
    """Every tactic that was tried on the few problems of which they were kept."""
    found: dict[str, list[dict]] = {}
    for call in calls(results, system, seed):
        found.setdefault(call["name"], []).append(call)
    return found
