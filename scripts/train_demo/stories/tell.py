"""Puts a whole story together: opening, plot, lesson and ending, in paragraphs."""

import re

from . import plots_color, plots_deeds, plots_heart, plots_lost, plots_things, plots_wonder
from .engine import Story

INTRO = [
    (
        "{Once upon a time|Once upon a time|Once|Long ago|A long time ago}, there was a [A] [K]"
        " named [N]. [He] lived in [home] [P]."
    ),
    (
        "Once upon a time, there was a [A] [K] {named|called} [N]. {[He] lived [P].|[He] loved to"
        " [hobby].|[N] lived in [home].}"
    ),
    (
        "{Once upon a time|Once upon a time, long, long ago}, [P], there lived a [A] [K]"
        " {called|named} [N]."
    ),
    "{Once upon a time|Once|Long ago}, a [A] [K] lived [P]. [His] name was [N].",
    (
        "{Once upon a time there was a [K].|There was once a [K].|There was a [K] [P].} {[His] name"
        " was [N], and [he] was very [A].|[He] was called [N].}"
    ),
    (
        "[P], there lived a [A] [K] {called|named} [N]. {[He] loved to [hobby].|Every morning, [he]"
        " said hello to the sun.|}"
    ),
    (
        "[N] was a [A] [K] who lived [P]. {[He] had {bright eyes|a kind heart|a soft voice|many"
        " dreams}.|Everyone knew [him].|[He] liked to [hobby].}"
    ),
    (
        "[N] was a [A] [K]. {[He] lived in [home].|[He] lived [P].|[He] loved [food] and liked to"
        " [hobby].}"
    ),
    (
        "There was once a [K] named [N]. [N] was very [A]. {[He] lived with [his] [rel] [P].|[He]"
        " liked [fruit] more than anything else.}"
    ),
    "This is the story of [N], a [A] [K]. {[He] lived [P].|[N] lived in [home] [P].}",
    "Do you know [N] the [K]? [He] lived [P], and [he] was very [A].",
    "Everyone [P] knew [N], the [A] [K]. {[He] lived in [home].|[He] loved to [hobby].}",
    '"Good morning, {world|sun}!" said [N]. [N] was a [A] [K], and [he] lived in [home] [P].',
    (
        "{A [A] [K] lived|There lived a [A] [K]} in [home] [P]. {Everybody called [him] [N].|[His]"
        " friends called [him] [N].}"
    ),
    (
        "In the middle of a {big|little} {garden|valley} lived a [K]. [His] name was [N], and [he]"
        " was very [A]."
    ),
    "Have you heard of [N]? [N] was a [A] [K], and [his] home was [home] [P].",
    "{One spring|One summer|One fall|One winter|Last year}, a [A] [K] named [N] lived [P].",
    "[N] the [K] lived in [home]. [He] was [A] and liked to [hobby].",
    (
        "One {day|morning}, a [A] [K] named [N] {woke up early|opened the door|looked out of the"
        " window}. [He] lived {[P]|in [home]}."
    ),
    (
        "The [A] [K] lived in [home]. {[His] name was [N].|[He] was called [N], and [he] liked to"
        " [hobby].}"
    ),
    "[W] A [A] [K] named [N] sat {by|near} [spot3]. {[He] lived [P].|[He] liked to [hobby].}",
]

MORALS = {
    "help": [
        "it is good to ask for help",
        "friends make hard things easy",
        "we can do more when we work together",
    ],
    "share": [
        "sharing makes everyone happy",
        "food tastes better with a friend",
        "there is enough when we share",
    ],
    "brave": [
        "being brave means trying even when you are afraid",
        "everyone is afraid sometimes",
        "a small heart can be very brave",
    ],
    "true": [
        "it is best to tell the truth",
        "a lie only makes things worse",
        "an honest word opens every door",
    ],
    "patient": ["good things take time", "it is good to try again", "you must not give up"],
    "kind": [
        "a kind act is never lost",
        "being kind is better than being first",
        "even a small friend can be a big help",
    ],
    "friend": ["friends do not forget", "good friends are the best gift"],
}

