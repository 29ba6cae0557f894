"""Plots about things that are broken, taken, shared, made and given."""

from .plots_lost import meet


def broken(s):
    """A thing of the relative is broken; telling the truth mends more than glue."""
    r, v = s.r, s.v
    v["t"] = r.choice(
        [
            "music box",
            "lantern",
            "teapot",
            "cup",
            "umbrella",
            "flute",
            "necklace",
            "drum",
            "bucket",
            "basket",
        ]
    )
    s.person("f")
    hide = r.choice(["under the bed", "behind the door", "under a pile of leaves", "in an old box"])
    v["hide"] = hide
    blame = r.chance(0.4)
    return dict(
        title="The Broken [t]",
        beats=[
            (
                "[N]'s [rel] had a {beautiful|pretty|lovely} [c] [t]. \"{Please be careful with"
                ' it|Please do not play with it}," [rhe] {said|always said}.'
            ),
            (
                "One day, [N] {was alone at home|was all alone}. [He] {wanted to hold|picked"
                ' up|wanted to look at} the [t]. {"I will be careful," [he] thought.|} But it fell'
                " {to the floor|on a stone} and broke. Crash!"
            ),
            "[N] was {afraid|so scared}. [He] hid the [t] [hide].",
            (
                '"Where is my [t]?" asked [his] [rel]. "{I think [fN] the [fK] took it|Maybe [fN]'
                ' the [fK] has it}," said [N]. {That was not true.|It was a lie.} Now everyone was'
                " angry with [fN], and [fN] {cried|was very sad}."
                if blame
                else (
                    '"Where is my [t]?" asked [his] [rel]. "{I do not know|I have not seen it},"'
                    " said [N]. {That was not true.|It was a lie.} [He] felt {bad|sick} inside."
                    ' [He] told [his] friend [fN] the [fK]. "{Tell the truth|You must tell the'
                    ' truth}," said [fN]. "{You will feel better|It is the only way}."'
                )
            ),
            (
                "{That night, [N] could not sleep.|[N] could not eat. [He] could not play.} {At"
                ' last|In the morning}, [he] went to [his] [rel]. "I broke your [t]," [he] said.'
                ' "{I am so sorry|I was afraid to tell you}."'
            ),
            (
                "[His] [rel] {was quiet for a moment|looked at [him]}. Then [rhe] {smiled|hugged"
                ' [him]}. "{I am sad about the [t], but I am glad you told me|Thank you for telling'
                ' the truth}," [rhe] said.'
            ),
            (
                "[N] said sorry to [fN] too. Together they all {mended|fixed} the [t] with"
                " {glue|glue and string}."
                if blame
                else (
                    "[fN] came to help, and together they all {mended|fixed} the [t] with"
                    " {glue|glue and string}."
                )
            ),
        ],
        morals="true",
        friend=True,
        mood="worried",
        about=[
            "who broke a [t]",
            "who broke [his] [rel]'s [t]",
            "who told a lie",
            "and a broken [t]",
            "who learns to tell the truth",
        ],
        qa=[
            ("What did [N] break?", "[N] broke the [c] [t]."),
            ("{Whose [t] was it?|Who did the [t] belong to?}", "The [t] belonged to [his] [rel]."),
            ("{Where did [he] hide it?|Where did [N] hide the [t]?}", "[N] hid the [t] [hide]."),
            ("What color was the [t]?", "The [t] was [c]."),
        ],
        end="[N] told the truth, and they all mended the [c] [t] together.",
        next=(
            "The next day, [N] {saved all [his] coins|worked in the garden} and bought [his] [rel]"
            " a new ribbon for the [t]. [His] [rel] {smiled and kissed [him]|was very happy}."
        ),
    )


