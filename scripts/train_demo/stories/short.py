"""Very short stories about two or three characters with facts of their own, and many questions.

They teach answering: each fact is drawn anew, so who lives where, has what and is called what can
only be read in the story. A story of 60 words and six questions says as much about that as six
stories of 200 words.
"""

from . import words as w
from .ask import (
    COLOR,
    HOME,
    KIND,
    KIND_ANIMAL,
    NAME,
    OF_A_CHARACTER,
    OWN_COLOR,
    PERSONS,
    asked,
)
from .engine import Rng, Story

HOMES = sorted({home for _, home, *_ in w.KINDS.values()} | set(w.RARE_HOMES))

FIRST = [
    "{Once upon a time|Once|Long ago|One day}, there was a [A] [K] {named|called} [N].",
    "[N] was a [A] [K].",
    "[N] was a [K].",
    "There was once a [K]. [His] name was [N].",
    "{This is the story of|Do you know|Have you heard of|Everyone knew} [N] the [K].",
    "There was a [K] named [N], and [he] was very [A].",
    "A [A] [K] was called [N].",
    "Once there lived a [A] [K]. Everybody called [him] [N].",
]
FIRST_LIVED = [
    "{Once upon a time|Once|Long ago}, [lived], there lived a [A] [K] {named|called} [N].",
    "[N] was a [A] [K] who lived [lived].",
    "A [A] [K] lived [lived]. [His] {name was|friends called [him]} [N].",
    "[N] the [K] lived [lived].",
    "Everyone [lived] knew [N], the [A] [K].",
]
NEXT = [
    "[His0] friend was a [A] [K] {named|called} [N].",
    "[His0] friend [N] was a [A] [K].",
    "{One day|Then|On the way|Near [spot]|One morning}, [N0] met [N] the [K].",
    "{One day|Then|On the way|One morning}, [he0] met a [A] [K] {named|called} [N].",
    '{Soon|Just then}, a [A] [K] came by. "{I am|My name is} [N]," said the [K].',
    "[N0] knew a [K]. [His] name was [N].",
    "[N0] went to see [N], a [A] [K].",
]
NEXT_LIVED = [
    "[His0] friend [N], a [A] [K], lived [lived].",
    "[N0] knew a [A] [K] who lived [lived]. [His] name was [N].",
    "[N0] often went to see [N] the [K], who lived [lived].",
]
LIVED = ["[N] lived [lived].", "The [K] lived [lived].", "[N]'s home was [lived]."]
LIVED_HE = ["[He] lived [lived].", "[His] home was [lived]."]
HAS = [
    "[N] had a [c] [t].",
    "[N] {loved|found|made|brought} a [c] [t].",
    "The [K] had a [c] [t].",
    "[N]'s [t] was [c].",
    "[N]'s favorite thing was a [c] [t].",
]
HAS_HE = ["[He] had a [c] [t].", "[He] {loved|carried} [his] [c] [t].", "[His] [t] was [c]."]
FILL = [
    "[W]",
    "They played all day.",
    "[N0] laughed.",
    "They {ate some|shared the|had some} [food].",
    "[N0] and [N1] were good friends.",
    "They walked to [spot].",
    "[N1] liked to [hobby].",
    "[N0] lost the [t0] near [spot2], but [N1] found it.",
    "It was a {good|long|fine} day.",
    '"Good morning," said [N1].',
]
LAST = ["{They were happy.|The end.|}", "", "[N0] and [N1] went home."]
ASK = [
    "Tell me a {very |}short story{| about a [K0]| about a [K0] and a [K1]| about [N0]}.",
    "Tell me a story{| about a [K0]| about a [K0] and a [K1]| about [N0] the [K0]}.",
    "{Write|Make up} a {small|little|short} story about a [K0].",
    "A {short|little} story about a [K0]{| and a [K1]}, please.",
    "story about a [K0]",
    "Tell me about {[N0]|[N0] and [N1]|a [K0]}.",
]
OWNER = ("{Who had the [c] [t]?|Whose [t] was [c]?}", "[N] had the [c] [t].")
DWELLER = ("{Who lived [lived]?|Who was it that lived [lived]?}", "[N] lived [lived].")
HERO = ("{Who was the story about?|Who is the story about?}", "The story was about [N].")


EACH = [
    "[N] was a [K].",
    "[N] was a [A] [K].",
    "There was [N] the [K].",
    "There was a [K] {named|called} [N].",
    "The [K] was {called|named} [N].",
    "The [K]'s name was [N].",
    "The name of the [K] was [N].",
    "[N], a [A] [K], was there.",
    '"I am [N]," said the [K].',
    "{Next came|Then came|Here came} [N] the [K].",
]
EACH_LIVED = [
    "[N] the [K] lived [lived].",
    "[N], a [K], lived [lived].",
    "The [K] [N] lived [lived].",
]
EACH_HAS = [
    "[N] the [K] had a [c] [t].",
    "[N], a [K], had a [c] [t].",
    "[N]'s [t] was [c]. [He] was a [K].",
]


