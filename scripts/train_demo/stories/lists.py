"""The same few facts again and again, in one to three forms: the first lessons of looking up.

A model that has never looked a fact up learns it from nothing else in reasonable time: what it must
attend to is one token of many, so the shorter the list, the sooner it is found. `train_qa.py` begins
with lists of two and goes on to longer ones.
"""

from . import words as w
from .engine import Story

# A form, and the slot that a repetition asks for: name, kind, thing or color.
OF_NAMES = [
    ("The {K} was named {N}.", "N"),
    ("The {K} was called {N}.", "N"),
    ("The {K}'s name was {N}.", "N"),
    ("The name of the {K} was {N}.", "N"),
    ("{N} was a {K}.", "K"),
    ("The {K} {N}.", "N"),
    ("{N} the {K}.", "K"),
    ("{K}: {N}.", "N"),
    ("{N}: {K}.", "K"),
    ("There was a {K} named {N}.", "N"),
]
OF_COLORS = [
    ("The {T} was {C}.", "C"),
    ("The color of the {T} was {C}.", "C"),
    ("{T}: {C}.", "C"),
    ("The {C} {T}.", "T"),
    ("{N} had the {C} {T}.", "C"),
    ("{N}'s {T} was {C}.", "C"),
]
# Most characters, most forms in one list, whether names are of all lists or invented, repetitions of
# each.
LEVELS = {1: (2, 1, False, 2), 2: (4, 2, True, 2), 3: (6, 3, True, 3)}


def filled(form, asked, slots):
    """A form with its slots filled, and where the slot that is asked for is: (start, end)."""
    text, span, i = "", None, 0
    while i < len(form):
        if form[i] != "{":
            text += form[i]
            i += 1
            continue
        value = slots[form[i + 1]]
        if form[i + 1] == asked:
            span = (len(text), len(text) + len(value))
        text += value
        i += 3
    return text, span


def facts(level, seed):
    """A text, and the spans (start, end, slot) of its facts that were stated before."""
    most, most_forms, wide, repetitions = LEVELS[level]
    s = Story(seed, wide=wide)
    r, v = s.r, s.v
    count = 2 + r.below(most - 1)
    colors, things = r.sample(w.COLORS, count), r.sample(w.TOYS + w.RARE_TOYS, count)
    people, used = [], set()
    while len(people) < count:
        if not (v["N"] in used or v["K"] in used):
            used |= {v["N"], v["K"]}
            i = len(people)
            people.append({"N": v["N"], "K": v["K"], "C": colors[i], "T": things[i]})
        s.person("")
    pool = OF_COLORS if r.below(4) == 0 else OF_NAMES
    forms = r.sample(pool, 1 + r.below(most_forms))
    order = r.sample(list(range(count)), count) + [
        r.below(count) for _ in range(count * repetitions)
    ]
    out, spans, seen = "", [], set()
    for i in order:
        form, asked = r.choice(forms)
        text, span = filled(form, asked, people[i])
        at = len(out) + (1 if out else 0)
        # What a sentence begins with, nothing before it says.
        if i in seen and span[0] > 0:
            spans.append((at + span[0], at + span[1], asked))
        seen.add(i)
        out += (" " if out else "") + text
    return out, spans
