"""Questions whose answers a story states: name, kind, place and color, each with its fact.

`chat.py` asks for whatever the generator knows, also for a home that the story never mentions; such
an answer can only be guessed, and teaches guessing. Here a question is asked only if the text
read so far has the fact in words, and the fact can be marked in the answer.
"""

import re
from dataclasses import dataclass
from functools import cache

from . import words as w

KINDS = ("name", "kind", "place", "color")
PERSONS = w.PEOPLE | set(
    (
        "mermaid troll elf gnome snowman pirate doctor teacher painter fisherman shepherd tailor king"
        " queen astronaut cook gardener woman man clown monster ghost"
    ).split()
)


@dataclass(frozen=True)
class Question:
    """A question with one true answer; `facts` are the words that an answer must have one of."""

    kind: str
    ask: str
    answer: str
    facts: tuple

    def spans(self):
        """Where the facts are in the answer: pairs (start, end) in characters."""
        found = [m for f in self.facts for m in whole(f).finditer(self.answer)]
        return [m.span() for m in found]


# [N], [K] and their like stand for each character in turn.
NAME = (
    (
        "{What was the name of the [K]?|What was the name of the [K]?|What was the [K]'s name?|What"
        " is the [K]'s name?|What was the [K] called?|What is the name of the [K]?|What is the [K]"
        " called?|Who was the [K]?|Do you know the name of the [K]?|And the name of the [K]?|Tell"
        " me the name of the [K].|What did they call the [K]?|the name of the [K]?}"
    ),
    (
        "{The [K]'s name was [N].|The [K] was named [N].|The name of the [K] was [N].|The [K] was"
        " called [N].}"
    ),
)
KIND = (
    (
        "{What was [N]?|Who was [N]?|Who is [N]?|What is [N]?|What kind of creature was [N]?|What"
        " sort of creature was [N]?|Was [N] an animal or a person?|And who was [N]?|Tell me what"
        " [N] was.}"
    ),
    "[N] was a [K].",
)
KIND_ANIMAL = (
    "{What kind of animal was [N]?|What kind of animal was [N]?|What animal was [N]?|Which animal"
    " was [N]?|What kind of animal is [N]?}",
    KIND[1],
)
HOME = (
    (
        "{Where did [N] live?|Where did [N] live?|Where did the [K] live?|Where does [N] live?|Where"
        " was the home of [N]?|Where was [N]'s home?|In which place did [N] live?|And where did [N]"
        " live?}"
    ),
    "{[N] lived [lived].|The [K] lived [lived].}",
)
COLOR = (
    (
        "{What color was the [t]?|What color was the [t]?|Which color was the [t]?|What was the"
        " color of the [t]?|What color did the [t] have?|And what color was the [t]?|Do you know"
        " the color of the [t]?}"
    ),
    "{The [t] was [c].|The color of the [t] was [c].}",
)
OWN_COLOR = (
    (
        "{What color was [N]'s [t]?|What color was the [t] of [N]?|What color was the [t] of the"
        " [K]?|What was the color of [N]'s [t]?|Which color was [N]'s [t]?}"
    ),
    "{[N]'s [t] was [c].|The [t] of [N] was [c].}",
)
OF_A_CHARACTER = re.compile(r"\[(N|K|A|He|he|His|his|him|t|c|lived)\]")
PREPOSITION = re.compile(
    r"^(?:in|on|at|by|near|under|behind|beside|inside|between|among|deep in|on the path near|to)\s"
)
WHERE = re.compile(
    r"\b(?:near|at|in|on|by|under|behind|beside|inside|between|among|deep|to)\b.*(?=\.$)"
)


def of(prefix, template):
    """A template of the hero as one of another character: [N] becomes [fN]."""
    return OF_A_CHARACTER.sub(lambda m: f"[{prefix}{m.group(1)}]", template)


@cache
def whole(words):
    """Matches these words, whatever their case, and no part of a word."""
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.I)


def stated(words, text):
    return whole(words).search(text) is not None


def place_words(place):
    """A place without its preposition: a story may say "by the pond" and an answer "near"."""
    return PREPOSITION.sub("", place)


def asked(s, kind, pair, facts):
    ask, answer = (s.say(x) for x in pair)
    return Question(kind, ask, answer, tuple(facts))


