"""What a term or formula must satisfy to mean something in a context: trusted."""

from collections.abc import Mapping

from data.minilean.syntax import (
    CONNECTIVES,
    FALSE,
    INT,
    INT_TYPE,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_NODES,
    NAT,
    NAT_TYPE,
    OPERATIONS,
    PROP,
    QUANTIFIERS,
    RELATIONS,
    SORTS,
    TRUE,
    Formula,
    Signature,
    Term,
)

_TOO_LARGE = 10**MAX_DIGITS
_KINDS = {NAT: NAT_TYPE, INT: INT_TYPE}


def term_fault(term, scope: Mapping) -> str | None:
    """What is wrong with term, its size included, or None.

    scope: name -> Signature (others are ignored).
    """
    return "not a term" if type(term) is not Term else _fault(term, scope, ())


def formula_fault(formula, scope: Mapping, bound: tuple = ()) -> str | None:
    """What is wrong with formula, its size included, or None; scope: as above.

    bound: sorts of the bound variables that it may leave loose, the nearest first.
    """
    if type(formula) is not Formula:
        return "not a formula"
    return _fault(formula, scope, bound)


def _fault(node: Term | Formula, scope: Mapping, bound: tuple) -> str | None:
    """Level by level, and a level is not looked at once there are too many nodes.

    Every node checks its own head and that its parts are Terms and Formulas of the
    right sorts, so that they can be taken for what they are when their turn comes.
    Nothing is looked up before it is known to be a string: its hash may have no end.
    """
    nodes, parts = 0, [([node], bound, 0)]
    while parts:
        # bound: sorts of the binders around the nodes of this level, the nearest first
        level, bound, depth = parts.pop()
        while level:
            nodes, depth, below = nodes + len(level), depth + 1, []
            if nodes > MAX_NODES or depth > MAX_DEPTH:
                return "beyond the limits of size"
            for here in level:
                op, args = here[0], here[1]
                if type(op) is not str or type(args) is not tuple:
                    return "neither a term nor a formula"
                if len(here) != (3 if type(here) is Term else 2):
                    return "a node of another length"
                if type(here) is Term:
                    # what is there most is decided here, without a call
                    if op == "var":
                        sort = here[2]
                        if len(args) == 1 and type(args[0]) is type(sort) is str:
                            if scope.get(args[0]) is _KINDS.get(sort, ""):
                                continue
                    elif (op == "+" or op == "*") and len(args) == 2:
                        left, right, sort = args[0], args[1], here[2]
                        if type(left) is type(right) is Term:
                            if left[2] == sort == right[2] and sort in SORTS:
                                below += args
                                continue
                    wrong = _wrong_term(op, args, here[2], scope, bound)
                    if not wrong and (op == "var" or op == "num" or op == "bound"):
                        continue
                else:
                    if op == "prop":
                        if len(args) == 1 and type(args[0]) is str:
                            if scope.get(args[0]) is PROP:
                                continue
                    elif op in CONNECTIVES and len(args) == 2:
                        if type(args[0]) is type(args[1]) is Formula:
                            below += args
                            continue
                    wrong = _wrong_formula(op, args, scope)
                if wrong:
                    named = args and type(args[0]) is str
                    return f"{op} {args[0]}" if named else f"{op}"
                if op == "prop" or op == "app":
                    below += args[1:]
                elif op in QUANTIFIERS:
                    parts.append(([args[2]], (args[1], *bound), depth))
                else:
                    below += args
            level = below
    return None


def _wrong_formula(op: str, args: tuple, scope: Mapping) -> bool:
    """Whether there is no such formula, of args that are well-formed themselves."""
    if op == "prop":
        if not args or type(args[0]) is not str:
            return True
        return not _accepts(scope.get(args[0]), args[1:], "Prop")
    if op in CONNECTIVES:
        if len(args) != 2 or type(args[0]) is not Formula:
            return True
        return type(args[1]) is not Formula
    if op == "¬":
        return len(args) != 1 or type(args[0]) is not Formula
    if op in RELATIONS:
        if len(args) != 2 or type(args[0]) is not Term or type(args[1]) is not Term:
            return True
        return args[0][2] != args[1][2]
    if op in QUANTIFIERS:
        if len(args) != 3 or type(args[0]) is not str or args[1] not in SORTS:
            return True
        return type(args[2]) is not Formula
    return (op, args) not in (TRUE, FALSE)


def _accepts(known, args: tuple, result: str) -> bool:
    """known is the Signature that takes these terms to the result."""
    for arg in args:
        if type(arg) is not Term:
            return False
    return known == (tuple([arg[2] for arg in args]), result)


def _wrong_term(op: str, args: tuple, sort: str, scope: Mapping, bound: tuple) -> bool:
    """Whether there is no such term, of args that are well-formed themselves."""
    if sort != INT and sort != NAT:
        return True
    if op == "var" or op == "num" or op == "bound":
        if len(args) != 1:
            return True
    if op == "var" or op == "app":
        if not args or type(args[0]) is not str:
            return True
    if op == "var":
        known = scope.get(args[0])
        return type(known) is not Signature or known != ((), sort)
    if op == "num":
        return type(args[0]) is not int or not 0 <= args[0] < _TOO_LARGE
    if op == "bound":
        index = args[0]
        known = type(index) is int and 0 <= index < len(bound)
        return not known or bound[index] != sort
    if op == "app":
        return len(args) < 2 or not _accepts(scope.get(args[0]), args[1:], sort)
    if op not in OPERATIONS:
        return True
    if len(args) != (1 if op == "neg" else 2) or type(args[0]) is not Term:
        return True
    if type(args[-1]) is not Term or args[0][2] != sort:
        return True
    if sort == NAT and op in ("-", "neg"):
        return True  # subtraction on ℕ is not part of this subset
    return args[-1][2] != (NAT if op == "^" else sort)
