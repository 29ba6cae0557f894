"""Plots of wonders: a fallen star, an egg, a quest."""

from .plots_lost import meet


def star(s):
    r, v = s.r, s.v
    s.person("f", r.choice(["fly", "wise", "climb"]))
    v["body"] = r.choice(["a little star", "a small cloud", "a snowflake", "a moonbeam"])
    v["where"] = r.choice(
        ["to the top of the hill", "to the top of the mountain", "to the top of the old tower"]
    )
    body = v["body"].split(" ", 1)[1]
    v["b"] = body
    return dict(
        title="The [b]",
        beats=[
            (
                'Every night, [N] looked up at the sky. {"I wish I could touch it," [he] often'
                " said.|[He] loved the stars and the moon.}"
            ),
            (
                "One night, [body] fell down {near [spot]|beside [spot]}. [N] ran to see it. The"
                ' [b] was {crying|very sad|pale and cold}. "I want to go home," it said. "{Home is'
                ' up there|But the sky is so far away}."'
            ),
            (
                '"{Do not cry|I will help you}," said [N]. [He] {put it gently in a basket|carried'
                " it carefully}. But how could it go back to the sky?"
            ),
            (
                '[N] asked [fN], a [fA] [fK]. "{Take it|Carry it} [where]," said [fN]. "{There the'
                " sky is close|The wind there is strong}. {I will come with you|Let us go"
                ' together}." They walked {all night|for a long time}.'
            ),
            (
                'At the top, [N] lifted the [b] high. {"One, two, three!" they called.|The wind'
                ' came.} Whoosh! The [b] flew up, up, up {into the night|to the sky}. "Thank you,'
                ' [N]! Thank you, [fN]!" it called.'
            ),
            (
                "{Now, every night,|Since then,} the [b] {smiles down|looks down} at them, and they"
                " wave back."
            ),
        ],
        morals="kind",
        friend=True,
        mood="dreamy",
        about=["and [body]", "who helps [body]", "who finds [body]", "who looked at the sky"],
        qa=[
            ("{What fell from the sky?|What did [N] find?}", "It was [body]."),
            (
                "{Where did they take it?|Where did they go?|Where did they carry the [b]?}",
                "They went [where].",
            ),
            ("{What did the [b] want?|Why was the [b] sad?}", "The [b] wanted to go home."),
        ],
        end="The [b] went back to the sky, and every night [N] and [fN] waved to it.",
        next=(
            "One winter night, the [b] sent them a gift. It was a [c] [t], and it shone in the"
            " dark. [N] and [fN] took turns with it."
        ),
    )


def egg(s):
    r, v = s.r, s.v
    s.person("f")
    v["baby"] = r.choice(
        [
            "a tiny duck",
            "a little dragon",
            "a small turtle",
            "a baby owl",
            "a little swan",
            "a yellow chick",
        ]
    )
    baby = v["baby"].split(" ", 1)[1]
    v["b"] = baby
    v["bn"] = r.choice("Pippin Dot Nibble Sunny Peep Button Cloud Bean".split())
    return dict(
        title="The Egg",
        beats=[
            (
                "One day, [N] found a [c] egg {near [spot]|by [spot]}. It was {cold|all alone}. [N]"
                " looked left and right, but there was no nest."
            ),
            (
                "[He] took it home and {put it near the fire|wrapped it in a blanket}. [His] friend"
                ' [fN] the [fK] came to see it. "{What is inside|Who is in there}?" asked [fN]. "{I'
                ' do not know|We must wait}," said [N].'
            ),
            (
                "They {sat with the egg|kept the egg warm} {day and night|for [num] days}. {[fN]"
                " sang to it.|They told it stories.} Then, one morning: crack! The egg opened, and"
                " out came [baby]."
            ),
            (
                '"{Hello, little one|Welcome}," said [N]. They called it [bn]. {[bn] ate and ate'
                " and grew and grew.|[bn] followed them everywhere.}"
            ),
            (
                "{When summer came|One day}, a {big|proud} mother came {from far away|over the"
                ' hill}. "{I lost my egg in the wind|I have looked for my egg everywhere}," she'
                ' said. [N] was sad, but [he] {knew what was right|took [bn] to her}. "Thank you'
                ' for taking care of my child," said the mother.'
            ),
            (
                "{[bn] came to visit them every week.|They all stayed friends, and [bn] came to"
                " visit every week.}"
            ),
        ],
        morals="kind",
        friend=True,
        mood="curious",
        about=["who found an egg", "who finds an egg", "and a [c] egg", "and [baby]"],
        qa=[
            ("{What was in the egg?|What came out of the egg?}", "There was [baby] in the egg."),
            ("{What color was the egg?}", "The egg was [c]."),
            ("{What did they call it?|What was the name of the [b]?}", "They called it [bn]."),
            ("{Where did [N] find the egg?|Where was the egg?}", "[N] found the egg near [spot]."),
        ],
        end="[N] gave [bn] back to its mother, and they all stayed friends.",
        next=(
            "A year later, [bn] was big and strong. [bn] took [N] and [fN] for a long ride over the"
            " hills. It was the best day of the year."
        ),
    )