def thief(s):
    r, v = s.r, s.v
    s.person("f", people=False)
    v["why"] = r.choice(
        [
            "[his] family is hungry",
            "there is no food in the woods",
            "[he] is too small to find food",
            "the snow covered all the food",
        ]
    )
    why = {
        "[his] family is hungry": "My family is hungry",
        "there is no food in the woods": "There is no food in the woods",
        "[he] is too small to find food": "I am too small to find food",
        "the snow covered all the food": "The snow covered all the food",
    }[v["why"]]
    v["said"] = why
    return dict(
        title="Who Takes the [fruit]?",
        beats=[
            (
                '[N] had a basket full of [fruit]. But every morning, some of them were gone. "Who'
                ' is taking my [fruit]?" [he] {asked|wondered}.'
            ),
            (
                "{One night|That night}, [N] hid behind [spot] and waited. {It was dark and"
                " quiet.|The moon was bright.} {Soon|At last}, [he] heard {small steps|a soft"
                " sound}. It was a [fA] [fK]!"
            ),
            (
                '"{Stop|Wait}!" {called|shouted} [N]. The [fK] {began to cry|shook with fear}. "I'
                ' am [fN]," [fhe] said. "[said]. I am {so |very |}sorry."'
            ),
            (
                '[N] was not angry anymore. "{You should have asked me|It is wrong to steal|Next'
                ' time, please ask}," [he] said. "{But I will help you|I have enough for both of'
                ' us}." And [he] gave [fN] {half of the [fruit]|a big bag of [fruit]}.'
            ),
            (
                'The next day, [fN] came back with a [c] [t]. "{This is for you|I made this for'
                ' you}," [fhe] said. {After that, [fN] helped [N] in the garden every day.|"Now I'
                ' will help you pick [fruit]," said [fN].}'
            ),
        ],
        morals="share kind",
        friend=True,
        mood="puzzled",
        about=[
            "and a thief",
            "who had a basket of [fruit]",
            "whose [fruit] were gone",
            "who shares [his] [fruit]",
        ],
        qa=[
            ("{Who took the [fruit]?|Who was the thief?}", "[fN] the [fK] took the [fruit]."),
            (
                "{Why did [fN] take the [fruit]?|Why did [fhe] take them?}",
                '{[fN] was hungry.|[fN] said, "[said]."}',
            ),
            ("{What did [fN] bring?|What did [fN] give to [N]?}", "[fN] gave [him] a [c] [t]."),
            ("{Where did [N] hide?|Where did [he] wait?}", "[N] hid behind [spot]."),
        ],
        end="[N] shared [his] [fruit] with [fN], and [fN] gave [him] a [c] [t].",
        next=(
            "In the spring, [N] and [fN] planted {more [fruit]|a bigger garden} together. {There"
            " was enough for everyone.|Nobody was hungry anymore.}"
        ),
    )


def share(s):
    r = s.r
    s.person("f")
    hero_refuses = r.chance(0.6)
    beats = [
        (
            "One day, [his] [rel] {made|gave [him]} some [food]. {It smelled so good!|It was still"
            ' warm.|"Share it with a friend," said [his] [rel].}'
        ),
        "[N] {took the [food] and walked to [spot]|carried the [food] to [spot]}.",
        meet(s),
    ]
    if hero_refuses:
        beats += [
            (
                '"That smells {so good|wonderful}," said [fN]. "{I am so hungry|I have not eaten'
                ' all day}. May I have some?" "No! {It is all mine|There is not enough}," said [N].'
            ),
            (
                "[fN] {walked away|went away} with a sad face. [N] took a bite, but it did not"
                " taste good. {[He] felt bad.|Eating alone was no fun.}"
            ),
            (
                '{So [he] ran after [fN].|"Wait, [fN]!" [he] called.} "I am sorry," [he] said.'
                ' "{Let us eat it together|You can have half}."'
            ),
            (
                "They sat {under a tree|on the grass|side by side} and ate the [food]. {Now it"
                " tasted wonderful.|It tasted better than before.} {Then [fN] took out some"
                " [fruit], and they shared them too.|}"
            ),
        ]
    else:
        beats += [
            (
                '"Are you hungry?" asked [N]. "{Yes, very|I have not eaten since yesterday}," said'
                " [fN]. [N] {cut the [food] in half|gave [fhim] the bigger half}."
            ),
            (
                'They {sat down|sat} {under a tree|side by side} and ate. {"This is the best [food]'
                ' in the world," said [fN].|[fN] ate every bit of it.}'
            ),
            (
                'Then [fN] said, "{Now I have something for you|I want to give you something too}."'
                ' [fHe] took out a [c] [t]. "{You can have it|It is yours now}!"'
            ),
        ]
    return dict(
        title="[N] Shares",
        beats=beats,
        morals="share",
        friend=True,
        mood="hungry",
        about=[
            "who learns to share",
            "who had some [food]",
            "and some [food]",
            "who shares [his] [food]",
        ],
        qa=[
            (
                "{What did they eat?|What did [N] share?|What did [he] have?}",
                "{It was [food].|They ate [food].}",
            ),
            (
                "{Who made the [food]?|Who gave [N] the [food]?|Where did the [food] come from?}",
                "The [food] came from [his] [rel].",
            ),
            (
                "{Where did [N] go with the [food]?|Where did [he] take the [food]?}",
                "[N] took the [food] to [spot].",
            ),
        ]
        + ([] if hero_refuses else [("What did [fN] give [N]?", "[fN] gave [N] a [c] [t].")]),
        end="[N] and [fN] ate the [food] together, and {they were both happy|both were happy}.",
        next=(
            "The next day, [fN] {made|brought} some [food2], and [fhe] shared it with [N]. They ate"
            " together every day after that."
        ),
    )


