"""Parameters by name: "/"-joined paths, pattern matching, frozen subsets, counts."""

import fnmatch

import jax


def flatten_names(params) -> dict:
    """{"layers/attn/q/kernel": array, ...} of a nested dict, in tree order."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


def unflatten_names(flat: dict) -> dict:
    """The nested dict of "/"-joined names."""
    tree: dict = {}
    for name, value in flat.items():
        *folders, leaf = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def matches(name: str, patterns) -> bool:
    """Whether a shell-style pattern ("*norm*", "embed/*") matches the whole name."""
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)


def trainable_mask(params, frozen_patterns):
    """A tree of bools, False where a pattern freezes the parameter.

    Raises:
      ValueError: a pattern matches nothing (it would silently freeze nothing).
    """
    names = flatten_names(params)
    for pattern in frozen_patterns:
        if not any(matches(name, [pattern]) for name in names):
            raise ValueError(
                f"frozen pattern {pattern!r} matches no parameter; "
                f"parameters are: {', '.join(names)}"
            )
    flags = {name: not matches(name, frozen_patterns) for name in names}
    treedef = jax.tree.structure(params)
    return jax.tree.unflatten(treedef, list(flags.values()))


def count(params) -> int:
    """Number of scalars in a tree of arrays."""
    return sum(int(x.size) for x in jax.tree.leaves(params))