def kingdom(s):
    """A small quest: something is missing in the land, and the hero brings it back."""
    r, v = s.r, s.v
    s.person("f", r.choice(["wise", "strong", "fly", "small"]))
    v["lack"], v["asleep"] = r.choice(
        [
            ("the rain", "in a cloud on the mountain"),
            ("the music", "in a box in the old tower"),
            ("the color", "in a jar in a deep cave"),
            ("the spring", "under the snow on the hill"),
            ("the moon", "in a well behind the hill"),
            ("the wind", "in a sack in a giant's kitchen"),
        ]
    )
    v["ask"] = r.choice(
        ["a song", "a joke", "a cup of tea", "a kind word", "a warm blanket", "a story"]
    )
    return dict(
        title="[lack]",
        beats=[
            (
                "One {day|year}, [lack] was gone. {Everyone was sad.|Nobody knew what to do.|The"
                ' whole land was sad.} "{I must find it|I will bring it back}," {said|thought} [N].'
            ),
            "[N] {packed [food] and went away|took [his] [c] [t] and set out}. {[He] walked over"
            " hills and through woods.|[He] walked for [num] days.} " + meet(s),
            (
                '"{Where are you going|What are you looking for}?" asked [fN]. "I am looking for'
                ' [lack]," said [N]. "{I have heard about it|I know}," said [fN]. "It is [asleep].'
                ' {I will show you|Come, I will go with you}."'
            ),
            (
                "They {walked|went} past [spot] and [spot2]. {The way was long.|The night was"
                " cold.} And there it was, [asleep]. But an old {troll|ghost|snow bear} sat in"
                ' front of it. "{Nobody may pass|Go away}," {it said|it growled}, "{because I am so'
                ' sad and alone|for nobody is ever kind to me}."'
            ),
            (
                '[N] was {a little afraid|very quiet}, but [fN] {whispered|said}, "{Be kind|Give it'
                ' something}." So [N] gave it [ask]. {Nobody had ever done that before.|A smile'
                ' came to its face.} "{Thank you|You are kind}," it said. "{Take it with you|You'
                ' may take it home}."'
            ),
            (
                "{So they brought [lack] home.|And [lack] came back.} {Everyone danced and"
                " sang.|There was a big feast with [food2].}"
            ),
        ],
        morals="kind brave",
        friend=True,
        mood="worried",
        about=[
            "who brings back [lack]",
            "who looks for [lack]",
            "who goes on a journey",
            "who goes on an adventure",
        ],
        qa=[
            (
                "{What was gone?|What was [N] looking for?|What did [N] look for?}",
                "[N] was looking for [lack].",
            ),
            ("{Where was it?|Where did they find it?|Where was [lack]?}", "It was [asleep]."),
            ("{What did [N] give?|How did they get it back?}", "[N] gave [ask]."),
            ("Who went with [N]?", "[fN] the [fK] went with [him]."),
        ],
        end="[N] and [fN] brought [lack] back home.",
        next=(
            "Some days later, there was a knock at the door. It was the one who had been so sad."
            ' "May I visit you?" it asked. [N] made [food2], and [fN] came too.'
        ),
    )
