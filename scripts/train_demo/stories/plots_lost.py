"""Plots about things that are lost and found."""

from . import words as w


def meet(s):
    """Sentences in which the hero meets the friend (f slots)."""
    return s.r.choice(
        [
            "{There|On the way|Near [spot2]|On the path} [he] met [fN], a [fA] [fK].",
            (
                "{Just then|At that moment|Soon|After a while}, a [fA] [fK] {came by|walked up to"
                ' [him]|came along}. "{Hello|Hi|Good morning}! {My name is|I am} [fN]," said the'
                " [fK]."
            ),
            (
                "A [fA] [fK] named [fN] {was sitting nearby|lived nearby|heard [him] and came to"
                " look|was passing by}."
            ),
            (
                "Then [he] saw [fN] the [fK]. {[fN] was [fA] and always ready to help.|[fN] was a"
                " [fA] [fK] who lived close by.}"
            ),
            "[He] went to {see|find} [fN], a [fA] [fK] who lived in [fhome].",
        ]
    )


WHY = (
    '"{Why are you sad|What is wrong|Why are you crying|What is the matter}?" asked [fN]. '
    '"I {lost|cannot find} my [c] [t]," said [N].'
)


HELP = (
    '"{I will help you|Do not worry. I will help you look|Let us look together|We will find it},"'
    " said [fN]."
)


# Ways to fetch a thing from a high place: the helper's ability, and what it does.
HIGH = [
    (
        "fly",
        (
            "[fN] {spread [fhis] wings and flew up|flew up and up}. [fHe] {took the [t]"
            " gently|pulled the [t] free} and brought it down."
        ),
    ),
    (
        "climb",
        (
            "[fN] {climbed up, branch by branch|was a very good climber and went right up}. [fHe]"
            " {took the [t] and|reached the [t] and} brought it down."
        ),
    ),
    (
        "strong",
        (
            "[fN] {shook the tree with all [fhis] might|gave the tree a big push}. Down came the"
            " [t]! It landed at [N]'s feet."
        ),
    ),
    (
        "wise",
        (
            '[fN] {thought for a while|sat down and thought}. "{Get a long stick|We need a long'
            ' stick}," [fhe] said. [N] found a long stick, and together they pushed the [t] down.'
        ),
    ),
    (
        "jump",
        (
            "[fN] {took a deep breath and jumped|jumped as high as [fhe] could}. On the third jump,"
            " [fhe] caught the [t] and brought it down."
        ),
    ),
]


WATER = [
    (
        "swim",
        (
            "[fN] {jumped into the water and swam to it|was a fine swimmer and went right in}."
            " [fHe] {came back with the [t]|pulled the [t] out of the water}."
        ),
    ),
    (
        "wise",
        (
            '[fN] {had an idea|thought for a while}. "{Use a long branch|We need a long branch},"'
            " [fhe] said. They found a branch and pulled the [t] slowly out of the water."
        ),
    ),
    (
        "build",
        (
            "[fN] built a {little raft|small raft} out of sticks. They {sat on it and"
            " floated|floated} out, and [N] picked up the [t]."
        ),
    ),
    (
        "strong",
        (
            "[fN] {rolled big stones|put heavy stones} into the water, one by one. [N] stepped from"
            " stone to stone and picked up the [t]."
        ),
    ),
]


HOLE = [
    (
        "small",
        (
            "The hole was too small for [N], but [fN] was just the right size. [fHe] went in and"
            " {came out with|pushed out} the [t]."
        ),
    ),
    (
        "dig",
        (
            "[fN] began to dig. {The earth flew left and right.|[fHe] dug and dug.} Soon the hole"
            " was wide, and [N] could take out the [t]."
        ),
    ),
    (
        "wise",
        (
            '"{Let us pour water into the hole|We can fill the hole with water}," said [fN]. They'
            " did, and the [t] {came up with the water|floated up to the top}."
        ),
    ),
]


