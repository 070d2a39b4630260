"""What the rule-based oracle can say: templates by case, and the words they consist of.

Slots are filled with formulas, names of hypotheses and PHRASES. No template contains a
tactic's name, and none a word of one letter, which could be taken for a variable.
"""

import re

SHAPES = {
    "↔": "the equivalence",
    "→": "the implication",
    "∨": "the disjunction",
    "∧": "the conjunction",
    "¬": "the negation",
    "∀": "the general claim",
    "∃": "the claim of existence",
    "=": "the equation",
    "<": "the inequality",
    "": "the claim",
}
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven")
PHRASES = {
    "premises": "its premises",
    "first": "first",
    "second": "second",
    "says": "says",
    "leads": "leads to",
    "facts": "what is known",
    "fact": "one of the facts",
    "number": "number",
    "needs_premise": "It asks for its premise.",
    "needs_nothing": "Nothing else is asked.",
    "and": " and ",
    "comma": ", ",
    "gives": "{name} gives it from {others}",
    "says_so": "{name} says so",
    "from": "it follows from {others}",
    "known": "it is known",
    "square": "square",
    "squares": "squares",
}
TEMPLATES = {
    "suppose all": (
        "The goal has {count} premises before its end. Take all of them as given.",
        "The goal stacks {count} assumptions. Suppose each, and the end remains.",
        "The goal follows from {count} premises, so name them all.",
    ),
    "suppose": (
        "The goal is an implication. Suppose {given}, then {end} remains.",
        "The goal starts from {given}. Take it as given and show {end}.",
        "The goal says that {end} follows from {given}, so suppose the latter.",
    ),
    "refute": (
        "The goal denies {given}. Suppose it holds and find what is absurd.",
        "The goal is that {given} cannot be. Take it as given and reach False.",
        "The goal is the negation of {given}, so suppose that and refute it.",
    ),
    "any number": (
        "The goal speaks of every {name}, so take any one of them.",
        "The goal is about all {name}. Look at one that is not known.",
        "The goal is general: fix {name}, then show the claim for it.",
    ),
    "pair": (
        "The goal has two parts. {one} gives the first, {other} the second.",
        "The goal joins two facts, and {one} and {other} are these facts.",
        "The goal is {shape} of what {one} and {other} say.",
    ),
    "at hand": (
        "The goal is {target}, and {name} says the same.",
        "The goal {target} is known already: it is {name}.",
        "The goal is what {name} states, nothing else remains.",
    ),
    "one step": (
        "The goal is {target}. {name} gives it from {others}.",
        "The goal {target} is what {name} says of {others}.",
    ),
    "both parts": (
        "The goal joins {one} and {other}. Each can be shown by itself.",
        "The goal has two parts. First {one}, then {other}.",
        "The goal asks for both {one} and {other}, so show one, then the other.",
    ),
    "both ways": (
        "The goal is an equivalence. Both directions remain to be shown.",
        "The goal goes both ways, so show each way by itself.",
        "The goal says that each side follows from the other. Show one, then the "
        "other.",
    ),
    "by its form": (
        "The goal holds by its form.",
        "The goal can be built from its parts.",
    ),
    "side with reason": (
        "The goal is {shape}, and {name} {leads} {part}, the {which} part.",
        "The goal needs one of two parts. {name} {leads} {part}, the {which}.",
        "The goal offers two parts, and {name} {leads} the {which}, {part}.",
    ),
    "side": (
        "The goal is {shape}. Its {which} part, {part}, can be shown.",
        "The goal offers two parts. {part}, the {which}, holds here, not {other}.",
        "The goal needs one of two parts, and the {which}, {part}, is in reach.",
    ),
    "some number": (
        "The goal is {target}. {name} says that some number does it: name it.",
        "The goal needs the number that {name} speaks of, so give it some name.",
        "The goal is {target}, and {name} promises some number to start from.",
    ),
    "two facts": (
        "The goal is {target}. {name} holds two facts, {one} and {other}.",
        "The goal needs the parts of {name}: {one} and {other}.",
        "The goal is {target}. Take {one} and {other}, which {name} joins.",
    ),
    "two ways": (
        "The goal is {target}. {name} can be read both ways, so keep each way.",
        "The goal needs one way of {name}, between {one} and {other}.",
        "The goal is {target}. {name} is two implications at once.",
    ),
    "possibilities": (
        "The goal is {target}. {name} leaves two possibilities, {one} or {other}.",
        "The goal has to hold whichever part of {name} does, {one} or {other}.",
        "The goal is {target}. {name} does not say if {one} or {other}: try both.",
    ),
    "instance": (
        "The goal {target} is what {name} says of all numbers. {tail}",
        "The goal is {target}, and {name} holds for every number. {tail}",
        "The goal is what {name} says, for one number. {tail}",
    ),
    "denied": (
        "The goal is {target}. {name} denies {asked}, so that is enough.",
        "The goal is to find what is absurd. {name} excludes {asked}: show it.",
        "The goal is {target}, which {name} gives once {asked} holds.",
    ),
    "concluded": (
        "The goal is {target}, where {name} ends. It asks for {asked}.",
        "The goal {target} follows by {name} from {asked}.",
        "The goal is {target}. {name} leads to it, {asked} remains.",
    ),
    "out of reach": (
        "The goal {target} is out of reach, but {which} cannot hold. Refute it.",
        "The goal is {target}, and nothing leads there. Look at {which}.",
        "The goal does not matter, as {which} cannot be.",
    ),
    "clash": (
        "The goal is {target}, but {one} denies {other}. So anything follows.",
        "The goal {target} holds since {one} and {other} clash.",
        "The goal does not matter: {one} says that {other} is false.",
    ),
    "absurd": (
        "The goal is {target}. One of the facts is absurd, so anything follows.",
        "The goal {target} holds since what is known cannot be.",
    ),
    "on the way": (
        "The goal is {target}. On the way is {fact}: {source}.",
        "The goal {target} needs {fact} before, and {source}.",
        "The goal is {target}. Note {fact}, as {source}.",
    ),
    "rule": (
        "The goal has values for which {name} is the rule: {here} is {there}.",
        "The goal is about what {name} defines, so put {there} for {here}.",
        "The goal asks what follows by the rule {name}: {here} is {there}.",
    ),
    "replace": (
        "The goal speaks of {here}, and {name} says that it is {there}.",
        "The goal has {here} in it. By {name}, put {there} there.",
        "The goal is easier with {there} for {here}, the same by {name}.",
    ),
    "expand": (
        "The goal is an equation of polynomials, and both sides expand to the same.",
        "The goal holds for all values: multiply out and compare the terms.",
        "The goal needs no premise, both sides are the same polynomial.",
    ),
    "compute": (
        "The goal has only numbers, so compute both sides.",
        "The goal is about known numbers, to compute it is enough.",
        "The goal has no unknown any more, and the numbers agree.",
    ),
    "compute with": (
        "The goal is about numbers only once {name} is put in, so compute it.",
        "The goal has one value that is not plain, and {name} gives it.",
        "The goal can be computed: {name} has the value that is asked for.",
    ),
    "bounds clash": (
        "The goal is to find what is absurd. By {which}, no number remains.",
        "The goal is False. No number agrees with {which}.",
        "The goal follows from {which}, with which no number agrees.",
    ),
    "add up": (
        "The goal {target} is of degree one and follows from {which}.",
        "The goal is {target}. Add up {which} with the proper factors.",
        "The goal is {target}. By {which}, nothing else can be.",
    ),
    "square": (
        "The goal has degree two. The {square} of {which} cannot be negative.",
        "The goal is about the {square} of {which}, never below 0.",
        "The goal follows from the {square} of {which}, which is the gap.",
    ),
    "many squares": (
        "The goal has degree two. No square of the differences is negative, and they "
        "add up to it.",
        "The goal is the sum of three squares in disguise, of each difference.",
    ),
    "example": (
        "The goal asks for some {name}. With {value} for it, the rest can be shown.",
        "The goal needs one example: {value} does it.",
        "The goal says that some {name} can be found, and {value} fits.",
    ),
    "step by step": (
        "The goal is about every {name}, and each value follows from the one before. "
        "Start at 0.",
        "The goal can be seen at 0, and each {name} leads to the next one.",
        "The goal depends on {name} step by step: at 0, then at {name} + 1.",
    ),
    "same everywhere": (
        "The goal is {target}. {name} says that two things are the same everywhere.",
        "The goal is {target}, and by {name} one name is enough.",
    ),
    "same sides": (
        "The goal has the same on both sides.",
        "The goal is an equation of one thing with itself.",
    ),
    "known": (
        "The goal is {target}, and {name} says the same.",
        "The goal is among what is known, as {name}.",
    ),
    "unknown": (
        "The goal is {target}, and what is known is enough for one step.",
        "The goal is {target}. One step brings it closer.",
    ),
}


def words() -> list[str]:
    """The words of all templates and phrases, with a space behind them and without."""
    texts = [t for options in TEMPLATES.values() for t in options]
    texts += [*PHRASES.values(), *SHAPES.values(), *COUNTS]
    found: dict[str, None] = {". ": None, ", ": None, ": ": None, ".": None}
    for text in texts:
        for piece in re.split(r"{\w+}", text):
            # A word before a slot, a full stop or a comma has its two forms.
            found |= dict.fromkeys(re.findall(r"[A-Za-z]+ |[A-Za-z]+", piece))
    return list(found)