def of_character(s, prefix, text):
    """The questions about one character that this text answers, as (kind, make)."""
    v, out = s.v, []
    name, kind = v[prefix + "N"], v[prefix + "K"]
    if not (stated(name, text) and stated(kind, text)):
        return out
    others = [x for k, x in v.items() if k != prefix + "K" and isinstance(x, str)]
    if kind not in others and not re.search(rf"little {kind}\. |baby {kind}", text):
        out.append(("name", lambda: asked(s, "name", (of(prefix, t) for t in NAME), [name])))
    asks = KIND_ANIMAL if kind not in PERSONS and s.r.chance(0.4) else KIND
    out.append(("kind", lambda: asked(s, "kind", (of(prefix, t) for t in asks), [kind])))
    homes = [v[k] for k in (prefix + "P", prefix + "home") if k in v and stated(v[k], text)]
    if homes:
        where = f"in {homes[-1]}" if homes[-1] == v[prefix + "home"] else homes[-1]
        if len(homes) == 2:
            where = s.r.choice([homes[0], where, f"{where} {homes[0]}"])
        v[prefix + "lived"] = where
        out.append(("place", lambda: asked(s, "place", (of(prefix, t) for t in HOME), homes)))
    return out


def of_plot(s, plot, text):
    """Those questions of a plot that ask for a place or a color."""
    out = []
    for ask, answer in plot["qa"]:
        kind = "place" if "Where" in ask else "color" if "color" in ask else None
        if not kind:
            continue
        # All forms of one answer state the same fact.
        told = s.say(answer)
        if kind == "color":
            if "[wall]" in ask or ("[c]" not in answer and "[c2]" not in answer):
                continue
            fact = s.v["c"] if "[c]" in answer else s.v["c2"]
        else:
            found = WHERE.search(told)
            if not found or "?|What" in ask:
                continue
            fact = place_words(found.group())
        if stated(fact, text):
            out.append((kind, lambda q=(ask, answer), k=kind, f=fact: asked(s, k, q, [f])))
    color, thing = s.v["c"], s.v["t"]
    if stated(f"{color} {thing}", text):
        others = [c for c in w.COLORS if c != color]
        if not any(stated(f"{c} {thing}", text) or f"{thing} was {c}" in text for c in others):
            out.append(("color", lambda: asked(s, "color", COLOR, [color])))
    return out


def about(s, plot, text):
    """All questions that a story answers, as pairs (kind, function that makes a Question)."""
    out = []
    for prefix in ("", "f", "g"):
        if prefix + "N" in s.v:
            out += of_character(s, prefix, text)
    return out + of_plot(s, plot, text)


def some(s, plot, text, n, kinds=KINDS):
    """At most n questions of different wording, of the given kinds in equal parts where possible."""
    made, seen = [], set()
    pool = about(s, plot, text)
    by_kind = {k: s.r.sample(ms, len(ms)) for k in kinds if (ms := [m for q, m in pool if q == k])}
    while by_kind and len(made) < n:
        for kind in s.r.sample(list(by_kind), len(by_kind)):
            if len(made) == n:
                break
            question = by_kind[kind].pop()()
            if not by_kind[kind]:
                del by_kind[kind]
            if question.ask not in seen:
                seen.add(question.ask)
                made.append(question)
    return made


# Words of which an answer may have only those of the fact or of the question.
RIVALS = {
    "name": sorted(w.ALL_NAMES),
    "kind": sorted([*w.KINDS, *w.RARE_KINDS]),
    "color": w.COLORS,
    "place": [place_words(p) for p in w.PLACES] + w.SPOTS,
}


def rivals(question, names=()):
    """Words of the fact's kind that make an answer wrong: those not in the question or its answer."""
    known = f"{question.ask} {question.answer} {' '.join(question.facts)}"
    words = [*RIVALS[question.kind], *(names if question.kind == "name" else ())]
    return [r for r in words if not stated(r, known)]


def right(question, answer, names=()):
    """Whether an answer states the fact, and no other of its kind."""
    if not any(stated(f, answer) for f in question.facts):
        return False
    return not any(stated(r, answer) for r in rivals(question, names))
