"""Invented facts about invented people, each stated in several sentences, and queries that ask for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Templates by relation: those of training sentences, of which the first three end with the object, and those of
#: paraphrased queries, which training sentences have of people who are not asked about.
TEMPLATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "born": (
        (
            "{s} was born in {o}.",
            "The birthplace of {s} is {o}.",
            "{s} first saw the light of day in {o}.",
            "{o} is the town where {s} was born.",
            "It was in {o} that the mother of {s} gave birth.",
            "The people of {o} count {s} among those born there.",
        ),
        ("{s} came into the world in {o}.", "The native town of {s} is called {o}."),
    ),
    "lives": (
        (
            "{s} lives in {o}.",
            "The present home of {s} is in {o}.",
            "For many years {s} has resided in {o}.",
            "{o} is where {s} keeps a house.",
            "Letters to {s} should be sent to {o}.",
            "One can meet {s} any evening in {o}.",
        ),
        ("{s} has settled down in {o}.", "The current residence of {s} lies in {o}."),
    ),
    "works": (
        (
            "{s} works as a {o}.",
            "The profession of {s} is that of a {o}.",
            "{s} earns a living as a {o}.",
            "As a {o}, {s} is known to everyone.",
            "Being a {o} suits {s} well.",
            "When a {o} is needed, people ask for {s}.",
        ),
        ("By trade, {s} is a {o}.", "{s} makes money by being a {o}."),
    ),
    "plays": (
        (
            "{s} plays the {o}.",
            "The instrument of {s} is the {o}.",
            "On holidays {s} performs on the {o}.",
            "The {o} is what {s} practises every day.",
            "A {o} stands in the room of {s}.",
            "Nobody handles the {o} as {s} does.",
        ),
        ("{s} makes music on the {o}.", "In the band, {s} takes care of the {o}."),
    ),
}
PROFESSIONS = tuple(
    "baker blacksmith botanist carpenter clerk cobbler cook doctor farmer fisher gardener glazier hunter judge librarian"
    " locksmith mason miller nurse painter pilot plumber potter printer sailor surgeon tailor teacher weaver welder".split()
)
INSTRUMENTS = tuple(
    "accordion banjo bassoon bugle cello clarinet cornet dulcimer fiddle flute guitar harmonica harp harpsichord horn lute"
    " lyre mandolin marimba oboe organ piano piccolo recorder sitar trombone trumpet tuba viola zither".split()
)
STARTS, MIDDLES = (
    tuple("b d f g h k l m n p r s t v z br dr kr tr st".split()),
    tuple("a e i o u ai ea or el an in".split()),
)
#: Share of the people who live where they were born: sentences about both hold the same names.
AT_HOME = 0.25


@dataclass(frozen=True)
class Sentence:
    """A sentence.

    Attributes:
        text: All of it.
        hidden: The part that an encoder-decoder is to fill in, as character positions.
        fact: Number of the fact that it states, -1 for none.
    """

    text: str
    hidden: tuple[int, int]
    fact: int = -1


@dataclass(frozen=True)
class Facts:
    """What was invented.

    Attributes:
        sentences: Training sentences, those of a fact one after the other.
        exact: A query a fact of every other person: one of its training sentences that end with the object.
        paraphrased: A query for each of the same facts, in words that training sentences use of other people alone.
    """

    sentences: tuple[Sentence, ...]
    exact: tuple[Sentence, ...]
    paraphrased: tuple[Sentence, ...]


def invent(people: int, statements: int, seed: int) -> Facts:
    """Invent four facts about each of some people.

    Args:
        people: How many people.
        statements: In how many sentences each fact is stated, at most six.
        seed: Of all choices.
    """
    draw = np.random.default_rng(seed)
    given, family, towns = _names(draw, 60, ""), _names(draw, 60, "er"), _names(draw, 40, "dor")
    pairs = draw.choice(len(given) * len(family), people, replace=False)
    sentences: list[Sentence] = []
    exact: list[Sentence] = []
    paraphrased: list[Sentence] = []
    fact = -1
    for person, pair in enumerate(pairs):
        subject = f"{given[pair // len(family)]} {family[pair % len(family)]}"
        birth = str(draw.choice(towns))
        objects = {
            "born": birth,
            "lives": birth if draw.random() < AT_HOME else str(draw.choice(towns)),
            "works": str(draw.choice(PROFESSIONS)),
            "plays": str(draw.choice(INSTRUMENTS)),
        }
        for relation, (stated, kept) in TEMPLATES.items():
            fact, asked = fact + 1, person % 2 == 0
            first = int(draw.integers(3))  # at least one training sentence ends with the object
            known = stated if asked else stated + kept  # the words of paraphrases are learned from other people
            others = draw.permutation([place for place in range(len(known)) if place != first])[: statements - 1]
            own = [_fill(known[place], subject, objects[relation], fact) for place in (first, *others)]
            sentences += own
            if asked:
                exact.append(own[0])
                paraphrased.append(_fill(str(draw.choice(kept)), subject, objects[relation], fact))
    return Facts(tuple(sentences), tuple(exact), tuple(paraphrased))


def _fill(template: str, subject: str, thing: str, fact: int) -> Sentence:
    before = template[: template.index("{o}")].replace("{s}", subject)
    return Sentence(template.format(s=subject, o=thing), (len(before), len(before) + len(thing)), fact)


def _names(draw: np.random.Generator, count: int, ending: str) -> list[str]:
    """Make names of two or three syllables."""
    found: dict[str, None] = {}
    while len(found) < count:
        many = int(draw.integers(1, 3)) + (not ending)
        syllables = [f"{draw.choice(STARTS)}{draw.choice(MIDDLES)}" for _ in range(many)]
        found["".join(syllables).capitalize() + ending] = None
    return list(found)
