"""A small encyclopedia and questions about it, all of it made up from a seed.

Persons, clubs, towns and firms have pages; a page has sections, a section paragraphs of
15 to 30 words. What a paragraph says is drawn at random, so that nothing can be known
but by having read it. A paragraph is named by its hint, as in the thesis (section 4.3):

    Dorvan Melk --- Career --- Paragraph #1
    Dorvan Melk worked as a baker for Tulsan. Melk drove a green car and kept a goose.

Where a fact stands decides whether it can be told without reciting. A fact right behind
the full name can; one at the end of a paragraph, keyed by the surname alone, hardly; a
name in front of which its facts stand cannot be found from them, reciting or not. So
questions come in types, and each is reported by itself.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

SYLLABLES = tuple(
    onset + vowel + coda
    for onset in ("b", "d", "f", "g", "k", "l", "m", "n", "r", "s", "t", "v")
    for vowel in ("a", "e", "i", "o", "u")
    for coda in ("", "n", "r", "l")
)
PROFESSIONS = (
    "baker", "carpenter", "farmer", "fisher", "glazier", "gardener", "judge", "miller",
    "nurse", "painter", "pilot", "potter", "sailor", "tailor", "teacher", "weaver",
)  # fmt: skip
COLOURS = (
    "black", "blue", "brown", "cream", "green", "grey", "gold", "pink", "purple",
    "red", "silver", "white",
)  # fmt: skip
PETS = (
    "canary", "cat", "dog", "donkey", "ferret", "goose", "hamster", "lizard", "raven",
    "parrot", "pony", "rabbit",
)  # fmt: skip
PRODUCTS = (
    "bells", "boots", "bricks", "chairs", "clocks", "drums", "kettles", "lamps",
    "maps", "ropes", "soap", "tiles",
)  # fmt: skip
YEARS = tuple(str(year) for year in range(1900, 1990))
MEMBERS = 3  # of a club

ONE_PAGE = ("profession", "town", "firm", "colour", "medal", "retirement")
TWO_HANDLES = ("school", "pet")
EASY = ("birth",)
REVERSED = ("who",)
ONE_HOP = (*ONE_PAGE, *TWO_HANDLES, *EASY)
TWO_HOP = ("country", "product")
TYPES = (*ONE_HOP, *REVERSED, *TWO_HOP)


@dataclasses.dataclass(frozen=True)
class World:
    """The knobs: how many there are of what, and in how many ways a paragraph is put.

    persons: three to a club; half of them are asked about in training.
    paraphrases: templates of a paragraph, 1 or 2; every entity keeps to one.
    """

    persons: int = 240
    towns: int = 30
    firms: int = 20
    schools: int = 20
    medals: int = 12
    rivers: int = 12
    countries: int = 12
    first_names: int = 60
    paraphrases: int = 2

    def __post_init__(self):
        if self.persons < 4 * MEMBERS or self.persons % MEMBERS:
            raise ValueError(
                f"persons: expected a multiple of {MEMBERS}, at least {4 * MEMBERS}, "
                f"got {self.persons}"
            )
        if self.paraphrases not in (1, 2):
            raise ValueError(f"paraphrases: expected 1 or 2, got {self.paraphrases}")
        for name in ("towns", "firms", "schools", "medals", "rivers", "countries"):
            if getattr(self, name) < 2:
                raise ValueError(
                    f"{name}: expected at least 2, got {getattr(self, name)}"
                )
        if self.first_names < 1:
            raise ValueError(f"first_names: expected >= 1, got {self.first_names}")


class Passage(NamedTuple):
    """A paragraph and the hint that names it."""

    hint: str
    text: str


class Question(NamedTuple):
    """A question with all answers that count, the plainest first.

    evidence: alternatives; each is the passages, in order, that answer it together
    rationale: the chain of thought of a question of two hops, "" for others
    person: number of the person it asks about
    """

    id: str
    text: str
    answers: tuple[str, ...]
    type: str
    evidence: tuple[tuple[int, ...], ...]
    rationale: str
    person: int

    @property
    def hops(self) -> int:
        return 2 if self.type in TWO_HOP else 1


class Person(NamedTuple):
    """What the pages say of a person; towns, firms and clubs by their names."""

    first: str
    last: str
    club: str
    facts: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"


class Encyclopedia(NamedTuple):
    """Passages, and the questions about every person."""

    persons: tuple[Person, ...]
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]


class Words(NamedTuple):
    """The made-up names of a world, all different."""

    first: tuple[str, ...]
    last: tuple[str, ...]
    clubs: tuple[str, ...]
    towns: tuple[str, ...]
    firms: tuple[str, ...]
    schools: tuple[str, ...]
    medals: tuple[str, ...]
    rivers: tuple[str, ...]
    countries: tuple[str, ...]


def words(world: World, seed: int) -> Words:
    """The names of a world: two syllables each, none of them twice."""
    rng = np.random.default_rng([seed, 1])
    pairs = list(itertools.product(SYLLABLES, SYLLABLES))
    order = iter(rng.permutation(len(pairs)))
    sizes = Words(
        world.first_names,
        world.persons,
        world.persons // MEMBERS,
        world.towns,
        world.firms,
        world.schools,
        world.medals,
        world.rivers,
        world.countries,
    )
    drawn: list[tuple[str, ...]] = []
    taken: set[str] = set()
    for size in sizes:
        names: list[str] = []
        while len(names) < size:
            name = "".join(pairs[next(order)]).capitalize()
            if name not in taken:  # "ban" + "a" is also "ba" + "na"
                taken.add(name)
                names.append(name)
        drawn.append(tuple(names))
    return Words(*drawn)


def build(world: World, seed: int) -> Encyclopedia:
    """The encyclopedia of a seed."""
    return _build(world, words(world, seed), np.random.default_rng([seed, 2]))


def throw_away(world: World, seed: int, rng: np.random.Generator) -> Encyclopedia:
    """Another encyclopedia over the same words, to learn reading from.

    Nobody in it is in `build(world, seed)` but by chance; names and facts are mixed
    anew, so that only what stands in a passage answers its questions.
    """
    names = words(world, seed)
    mixed = {
        field: tuple(rng.permutation(values).tolist())
        for field, values in names._asdict().items()
    }
    return _build(world, Words(**mixed), rng)


def _build(world: World, names: Words, rng: np.random.Generator) -> Encyclopedia:
    def one(values) -> str:
        return str(values[int(rng.integers(len(values)))])

    clubs = [f"{name} Club" for name in names.clubs]
    towns = {
        town: {
            "river": one(names.rivers),
            "country": one(names.countries),
            "founded": one(YEARS),
        }
        for town in names.towns
    }
    firms = {
        firm: {"product": one(PRODUCTS), "office": one(names.towns)}
        for firm in names.firms
    }
    members = rng.permutation(world.persons)
    club_of = {int(p): clubs[i // MEMBERS] for i, p in enumerate(members)}
    persons = [
        Person(
            one(names.first),
            last,
            club_of[i],
            {
                "birth": one(YEARS),
                "profession": one(PROFESSIONS),
                "town": one(names.towns),
                "school": one(names.schools),
                "job": one(PROFESSIONS),
                "firm": one(names.firms),
                "colour": one(COLOURS),
                "pet": one(PETS),
                "year": one(YEARS),
                "medal": one(names.medals),
                "retirement": one(names.towns),
            },
        )
        for i, last in enumerate(names.last)
    ]
    passages: list[Passage] = []
    place: dict[tuple[str, str], int] = {}

    def write(page: str, section: str, number: int, templates, **facts) -> None:
        place[page, f"{section} {number}"] = len(passages)
        text = templates[int(rng.integers(world.paraphrases))].format(**facts)
        hint = f"{page} --- {section} --- Paragraph #{number}"
        passages.append(Passage(hint, text))

    for person in persons:
        known = {"name": person.name, "last": person.last, **person.facts}
        for section, templates in PERSON_PAGE.items():
            write(person.name, section, 1, templates, **known)
    for club in clubs:
        inside = [p for p in persons if p.club == club]
        known = {"club": club}
        for i, person in enumerate(inside, start=1):
            known |= {f"last{i}": person.last, f"school{i}": person.facts["school"]}
            known |= {f"pet{i}": person.facts["pet"]}
        write(club, "Members", 1, CLUB_SCHOOLS, **known)
        write(club, "Members", 2, CLUB_PETS, **known)
    for town, facts in towns.items():
        write(town, "Geography", 1, TOWN_PAGE, town=town, **facts)
    for firm, facts in firms.items():
        write(firm, "Overview", 1, FIRM_PAGE, firm=firm, **facts)
    questions = _questions(persons, towns, firms, place)
    return Encyclopedia(tuple(persons), tuple(passages), tuple(questions))


# --- what the pages say: two ways to put each paragraph, facts in the same places -----

PERSON_PAGE = {
    "Early life": (
        "{name} was born in {birth} as the child of a {profession}. The family lived "
        "in {town}, where {last} learned to read. Later {last} studied at {school}.",
        "{name} came into the world in {birth}; a {profession} was one of the parents. "
        "The home was in {town}, and {last} liked it there. The school of {last} was "
        "{school}.",
    ),
    "Career": (
        "{name} worked as a {job} and was paid by {firm}. On most days {last} drove a "
        "{colour} car to work. At home {last} kept a {pet}.",
        "{name} became a {job} and found a place at {firm}. The car of {last} was "
        "{colour}, and never clean. The pet of {last} was a {pet}.",
    ),
    "Awards": (
        "{name} was given a prize in {year}: it was the {medal} medal. Soon after that "
        "{last} stopped working and moved to {retirement}.",
        "{name} won in {year}, to the surprise of many, the {medal} medal. When old, "
        "{last} went to live in {retirement}.",
    ),
}
CLUB_SCHOOLS = (
    "{club} has three members. {last1} studied at {school1}, {last2} at {school2} and "
    "{last3} at {school3}.",
    "{club} counts three people: {last1}, who went to {school1}, {last2}, who went to "
    "{school2}, and {last3}, who went to {school3}.",
)
CLUB_PETS = (
    "{club} meets with its pets: {last1} brings a {pet1}, {last2} brings a {pet2} and "
    "{last3} brings a {pet3}.",
    "{club} is full of animals. There one finds the {pet1} of {last1}, the {pet2} of "
    "{last2} and the {pet3} of {last3}.",
)
TOWN_PAGE = (
    "{town} lies on the {river} river and was founded in {founded}. It is one of the "
    "older towns of {country}.",
    "{town} was founded in {founded} where a road met the {river} river. Today it "
    "belongs to {country}.",
)
FIRM_PAGE = (
    "{firm} is a firm with an office in {office}. It is known to all for its "
    "{product}.",
    "{firm} has had its office in {office} from the start. What it makes and sells is "
    "{product}.",
)

ASKED = {
    "birth": "In which year was {name} born?",
    "profession": "What did the parent of {name} do for a living?",
    "town": "In which town did {name} grow up?",
    "firm": "For which firm did {name} work?",
    "colour": "Which colour was the car of {name}?",
    "medal": "Which medal was {name} given?",
    "retirement": "To which town did {name} retire?",
    "school": "At which school did {name} of {club} study?",
    "pet": "Which animal did {name} of {club} keep?",
    "who": "Who was born in {birth} and grew up in {town}?",
    "country": "In which country is the town where {name} grew up?",
    "product": "What does the firm make for which {name} worked?",
}
SECTION = {
    "birth": "Early life",
    "profession": "Early life",
    "town": "Early life",
    "school": "Early life",
    "firm": "Career",
    "colour": "Career",
    "pet": "Career",
    "medal": "Awards",
    "retirement": "Awards",
    "who": "Early life",
    "country": "Early life",
    "product": "Career",
}


def _questions(persons, towns, firms, place) -> list[Question]:
    """Every type about every person, but for "who" where two would answer it."""
    born = [(p.facts["birth"], p.facts["town"]) for p in persons]
    asked = []
    for number, person in enumerate(persons):
        facts = person.facts
        known = {"name": person.name, "club": person.club, **facts}
        for kind, template in ASKED.items():
            if kind == "who" and born.count(born[number]) > 1:
                continue
            own = place[person.name, f"{SECTION[kind]} 1"]
            evidence, rationale = [(own,)], ""
            if kind in TWO_HANDLES:
                page = TWO_HANDLES.index(kind) + 1
                evidence.append((place[person.club, f"Members {page}"],))
            answers = (facts.get(kind, ""),)
            if kind == "medal":
                answers = (facts["medal"], f"{facts['medal']} medal")
            if kind == "who":
                answers = (person.name, person.last)
            if kind == "country":
                answers = (towns[facts["town"]]["country"],)
                evidence = [(own, place[facts["town"], "Geography 1"])]
                rationale = (
                    f"{person.name} grew up in {facts['town']}. {facts['town']} is in "
                    f"{answers[0]}."
                )
            if kind == "product":
                answers = (firms[facts["firm"]]["product"],)
                evidence = [(own, place[facts["firm"], "Overview 1"])]
                rationale = (
                    f"{person.name} worked for {facts['firm']}. {facts['firm']} makes "
                    f"{answers[0]}."
                )
            text = template.format(**known)
            asked.append(
                Question(
                    f"{number}-{kind}", text, answers, kind, tuple(evidence), rationale,
                    number,
                )
            )  # fmt: skip
    return asked


class Split(NamedTuple):
    """Numbers of the persons that are asked about in training, development and test."""

    train: tuple[int, ...]
    development: tuple[int, ...]
    test: tuple[int, ...]


def split(world: World, seed: int) -> Split:
    """Half of the persons to train on; of the others a quarter for development."""
    order = np.random.default_rng([seed, 3]).permutation(world.persons).tolist()
    half = world.persons // 2
    rest = order[half:]
    quarter = len(rest) // 4
    return Split(
        tuple(sorted(order[:half])),
        tuple(sorted(rest[:quarter])),
        tuple(sorted(rest[quarter:])),
    )