MAKE = [
    # what, first need, second need, trial that shows it works
    ("cake", "flour", "eggs", "It rose high and smelled sweet"),
    ("boat", "wood", "rope", "It floated on the water like a duck"),
    ("kite", "paper", "string", "It flew high above the trees"),
    ("tree house", "boards", "nails", "It stood strong, even in the wind"),
    ("swing", "rope", "a board", "It went up to the sky and back"),
    ("pot of soup", "carrots", "salt", "It was hot and tasted good"),
    ("sled", "wood", "rope", "It went down the hill as fast as the wind"),
    ("warm coat", "wool", "buttons", "It was soft and warm"),
    ("bird house", "wood", "paint", "The same day, a bird moved in"),
    ("puppet", "cloth", "buttons", "It could dance and wave"),
    ("little bridge", "stones", "boards", "It did not even shake"),
    ("pie", "apples", "sugar", "It was golden and sweet"),
    ("lamp", "glass", "oil", "It shone like a little sun"),
    ("raft", "logs", "rope", "It floated well"),
]


def make(s):
    r, v = s.r, s.v
    v["m"], v["n1"], v["n2"], v["works"] = r.choice(MAKE)
    s.person("f")
    s.person("g")
    v["for"] = r.choice(
        ["for the winter", "for [his] [rel]", "for the big fair", "for fun", "for [his] friends"]
    )
    trade = r.chance(0.5)
    v["job"] = r.choice(
        [
            "carry water",
            "sweep the floor",
            "pick [fruit]",
            "mend the roof",
            "wash the windows",
            "feed the hens",
        ]
    )
    return dict(
        title="[N] Makes a [m]",
        beats=[
            "[N] wanted to make a [m] [for]. But [he] had no [n1] and no [n2].",
            (
                '[He] went to [fN] the [fK], who lived in [fhome]. "{Do you have|May I have} some'
                ' [n1]?" [he] asked. "{Yes|Of course}," said [fN]. "{If you help me [job], you can'
                ' have it|First help me [job], please}." So [N] helped [fhim] [job], and [fN] gave'
                " [him] the [n1]."
                if trade and v["n1"] not in ("eggs",)
                else (
                    '[He] went to [fN], a [fA] [fK]. "I need [n1] for a [m]," [he] said. "{I have a'
                    ' lot of it|Take as much as you like}!" said [fN].'
                )
            ),
            (
                'Then [he] went to [gN] the [gK] and asked for [n2]. "{Here you are|Of course},"'
                ' said [gN]. "{May I come and watch|Can I help you}?"'
            ),
            (
                "They all worked {until evening|all day}. {It was hard work.|They sang while they"
                " worked.} {At first, everything went wrong.|Once, it fell on the floor, and they"
                " had to start again.|[N] did not give up.}"
            ),
            (
                '{At last|In the evening}, the [m] was ready. [works]! {"We did it!" shouted'
                " [N].|[N] was very proud.}"
            ),
            (
                '"{This is not my [m]|I did not make it alone}," said [N]. "{It is our [m]|We made'
                ' it together}."'
            ),
        ],
        morals="help patient",
        friend=True,
        mood="busy",
        about=["who makes a [m]", "who wanted to make a [m]", "and a [m]", "who made a [m]"],
        qa=[
            ("{What did [N] make?|What did [he] want to make?}", "[N] made a [m]."),
            (
                "{Who gave [him] the [n1]?|Where did [N] get the [n1]?}",
                "[fN] the [fK] gave [him] the [n1].",
            ),
            (
                "{Who gave [him] the [n2]?|Where did [N] get the [n2]?}",
                "[gN] the [gK] gave [him] the [n2].",
            ),
            ("{What did [he] need?|What did [N] need for the [m]?}", "[N] needed [n1] and [n2]."),
        ],
        end="[N], [fN] and [gN] finished the [m] together.",
        next=(
            'The next day, everyone came to see the [m]. "Can you make one for us too?" they asked.'
            " So [N], [fN] and [gN] {got to work again|made another one}."
        ),
    )


