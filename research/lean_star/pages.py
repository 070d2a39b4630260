"""Proofs as people read them: state, thought, tactic, next state; and what failed."""

from collections import Counter
from collections.abc import Sequence

from data.records import read_records
from research.lean_star import tree
from research.lean_star.formats import Format
from research.lean_star.results import Results, kind_of, title
from research.report import Figure, Section, Text

PROOFS = 3  # of each system
STATES = 12  # whose failures are listed
INDENT = "        "


def proofs(results: Results) -> Section:
    """Proofs of the first seed by the last system with thoughts, and by SFT."""
    best = results.last[0] if results.last else "cot"
    seed, blocks = results.seeds[0], []
    for system in (best, "sft"):
        found = [row for row in results.outcomes(system, seed) if row["proof"]]
        tests = [row for row in found if row["split"] == "test"]
        calls = _calls(results, system, seed)
        # Those of which every tactic was kept come first, then the longest.
        order = sorted(tests, key=lambda r: (r["name"] not in calls, -len(r["proof"])))
        for row in order[:PROOFS]:
            caption = f"{title(system)}: {row['statement']}"
            text = written(row["proof"], Format(results.era, kind_of(system)))
            blocks.append(Text(text, caption, verbatim=True))
            if row["name"] in calls:
                blocks += failures(calls[row["name"]])
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


def failures(calls: Sequence[dict]) -> list[Text]:
    """Tactics that did not apply, by the state they were tried on; folded."""
    tried: dict[str, Counter] = {}
    legal: Counter = Counter()
    for call in calls:
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
    """Best-first search trees of the first seed; None where there was no search."""
    blocks = []
    for name in results.names("searched"):
        system, _, score = name.rpartition(" ")
        path = results.stages("searched", name)[0].folder / "outcomes.jsonl"
        rows = [r.row for r in read_records(path) if r.row["split"] == "test"]
        grown = [row for row in rows if 3 <= len(row.get("tree", ())) <= tree.MOST]
        proved = [row for row in grown if row["solved"]] or grown
        if score == "tactic" or not proved:
            continue
        row = max(proved, key=lambda row: len(row["tree"]))
        blocks.append(
            Figure(
                tree.draw(row["tree"]),
                f"{title(system)}, by {score}: {row['statement']}. Numbers: the order "
                "of expansion; ×: candidates that did not apply; in colour, the proof.",
                f"A search tree of {len(row['tree'])} states, "
                + ("with a proof" if row["solved"] else "without a proof"),
            )
        )
    return Section("Search trees", blocks) if blocks else None


def _calls(results: Results, system: str, seed: int) -> dict[str, list[dict]]:
    """Every tactic that was tried on the few problems of which they were kept."""
    path = results.made["proved"][f"{system} {seed}"].folder / "calls.jsonl"
    found: dict[str, list[dict]] = {}
    if not path.stat().st_size:  # no theorem of these could be started
        return found
    for record in read_records(path):
        found.setdefault(record.row["name"], []).append(record.row)
    return found