def asks(s, i, lives, has, same):
    """Questions about character i, as pairs (kind, function that makes a Question)."""
    r, v, out = s.r, s.v, []

    def add(kind, pair, fact):
        out.append((kind, lambda: asked(s, kind, (_with(i, t) for t in pair), [fact])))

    name, kind = v["N" + i], v["K" + i]
    add("name", NAME, name)
    add("kind", KIND_ANIMAL if kind not in PERSONS and r.chance(0.4) else KIND, kind)
    if lives:
        add("place", HOME, v["lived" + i])
        if r.chance(0.3):
            add("name", DWELLER, name)
    if has:
        add("color", OWN_COLOR if same or r.chance(0.5) else COLOR, v["c" + i])
        if r.chance(0.3):
            add("name", OWNER, name)
    return out


def drill(seed):
    """Statements about three to six characters, and the same facts stated again two or three times in
    other orders and words: (state, first statements, restatements as Questions without a question).

    Nearly every sentence of the second part has a fact that the first part gives, so a token teaches
    several times as much about looking up as one of a conversation.
    """
    s, text, made = roll(seed, 3 + Rng(f"drill-{seed}").below(4))
    again = []
    for _ in range(2 + s.r.below(2)):
        again += [make() for _, make in s.r.sample(made, len(made))]
    return s, text, again


def roll(seed, count=0):
    """Three to five characters, a sentence or two each, nothing else: as `story`, and plainer."""
    s = Story(seed, wide=True)
    r, v = s.r, s.v
    count = count or 3 + r.below(3)
    places, homes = r.sample(w.PLACES, count), r.sample(HOMES, count)
    colors, things = r.sample(w.COLORS, count), r.sample(w.TOYS + w.RARE_TOYS, count)
    lines, out, used = [], [], set()
    for n in range(count):
        while v["N"] in used or v["K"] in used:
            s.person("")
        used |= {v["N"], v["K"]}
        i = str(n)
        for slot in ("N", "K", "A", "he", "him", "his"):
            v[slot + i] = v[slot]
        v["lived" + i] = r.choice([places[n], f"in {homes[n]}"])
        v["c" + i], v["t" + i] = colors[n], things[n]
        more = r.below(3)
        line = r.choice((EACH, EACH_LIVED, EACH_HAS)[more])
        lines.append(s.say(_with(i, line)))
        lives, has = more == 1, more == 2
        if more == 0 and r.chance(0.4):
            lives = r.chance(0.5)
            has = not lives
            lines.append(s.say(_with(i, r.choice(LIVED_HE + LIVED if lives else HAS_HE + HAS))))
        out += asks(s, i, lives, has, False)
    return s, " ".join(lines), out


def story(seed):
    """A state with characters "0", "1" and perhaps "2" (slots N0, K0 and so on), its text, and its
    questions as pairs (kind, function that makes a Question).
    """
    s = Story(seed, wide=True)
    r, v = s.r, s.v
    count = 2 if r.chance(0.65) else 3
    s.person("f")
    s.person("g")
    places, homes = r.sample(w.PLACES, count), r.sample(HOMES, count)
    colors, things = r.sample(w.COLORS, count), r.sample(w.TOYS + w.RARE_TOYS, count)
    same = r.chance(0.3)
    people = []
    for i, prefix in enumerate(("", "f", "g")[:count]):
        for slot in ("N", "K", "A", "he", "him", "his"):
            v[f"{slot}{i}"] = v[prefix + slot]
        home = f"in {homes[i]}"
        v[f"lived{i}"] = r.choice([places[i], places[i], home])
        v[f"c{i}"], v[f"t{i}"] = colors[i], things[0] if same else things[i]
        people.append(str(i))

    def mine(i, templates):
        return s.say(_with(i, r.choice(templates)))

    lives, has = [r.chance(0.75) for _ in people], [r.chance(0.75) for _ in people]
    lines, later = [], []
    for i in people:
        n = int(i)
        at_once = lives[n] and r.chance(0.4)
        first = (FIRST_LIVED if at_once else FIRST) if n == 0 else NEXT_LIVED if at_once else NEXT
        line = r.choice(first)
        if n == 2:  # "she" would be the second character
            line = line.replace("[His0]", "[N0]'s").replace("[he0]", "[N0]")
        lines.append(mine(i, [line]))
        rest = [(LIVED, LIVED_HE)] * (lives[n] and not at_once) + [(HAS, HAS_HE)] * has[n]
        if r.chance(0.6):
            for named, he in r.sample(rest, len(rest)):
                lines.append(mine(i, he if r.chance(0.6) else named))
        else:
            later += [mine(i, named) for named, _ in rest]
        if r.chance(0.3) and n:
            lines.append(s.say(r.choice(FILL)))
    lines += r.sample(later, len(later))
    if r.chance(0.5):
        lines.append(s.say(r.choice(FILL)))
    lines.append(s.say(r.choice(LAST)))
    text = " ".join(x for x in lines if x)
    if r.chance(0.3):
        cut = text.find(". ", len(text) // 3)
        if cut > 0:
            text = text[: cut + 1] + "\n\n" + text[cut + 2 :]

    out = []
    for i in people:
        out += asks(s, i, lives[int(i)], has[int(i)], same)
    if r.chance(0.1):
        out.append(("name", lambda: asked(s, "name", (_with("0", t) for t in HERO), [v["N0"]])))
    return s, text, out


def _with(i, template):
    """[N] as the slot of character i; [N0] and other numbered slots stay."""
    return OF_A_CHARACTER.sub(lambda m: f"[{m.group(1)}{i}]", template)