def gift(s):
    r, v = s.r, s.v
    s.person("f")
    day = r.choice(["birthday", "sick"])
    bring = r.choice(["[food]", "a [c] [t]", "a [c] [flower]", "a song", "a picture"])
    v["gift"] = bring
    obstacle = r.choice(
        [
            (
                "the bridge was broken",
                (
                    "But when [he] came to the river, the bridge was broken. [N] {walked a long way"
                    " to find another one|jumped from stone to stone}."
                ),
            ),
            (
                "it began to rain",
                (
                    "But soon it began to rain. [N] put [his] coat over the gift and walked on."
                    " {[He] got very wet.|Drip, drip, drip.}"
                ),
            ),
            (
                "a goose stood in the way",
                (
                    'But a big goose stood in the way. "{You cannot pass|Go back}!" it hissed. [N]'
                    ' was afraid, but [he] {said, "Please, my friend is waiting."|bowed and said,'
                    ' "Please let me pass."} The goose {stepped aside|let [him] go}.'
                ),
            ),
            (
                "the snow was deep",
                (
                    "But the snow was deep. Step by step, [N] went on. {[His] feet were cold.|[His]"
                    " nose turned red.}"
                ),
            ),
            (
                "the hill was steep",
                (
                    'But the hill was steep, and [N] was tired. "{One more step|I can do it}," [he]'
                    " said to [himself]. Up and up [he] went."
                ),
            ),
        ]
    )
    v["but"] = obstacle[0]
    if obstacle[0] == "the snow was deep":
        s.weather("snowy")
    return dict(
        title="A Gift for [fN]",
        beats=[
            (
                "It was [fN]'s birthday. [fN] was a [fA] [fK] and [N]'s best friend."
                if day == "birthday"
                else (
                    "One day, [N] heard that [fN] was sick. [fN] was a [fA] [fK] and [N]'s best"
                    " friend."
                )
            ),
            (
                '[W] "{I will bring [fhim] something|What can I give [fhim]}," {said|thought} [N].'
                " {[He] had no money, so [he] thought for a long time.|[He] asked [his] [rel] for"
                " help.} {Then [he] knew what to do.|In the end, [he] had an idea.}"
            ),
            {
                "[food]": (
                    "[He] made some [food], and {it smelled wonderful|[he] put it in a basket}."
                ),
                "a [c] [t]": "[He] made a [c] [t], and {it was very pretty|[he] put it in a box}.",
                "a [c] [flower]": (
                    "[He] picked a [c] [flower] near [spot]. {It was the prettiest one of all.|It"
                    " smelled sweet.}"
                ),
                "a song": (
                    "[He] made up a song, {and it was a very good one|with four lines and a funny"
                    " end}."
                ),
                "a picture": (
                    "[He] painted a picture of [fN]'s house, {with the sun above it|with a big [c]"
                    " sun}."
                ),
            }[bring],
            obstacle[1],
            (
                'At last, [he] came to [fN]\'s door. "{Knock, knock|Hello, [fN]}!" {"Happy'
                ' birthday!"|"Many happy wishes!"}'
                if day == "birthday"
                else (
                    'At last, [he] came to [fN]\'s bed. "{Hello, [fN]|How are you}?" asked [N]. "{I'
                    ' feel so bad|My head hurts}," said [fN].'
                )
            ),
            (
                "[N] gave [fhim] the gift. It was [gift]."
                if bring not in ("a song",)
                else "Then [N] sang [his] song."
            )
            + " [fN]'s eyes {shone|grew wide}. \"{This is the best gift of all|You made it just for"
            ' me|I love it}!" [fhe] said.',
            (
                "They {danced|laughed} together {until dark|all evening}."
                if day == "birthday"
                else (
                    'The next day, [fN] {was well again|felt much better}. {"It was your gift,"'
                    ' said [fN].|"A friend is the best medicine," [fhe] said.}'
                )
            ),
        ],
        morals="kind",
        friend=True,
        mood="caring",
        about=(
            ["who goes to a birthday", "and a birthday gift"]
            if day == "birthday"
            else ["whose friend was sick", "who helps a sick friend"]
        )
        + ["who brings a gift", "and [his] best friend"],
        qa=[
            (
                "{What did [N] bring?|What was the gift?|What did [N] give [fN]?}",
                "[N] gave [fN] [gift].",
            ),
            (
                "{What happened on the way?|Why was it hard to get there?}",
                "{On the way, [but].|It was hard because [but].}",
            ),
            (
                "Why did [N] bring a gift?",
                (
                    "It was [fN]'s birthday."
                    if day == "birthday"
                    else "[fN] was sick, and [N] wanted to help."
                ),
            ),
        ],
        end="[N] brought [fN] [gift], and [fN] was very happy.",
        next=(
            "A week later, [fN] came to [N]'s house with a gift too. It was [food2], and they ate"
            " it together."
        ),
    )