NEAR = [
    (
        "smell",
        (
            '[fN] {put [fhis] nose to the ground|smelled the path}. "{This way|I can smell it},"'
            " [fhe] said. [fHe] led [N] {straight|right} to the [t]."
        ),
    ),
    (
        "fly",
        (
            '[fN] flew up high and looked all around. "I can see it!" [fhe] called. [fHe] showed'
            " [N] the way to the [t]."
        ),
    ),
    (
        "wise",
        (
            '"Think," said [fN]. "Where did you {have it last|go today}?" [N] thought hard. {Then'
            " [he] remembered|All at once, [he] remembered}. They went there together, and there"
            " was the [t]!"
        ),
    ),
    (
        None,
        (
            "They looked {high and low|left and right|under every leaf}. Then [fN] {saw something"
            ' [c]|pointed to something [c]}. "{Look|Is that it}?" [fhe] asked. It was the [t]!'
        ),
    ),
]


def lost(s):
    r, v = s.r, s.v
    causes = ["left", "bird", "bag", "fog", "brother"]
    if v["t"] in w.LIGHT:
        causes += ["wind"] * 6
    if v["t"] in w.ROUND:
        causes += ["roll"] * 5
    causes += ["river", "river"]
    cause = r.choice(causes)
    v["own"] = r.choice(
        [
            "It was [his] favorite thing in the whole world.",
            "[His] [rel] had made it for [him].",
            "[He] took it everywhere.",
            "[He] loved it very much.",
            "It was a gift from [his] [rel].",
        ]
    )
    if cause == "wind":
        s.weather("windy")
        how = (
            "{Whoosh!|Suddenly,} {a big wind came|the wind blew hard} and {took|carried away} the"
            ' [t]. {It flew over the hill.|Up, up, up it went.} "{Stop|Come back}!" cried [N], but'
            " it was gone."
        )
        v["where"], acts = (
            "at the top of " + r.choice(["a tall pine tree", "a high wall", "an old tower"]),
            HIGH,
        )
        v["because"] = "the wind took it"
    elif cause == "river":
        how = (
            "{As [he] walked over the bridge|While [he] was looking at the fish|When [he] bent down"
            " to drink}, the [t] {slipped|fell} into the water. Splash! {The river carried it"
            " away.|Away it went.}"
        )
        v["where"], acts = (
            r.choice(
                [
                    "between two stones in the river",
                    "on a branch in the middle of the river",
                    "among the reeds in the river",
                ]
            ),
            WATER,
        )
        v["because"] = "it fell into the river"
    elif cause == "roll":
        how = (
            "{[He] tripped over a root|[He] ran too fast and fell}, and the [t] rolled down the"
            " hill. {It rolled and rolled.|Faster and faster it went.} {Soon [he] could not see it"
            " anymore.|Then it was gone.}"
        )
        v["where"], acts = (
            r.choice(["deep in a hole at the bottom of the hill", "in a hole under a big rock"]),
            HOLE,
        )
        v["because"] = "it rolled down the hill"
    elif cause == "left":
        how = (
            "[He] put the [t] down {by [spot3]|near [spot3]} to pick some [fruit]. {Then [he] saw a"
            " butterfly and ran after it.|Then it was time for lunch, and [he] ran home.}"
            " {Later|That evening}, [he] {looked for|wanted} the [t], but [he] could not remember"
            " where it was."
        )
        v["where"], acts = "near [spot3]", NEAR
        v["because"] = "[he] forgot where [he] put it"
    elif cause == "bag":
        how = (
            "[He] put the [t] in [his] bag and went {for a walk|to see [his] [rel]}. But the bag"
            " had a hole! {When [he] looked inside|When [he] came home}, the bag was empty."
        )
        v["where"], acts = "on the path near [spot3]", NEAR
        v["because"] = "there was a hole in [his] bag"
    elif cause == "fog":
        s.weather("foggy")
        how = (
            "[N] could hardly see [his] own feet. [He] bumped into a tree and dropped the [t]."
            " {[He] felt around in the grass, but it was not there.|[He] looked and looked, but the"
            " fog was too thick.}"
        )
        v["where"], acts = "in the tall grass by [spot3]", NEAR
        v["because"] = "[he] dropped it in the fog"
    elif cause == "brother":
        how = (
            "But {one morning|when [he] woke up}, the [t] was {gone|not there}! {[He] looked under"
            ' the bed. [He] looked behind the door.|[He] looked in every corner.} {"Oh no!" cried'
            " [N].|[N] began to cry.}"
        )
        v["where"], acts = (
            r.choice(
                ["in the bed of [his] little brother", "under the pillow of [his] baby sister"]
            ),
            [NEAR[0], NEAR[2]],
        )
        v["because"] = (
            "[his] baby brother took it" if "brother" in v["where"] else "[his] baby sister took it"
        )
    else:
        how = (
            "{Suddenly|Just then}, a {noisy|black|cheeky} magpie {flew down|came down}, took the"
            ' [t], and flew away. "{Stop, thief|Give it back|Come back}!" {shouted|cried} [N].'
        )
        v["where"], acts = (
            "in the nest of the magpie",
            [
                (
                    "fly",
                    (
                        '[fN] flew up to the nest and talked to the magpie. "I am sorry," said the'
                        ' magpie. "{It was so pretty|I only wanted to look at it}." And she gave back'
                        " the [t]."
                    ),
                ),
                (
                    "climb",
                    (
                        '[fN] climbed up to the nest and talked to the magpie. "I am sorry," said the'
                        ' magpie. "{It was so pretty|I only wanted to look at it}." And she gave back'
                        " the [t]."
                    ),
                ),
                (
                    "wise",
                    (
                        '"Magpies like shiny things," said [fN]. [fHe] held up a shiny coin. {At once,'
                        " the|The} magpie dropped the [t] and took the coin."
                    ),
                ),
                (
                    None,
                    (
                        '[fN] called up to the nest, "Please, magpie, give it back! It is not yours."'
                        " {The magpie felt sorry.|The magpie hung her head.} She dropped the [t] at"
                        " [N]'s feet."
                    ),
                ),
            ],
        )
        v["because"] = "a magpie took it"
    ability, act = r.choice(acts)
    s.person("f", ability)
    if s.r.chance(0.5):
        first = "[N] had a [c] [t]. [own]"
    else:
        first = "[N]'s {favorite|dearest} thing was a [c] [t]."
    search = (
        "They looked by [spot]. {It was not there.|Nothing!} {They looked behind [spot2]. It was"
        " not there either.|They asked an old [c2] bird, but it had not seen the [t].|} "
        if r.chance(0.5)
        else ""
    )
    return dict(
        title="The Lost [t]",
        beats=[
            first,
            (
                "{One day, |One morning, |Then one day, |}[N] went out with [his] [t]. [W]"
                if cause != "brother"
                else ""
            ),
            how,
            '{[N] was very sad.|[N] sat down and cried.|"Oh no! What shall I do?" said [N].}',
            meet(s) + " " + WHY + " " + HELP,
            search
            + "{At last|In the end|After a long time}, they found it. The [t] was [where]{!|.}",
            act,
            (
                '{[N] jumped for joy.|[N] was so happy.|[N] hugged the [t].} "Thank you, [fN]! {You'
                ' are a true friend|You are so kind|I could not have done it without you}," [he]'
                " said."
            ),
        ],
        morals="help kind",
        friend=True,
        mood="sad",
        about=[
            "who lost [his] [t]",
            "who lost [his] [c] [t]",
            "who lost a [t]",
            "who cannot find [his] [t]",
            "and a lost [t]",
            "and [his] [t]",
            "who has lost [his] [t]",
            "who looks for [his] [t]",
        ],
        qa=[
            ("What did [N] lose?", "[N] lost [his] [c] [t]."),
            ("{What color was the [t]?|What color was [his] [t]?}", "The [t] was [c]."),
            (
                (
                    "{Where did [he] find the [t]?|Where was the [t]?|Where did they find it?|Where"
                    " did [N] find [his] [t]?}"
                ),
                "{[He] found it|They found it|The [t] was} [where].",
            ),
            (
                "{Why did [he] lose it?|How did [N] lose the [t]?|How did [he] lose [his] [t]?}",
                "[N] lost the [t] because [because].",
            ),
            (
                "{Why was [N] sad?|Why was [he] sad?}",
                "[N] was sad because [he] lost [his] [c] [t].",
            ),
        ],
        end=(
            "{In the end, |}[N] {got [his] [c] [t] back|found [his] [c] [t]}, and [he] and [fN]"
            " {were friends|became friends}."
        ),
        next=(
            "The next day, [N] {tied the [t] to [his] bag with a string|put the [t] in a safe"
            " place}. Then [he] went to see [fN], and they {played together|had some [food]}. [N]"
            " never lost [his] [t] again."
        ),
    )


