"""The story state, its template language, and a portable random number generator.

Templates: ``{a|b}`` picks one alternative (nestable, may be empty), ``[slot]`` reads the state and
``[Slot]`` reads it with a capital letter. Articles before vowels and sentence capitals are mended last.
"""

import re
from functools import cache

from . import words as w

MASK = (1 << 64) - 1
RARE = 0.2
INVENTED = 1 / 7


class Rng:
    """splitmix64 seeded by a text; independent of the Python version."""

    def __init__(self, seed):
        h = 0xCBF29CE484222325
        for byte in str(seed).encode():
            h = ((h ^ byte) * 0x100000001B3) & MASK
        self.state = h

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        return (self.next() * n) >> 64

    def choice(self, items):
        return items[self.below(len(items))]

    def chance(self, p):
        return self.below(1_000_000) < p * 1_000_000

    def sample(self, items, n):
        items = list(items)
        for i in range(n):
            j = i + self.below(len(items) - i)
            items[i], items[j] = items[j], items[i]
        return items[:n]


@cache
def parse(template):
    """Turns a template into a tree: a str, ("slot", name) or ("any", [trees]) in a list."""
    pos = 0

    def sequence(closers):
        nonlocal pos
        out = []
        while pos < len(template) and template[pos] not in closers:
            ch = template[pos]
            if ch == "{":
                pos += 1
                alternatives = [sequence("|}")]
                while template[pos : pos + 1] == "|":
                    pos += 1
                    alternatives.append(sequence("|}"))
                if template[pos : pos + 1] != "}":
                    raise ValueError(f"an open brace: {template}")
                pos += 1
                out.append(("any", alternatives))
            elif ch == "[":
                end = template.index("]", pos)
                out.append(("slot", template[pos + 1 : end]))
                pos = end + 1
            elif ch in "|}":
                raise ValueError(f"a {ch} without its brace at {pos}: {template}")
            else:
                start = pos
                while pos < len(template) and template[pos] not in "{|}[":
                    pos += 1
                out.append(template[start:pos])
        return out

    return sequence("")


AN = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")
SPACES = re.compile(r" {2,}")
CAPITAL = re.compile(r'(^|[.!?] |^"|[.!?] "|\n\n|\n\n")([a-z])')
PRONOUNS = {
    "m": dict(he="he", him="him", his="his", himself="himself", child="boy"),
    "f": dict(he="she", him="her", his="her", himself="herself", child="girl"),
}


class Story:
    """One story's facts. Every sentence is made from them, so a name, kind or colour never changes.

    A wide story takes its names from all lists alike, and invents one in seven: who is called what
    can only be had from the story.
    """

    def __init__(self, seed, wide=False):
        self.r = Rng(seed)
        self.wide = wide
        self.v = {}
        r, v = self.r, self.v
        self.person("")
        v["P"] = r.choice(w.PLACES)
        banned = {
            "near a blue lake": "the pond",
            "behind the old mill": "the mill",
            "on the bank of a wide river": "the river",
        }.get(v["P"])
        spots = [s for s in w.SPOTS if s != banned]
        v["spot"], v["spot2"], v["spot3"] = r.sample(spots, 3)
        v["c"], v["c2"] = r.sample(w.COLORS, 2)
        v["t"], v["t2"] = r.sample(w.TOYS, 2)
        if r.chance(RARE):
            v["t"] = r.choice(w.RARE_TOYS)
        v["food"], v["food2"] = r.sample(w.FOODS, 2)
        v["fruit"] = r.choice(w.FRUITS)
        v["flower"] = r.choice(w.FLOWERS)
        v["hobby"] = r.choice(w.HOBBIES)
        v["num"], v["num2"] = r.sample(w.NUMS, 2)
        self.relative()
        self.weather("sunny")

    def relative(self):
        v = self.v
        v["rel"] = self.r.choice(list(w.RELS))
        p = PRONOUNS[w.RELS[v["rel"]]]
        v["rhe"], v["rhim"], v["rhis"] = p["he"], p["him"], p["his"]

    def weather(self, key):
        self.v["W"] = self.r.choice(w.WEATHER[key])

    def person(self, prefix, ability=None, kinds=None, people=True):
        """Adds a character with slots prefix+N, K, ks, A, he, him, his, himself, home, hands."""
        r, v = self.r, self.v
        used_kinds = {v[k] for k in ("K", "fK", "gK") if k in v}
        used_names = {v[k] for k in ("N", "fN", "gN") if k in v}
        if kinds is None:
            kinds = list(w.KINDS)
        pool = [k for k in kinds if k not in used_kinds]
        if ability:
            pool = [k for k in pool if ability in w.KINDS[k][2].split()]
        if not people:
            pool = [k for k in pool if k not in w.PEOPLE]
        kind = r.choice(pool)
        plural, home, _, hands, gender = w.KINDS[kind]
        rare = [k for k in w.RARE_KINDS if k not in used_kinds]
        if not ability and people and r.chance(RARE):
            kind = r.choice(rare)
            plural, home, hands, gender = (
                w.RARE_KINDS[kind],
                r.choice(w.RARE_HOMES),
                "",
                w.RARE_GENDER.get(kind, ""),
            )
        if not gender:
            gender = "f" if r.chance(0.5) else "m"
            # Two characters of the same gender make "he" or "she" ambiguous: mostly avoid it.
            if prefix == "f" and r.chance(0.8):
                gender = "m" if v["he"] == "she" else "f"
        names = w.NAMES_F if gender == "f" else w.NAMES_M
        if self.wide:
            names = w.NAMES_F + w.RARE_F if gender == "f" else w.NAMES_M + w.RARE_M
            if r.chance(INVENTED):
                names = [self.invented(gender, used_names)]
        elif r.chance(RARE):
            names = w.RARE_F if gender == "f" else w.RARE_M
        names = [n for n in names if n not in used_names]
        v[prefix + "N"], v[prefix + "K"], v[prefix + "ks"] = r.choice(names), kind, plural
        for key, value in PRONOUNS[gender].items():
            v[prefix + key] = value
        v[prefix + "home"], v[prefix + "hands"] = home, hands
        v[prefix + "A"] = r.choice([a for a in w.ADJ if a != v.get("A")])
        return kind

    def invented(self, gender, used):
        """A name of two or three syllables that is in no list."""
        r = self.r
        while True:
            name = "".join(r.choice(w.ONSETS) + r.choice(w.VOWELS) for _ in range(1 + r.below(2)))
            name += r.choice(w.ENDS_F if gender == "f" else w.ENDS_M)
            name = name.capitalize()
            if name not in w.ALL_NAMES and name not in used:
                return name

    def say(self, template):
        """Expands a template with this story's facts."""
        out = []
        self._walk(parse(template), out)
        text = SPACES.sub(" ", "".join(out)).strip()
        text = text.replace(" .", ".").replace(" ,", ",")
        text = AN.sub(r"\1n ", text)
        return CAPITAL.sub(lambda m: m.group(1) + m.group(2).upper(), text)

    def _walk(self, nodes, out):
        for node in nodes:
            if isinstance(node, str):
                out.append(node)
            elif node[0] == "any":
                self._walk(self.r.choice(node[1]), out)
            else:
                name = node[1]
                if name in self.v:
                    value = self.v[name]
                    # A slot may hold slots ("in [his] bag"), but no alternatives.
                    self._walk(parse(value), out) if "[" in value else out.append(value)
                else:
                    low = name.lower()  # "[He]" is "he", "[fHe]" is "fhe"
                    value = self.v[low]
                    out.append(value[0].upper() + value[1:])