LESSON = [
    "[N] learned that [moral].",
    '"Now I know that [moral]," {said [N]|[he] said}.',
    "{That day|On that day}, [N] learned that [moral].",
    '"[moral]," said [his] [rel]. {And [N] thought so too.|}',
    "And [N] never forgot that [moral].",
]
END_FRIEND = [
    (
        "{From that day on|After that|From then on}, [N] and [fN] {were best friends|were good"
        " friends|played together every day|always helped each other}."
    ),
    (
        "{That night|That evening}, [N] lay in bed and {smiled|thought of [fN]}. It had been a"
        " {very good|wonderful|long} day."
    ),
    (
        "They {laughed|sang|danced} together until {the stars came out|the moon was high|it was"
        " time for bed}."
    ),
    "And if you go {there|to [spot]} today, you may see [N] and [fN] {together|laugh and play}.",
    "[N] and [fN] {stayed friends for the rest of their lives|lived happily ever after}.",
    (
        '[N] went home {tired but happy|with a big smile}. {"What a day!" [he] said.|[He] told'
        " [his] [rel] all about it.}"
    ),
    "And so [N] the [K] and [fN] the [fK] became the best of friends. The end.",
    "{The end.|And that is the end of the story.}",
]


# Repeated plots are chosen more often. Changing the order changes what a seed gives.
PLOTS = [
    *[plots_lost.lost] * 3,
    *[plots_lost.found] * 2,
    plots_things.broken,
    plots_things.thief,
    plots_things.share,
    *[plots_things.make] * 2,
    *[plots_things.gift] * 2,
    *[plots_heart.friend] * 2,
    *[plots_heart.fear] * 2,
    *[plots_heart.learn] * 2,
    *[plots_deeds.rescue] * 2,
    plots_deeds.lostway,
    plots_deeds.storm,
    plots_deeds.seed,
    plots_deeds.race,
    plots_wonder.star,
    plots_heart.surprise,
    plots_heart.quarrel,
    plots_wonder.egg,
    plots_wonder.kingdom,
]

BARE_THING = re.compile(r"(?<!\[c\] )(?<!\[c2\] )(?<!a )\[t\]")


def build(seed, vivid=False, wide=False):
    """Returns (state, plot dict, story text) of one seed. A plot is a dict of templates:
    title, beats (the sentences in order), morals (keys of MORALS), about (what a request may say of
    the hero), qa (questions and true answers), end and next (answers to "how did it end", "and then").

    A vivid story (the second stage of training) names colors more often and has plots about them.
    """
    s = Story(seed, wide)
    if vivid and s.r.chance(0.3):
        plot = s.r.choice(plots_color.PLOTS)(s)
    else:
        plot = s.r.choice(PLOTS)(s)
        if vivid and "[c] [t]" in plot["end"] + "".join(plot["beats"]):
            plot["beats"] = [
                BARE_THING.sub(lambda m: "[c] [t]" if s.r.chance(0.5) else "[t]", b)
                for b in plot["beats"]
            ]
    s.v["moral"] = s.r.choice(MORALS[s.r.choice(plot["morals"].split())])
    intro = s.r.choice(INTRO)
    beats = [s.say(intro)] + [s.say(b) for b in plot["beats"]]
    if s.r.chance(0.5):
        beats.append(s.say(s.r.choice(LESSON)))
    beats.append(s.say(s.r.choice(END_FRIEND)))
    paragraphs, current = [], []
    for beat in beats:
        if not beat:
            continue
        current.append(beat)
        if len(current) >= 2 and s.r.chance(0.5):
            paragraphs.append(" ".join(current))
            current = []
    if current:
        paragraphs.append(" ".join(current))
    return s, plot, "\n\n".join(paragraphs)


def story(seed, vivid=False):
    """The text of one story."""
    return build(seed, vivid)[2]