def found(s):
    r, v = s.r, s.v
    s.person("f")
    s.person("g")
    v["mark"] = r.choice(
        [
            "It had a little star on it",
            "It was old, but very pretty",
            "It was very small",
            "There was a [c2] ribbon on it",
            "It was covered with dust",
        ]
    )
    return dict(
        title="The [c] [t]",
        beats=[
            (
                'One day, [N] found a [c] [t] {by [spot]|near [spot]|in the grass}. [mark]. "{Whose'
                ' [t] is this|Who lost this}?" [he] {asked|wondered}.'
            ),
            (
                "{[He] wanted to keep it.|It was so pretty that [he] wanted to keep it.} But {then"
                ' [he] thought|[he] thought}, "{Someone must be sad without it|Someone is looking'
                ' for it}." So [he] went to look for the owner.'
            ),
            (
                'First [he] asked [gN] the [gK]. "Is this your [t]?" "No," said [gN]. "{Mine is'
                ' [c2]|I do not have a [t]}. {Ask|Try} the others."'
            ),
            (
                "{Then|Next} [he] went to {[spot2]|see the [fK]}. {There|Near [spot2]} {sat|was} a"
                ' [fA] [fK] named [fN], and [fhe] {was crying|looked very sad}. "I lost'
                ' {something|my best thing}," said [fN]. "What color is it?" asked [N]. "It is'
                ' [c]," said [fN].'
            ),
            (
                '[N] held out the [t]. "Is it this one?" [fN] {stopped crying|jumped up}. "Yes!'
                ' That is my [t]!" [fhe] cried. "{You are so honest|Thank you, thank you}!"'
            ),
            (
                "{[fN] gave [N] some [food] to say thank you.|To say thank you, [fN] invited [N] to"
                " eat [food] in [fhome].}"
            ),
        ],
        morals="true kind",
        friend=True,
        mood="curious",
        about=["who found a [t]", "who found a [c] [t]", "who finds a [t]", "and a [c] [t]"],
        qa=[
            ("What did [N] find?", "[N] found a [c] [t]."),
            (
                "{Whose [t] was it?|Who did the [t] belong to?}",
                "The [t] belonged to [fN] the [fK].",
            ),
            ("{What color was the [t]?|What color was it?}", "The [t] was [c]."),
            (
                "{Why was [fN] sad?|Why did [fN] cry?}",
                "[fN] was sad because [fhe] had lost [fhis] [c] [t].",
            ),
            (
                "{What did [fN] give [N]?|What did they eat?}",
                "{It was [food].|[fN] gave [him] some [food].}",
            ),
        ],
        end="[N] gave the [c] [t] back to [fN], and they {became|were} good friends.",
        next=(
            'The next day, [fN] came to see [N]. [fHe] had brought the [c] [t]. "Let us play with'
            ' it together," [fhe] said. They played {until dark|all day}.'
        ),
    )
