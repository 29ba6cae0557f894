"""Plots about deeds: rescues, lost ways, storms, seeds and races."""

from .plots_lost import meet

TRAPS = [
    ("in a deep hole", "strong", "let down a long rope and pulled"),
    ("in the mud", "strong", "laid boards over the mud and pulled"),
    ("in a net", "", "cut the net with a sharp stone"),
    ("in a tree", "", "put a ladder against the tree"),
    ("on a rock in the river", "", "pushed a log into the water like a bridge"),
    ("under a fallen branch", "strong", "lifted the branch with a pole"),
    ("behind a locked gate", "", "found the key under a stone"),
    ("in thorny bushes", "", "pushed the thorns away, one by one"),
]


def rescue(s):
    r, v = s.r, s.v
    s.person("f")
    v["trap"], _, v["deed"] = r.choice(TRAPS)
    repay = r.chance(0.55)
    trouble = r.choice(
        [
            (
                "lost [his] way in the fog",
                (
                    "[N] lost [his] way in a thick fog. {[He] did not know where to go.|[He]"
                    " called, but no one came.}"
                ),
                (
                    '"{Follow me|This way}," said a voice. It was [fN]! [fHe] led [N] {past'
                    " [spot2]|through the fog} and all the way home."
                ),
            ),
            (
                "had nothing to eat",
                (
                    "the winter was long, and [N] had nothing left to eat. {[He] was so"
                    " hungry.|[His] shelves were empty.}"
                ),
                (
                    'Then there was a knock. It was [fN], with a basket of [food]. "Now it is my'
                    ' turn to help you," [fhe] said.'
                ),
            ),
            (
                "lost [his] [t]",
                (
                    "[N] lost [his] [c] [t] and looked for it everywhere. {[He] was very sad.|[He]"
                    " could not find it.}"
                ),
                (
                    'Then [fN] came, and in [fhis] bag was the [c] [t]! "{I found it by [spot2]|It'
                    ' was lying by [spot2]}," [fhe] said.'
                ),
            ),
            (
                "was sick",
                "[N] was sick and could not get up. {[His] head hurt.|[He] was cold.}",
                (
                    "Then the door opened. It was [fN], with hot soup and a warm blanket. [fHe]"
                    " stayed until [N] was well."
                ),
            ),
        ]
    )
    v["later"] = trouble[0]
    beats = [
        (
            "One day, [N] {was walking|went for a walk} {near|past} [spot]. [W] Suddenly, [he]"
            ' heard a voice. "{Help! I am stuck|Please help me|Help me, please}!"'
        ),
        (
            'It was [fN], a [fA] [fK]. [fHe] was {stuck|caught} [trap]. "{Do not be afraid|Do not'
            ' worry|Wait}! I will get you out," said [N].'
        ),
        (
            "First [N] {tried|pulled and pulled} with all [his] might, but {it was no use|nothing"
            ' happened}. Then [he] had an idea. [He] [deed]. {"One, two, three!"|Slowly, slowly, it'
            " worked.} [fN] was free!"
        ),
        '"{Thank you|You saved me}! I will never forget {this|you}," said [fN].'
        + (
            ' [N] {smiled|laughed}. "{It was nothing|Anyone would do it}," [he] said.'
            if repay
            else ""
        ),
    ]
    if repay:
        beats += ["{Some time later|Not long after|A few weeks later}, " + trouble[1], trouble[2]]
    else:
        beats += [
            (
                "[fN] {invited [N] to [fhome]|took [N] to [fhome]}. There they ate [food] {and told"
                " stories|and laughed a lot}."
            ),
            (
                '{Before [N] went home,|Then} [fN] gave [him] a [c] [t]. "{So that you remember'
                ' me|It is for you}," [fhe] said.'
            ),
        ]
    qa = [
        (
            "{Where was [fN] stuck?|Where was the [fK] stuck?|What happened to [fN]?}",
            "[fN] was stuck [trap].",
        ),
        ("{How did [N] help [fN]?|How did [N] get [fhim] out?|What did [N] do?}", "[N] [deed]."),
        ("{Who did [N] save?|Who was stuck?|Who cried for help?}", "It was [fN], a [fA] [fK]."),
    ]
    if repay:
        qa.append(
            ("{What happened to [N] later?|Why did [N] need help later?}", "Later, [N] [later].")
        )
    else:
        qa.append(("What did [fN] give [N]?", "[fN] gave [him] a [c] [t]."))
    return dict(
        title="[N] Helps [fN]",
        beats=beats,
        morals="kind",
        friend=True,
        mood="helpful",
        about=[
            "who saves a [fK]",
            "who helps a [fK]",
            "and a [fK] in trouble",
            "who rescues a [fK]",
            "who helped a [fK]",
        ],
        qa=qa,
        end=(
            "[N] saved [fN], and they were friends."
            if not repay
            else "[N] saved [fN], and later [fN] helped [N] too."
        ),
        next=(
            "One week later, [N] and [fN] went back to the place together. They put up a sign. It"
            ' said, "Be careful here!" Then they {ate [food2]|went home}.'
        ),
    )


def lostway(s):
    r, v = s.r, s.v
    s.person("f")
    why = r.choice(
        [
            (
                "[he] followed a [c] butterfly",
                (
                    "But near [spot] [he] saw a [c] butterfly and ran after it, deeper and deeper"
                    " into the woods."
                ),
            ),
            (
                "it grew dark",
                (
                    "[He] stopped at [spot] to pick some [fruit]. {[He] picked so many that [he]"
                    " forgot the time.|One more, and one more.} Soon it grew dark."
                ),
            ),
            (
                "fog came up",
                (
                    "At first the way was easy. But near [spot], fog came up, and [he] could not"
                    " see the path."
                ),
            ),
            (
                "[he] took the wrong path",
                "At [spot], the path went left and right. [N] went left. It was the wrong way.",
            ),
            (
                "it began to snow",
                (
                    "But near [spot], it began to snow, and soon the path was white and could not"
                    " be seen."
                ),
            ),
        ]
    )
    v["why"] = why[0]
    v["see"] = r.choice(
        [
            "a light in a window",
            "smoke from a chimney",
            "the white house",
            "the red roof of the house",
        ]
    )
    return dict(
        title="[N] on the Way",
        beats=[
            (
                "One day, [N] {wanted|went} to visit [his] [rel], who lived {on the other side of"
                " the hill|behind the woods|a long way off}. [He] {took|carried} a basket with"
                ' [food]. "{Stay on the path|Come back before dark}," said everyone.'
            ),
            why[1],
            (
                "{Now [he] was lost.|[N] did not know where [he] was.} {All the trees looked the"
                ' same.|It was very quiet.} "{Where am I|What shall I do|Hello? Is anybody'
                ' there|Which way is it}?" [he] said.'
            ),
            meet(s) + ' "Are you lost?" asked [fN]. "{Yes|I am}," said [N]. {[His] voice was very'
            ' small.|[He] told [fhim] everything.} "{I know these woods|I know the way}," said'
            ' [fN]. "{Come with me|Follow me}!"',
            (
                "They walked past [spot2] and [spot3]. {[fN] told jokes, and [N] was not afraid"
                " anymore.|They sang as they walked.|The moon came out and lit the way.} {At"
                " last|Soon}, [N] saw [see]."
            ),
            (
                '[His] [rel] {stood at the door|came running}. "{There you are|I was so worried}!"'
                " [rhe] {said|cried}. {Then they all sat down and ate the [food].|[fN] came in too,"
                " and they all ate the [food].}"
            ),
        ],
        morals="help",
        friend=True,
        mood="lost",
        about=[
            "who got lost",
            "who lost [his] way",
            "who visits [his] [rel]",
            "who gets lost on the way to [his] [rel]",
        ],
        qa=[
            ("{Why did [N] get lost?|Why did [he] lose [his] way?}", "[N] got lost because [why]."),
            (
                "{Who did [N] want to visit?|Where did [N] want to go?}",
                "[N] wanted to visit [his] [rel].",
            ),
            ("{What was in the basket?|What did [N] carry?}", "There was [food] in the basket."),
            ("Who showed [him] the way?", "[fN] the [fK] showed [him] the way."),
            ("{What did [N] see at last?|What did [he] see?}", "At last, [he] saw [see]."),
        ],
        end="[fN] showed [N] the way, and they all ate [food] at the house of [his] [rel].",
        next=(
            "The next morning, [fN] walked home with [N]. This time, [N] stayed on the path. [He]"
            " tied [c2] ribbons to the trees, so that [he] would never get lost again."
        ),
    )


def storm(s):
    r, v = s.r, s.v
    s.person("f")
    v["harm"] = r.choice(
        [
            "the wind took the roof",
            "the house was full of water",
            "a tree fell on the house",
            "the door blew away",
        ]
    )
    said = v["harm"][0].upper() + v["harm"][1:]
    v["said"] = said
    first_no = r.chance(0.35)
    return dict(
        title="The Big Storm",
        beats=[
            (
                "One {night|evening}, a big storm came. {The wind blew hard.|The rain fell and"
                " fell.|The trees bent low.} [N] {was warm and dry inside|sat by the fire}."
            ),
            (
                "{Knock, knock!|Then there was a knock at the door.} Outside stood a [fA] [fK]."
                ' {[fHe] was wet and cold.|[fHe] shook with cold.} "I am [fN]," [fhe] said.'
                ' "[said]. {May I come in|Can I stay here}?"'
            ),
            (
                '"{There is no room|My house is too small}," said [N] and closed the door. But then'
                " [he] heard [fN] {cry|sneeze} outside. [N] felt {bad|sorry}. [He] opened the door"
                ' again. "Please come in," [he] said.'
                if first_no
                else (
                    '"{Of course|Yes, come in|Quick, come in}!" said [N]. "{There is room for'
                    ' two|It is small, but we can share}."'
                )
            ),
            (
                "[N] gave [fN] a dry [c] blanket and some [food]. They {told stories|sang"
                " songs|played a game} until {the storm was over|they fell asleep}."
            ),
            (
                "In the morning, {the sun came out|the sky was blue again}. [N] {went"
                ' with|followed} [fN] {to see the damage|to [fhis] house}. "{We can fix it|I will'
                ' help you}," [he] said. They worked for [num] days, and then {everything was as'
                " good as new|it was better than before}."
            ),
        ],
        morals="kind share",
        friend=True,
        mood="cozy",
        about=[
            "and a big storm",
            "who helps a friend in a storm",
            "and a storm",
            "who opens the door in a storm",
        ],
        qa=[
            (
                "{Who knocked at the door?|Who came to the door?|Who stood outside?}",
                "[fN], a [fA] [fK], knocked at the door.",
            ),
            ("{What happened to [fN]'s house?|Why did [fN] need help?}", "In the storm, [harm]."),
            (
                "{What did [N] give [fN]?|What did [fN] get?}",
                "[N] gave [fhim] a [c] blanket and some [food].",
            ),
            ("How long did they work?", "They worked for [num] days."),
        ],
        end="[N] and [fN] fixed the house together after the storm.",
        next=(
            'When the next storm came, [N] went to [fN]\'s house. "Now I can help you," said [fN].'
            " They sat by the fire and ate [food2]."
        ),
    )


def seed(s):
    r, v = s.r, s.v
    s.person("f")
    v["plant"] = r.choice(
        [
            "a [c] [flower]",
            "a big pumpkin",
            "a little apple tree",
            "a [c] [flower]",
            "a tall bean plant",
        ]
    )
    v["place"] = r.choice(["by [spot]", "near [spot]", "behind [spot]"])
    return dict(
        title="The Little Seed",
        beats=[
            (
                "One day, {[N] found a tiny seed on the path|[his] [rel] gave [him] a tiny seed}."
                ' "What will {it|this} become?" [he] asked. [He] planted it [place] and gave it'
                " some water."
            ),
            (
                "Every day, [N] {looked at the ground|went to look}. {One day went by. Two days"
                ' went by.|[He] waited and waited.} But nothing {happened|grew}. "{It is a bad'
                ' seed|It will never grow}," [he] said.'
            ),
            meet(s)
            + ' "{Be patient|You must wait}," said [fN]. "{A seed needs sun, water and time|Good'
            ' things grow slowly}."',
            (
                "So {they waited together|[N] waited}. {It rained. Then the sun came out.|They told"
                " stories to the seed.|They sang to the seed every day.} {After [num] days|One"
                ' morning}, there was a tiny green leaf! "{It grows|Look, look}!" {shouted|cried}'
                " [N]."
            ),
            (
                "{The plant grew and grew.|Every day it was a little taller.} {In the summer|Soon},"
                " it was [plant]. {Everyone came to see it.|It was the prettiest thing of all.}"
            ),
        ],
        morals="patient",
        friend=True,
        mood="waiting",
        about=[
            "who planted a seed",
            "who plants a seed",
            "and a little seed",
            "who learns to wait",
            "who had a garden",
        ],
        qa=[
            ("{What did [N] plant?|What did [N] find?}", "It was a tiny seed."),
            ("{Where did [N] plant the seed?|Where did [he] plant it?}", "[N] planted it [place]."),
            ("{What did the seed become?|What grew from the seed?}", "The seed became [plant]."),
            ("{What did [fN] say?|What does a seed need?}", "[fN] told [him] to wait."),
        ],
        end="The seed became [plant], and [N] and [fN] were very happy.",
        next=(
            "In the fall, there were [num] new seeds. [N] gave half of them to [fN]. In the spring,"
            " they planted all of them."
        ),
    )


def race(s):
    r, v = s.r, s.v
    s.person("f")
    v["prize"] = "a [c] [t]"
    v["contest"] = r.choice(["race", "boat race", "jumping contest", "sled race", "running race"])
    helps = r.chance(0.6)
    if helps:
        tail = [
            (
                "{But then|Suddenly}, [he] heard a cry. [fN], a [fA] [fK], had {fallen down|hurt"
                " [fhis] foot}. {Everyone else went on.|Nobody stopped.}"
            ),
            (
                "[N] {stopped|looked back}. If [he] helped, [he] would lose. But [he] {could not"
                ' leave [fN] alone|turned around}. "{Hold on to me|I will help you}," [he] said.'
                " They finished together, and they were last."
            ),
            (
                'But everyone clapped and cheered. "{You did the right thing|You have the biggest'
                ' heart}," said the judge. And [N] got the [c] [t] after all.'
            ),
        ]
        end = "[N] came in last because [he] helped [fN], but [he] got the [c] [t] after all."
        who = ("{Why did [N] stop?|Why did [N] not win?}", "[N] stopped to help [fN].")
        result = ("{Who won?|Did [N] win?}", "[N] came in last, because [he] helped [fN].")
    else:
        tail = [
            (
                '[fN], a [fA] [fK], was the fastest of all. "{You will never win|I am much faster'
                ' than you}," [fhe] laughed. {[fN] stopped to rest under a tree and fell'
                " asleep.|[fN] stopped to eat [food], and then to drink, and then to sleep.}"
            ),
            (
                "But [N] {did not stop|went on and on}. {Step by step|Slowly}, [he] passed the"
                ' tree. [He] passed [spot3]. "{Go, [N], go|Hurry, [N]}!" called the others.'
            ),
            (
                "When [fN] {woke up|opened [fhis] eyes}, it was too late. [N] had won! [He] got the"
                ' [c] [t]. "{Next time I will not sleep|I was too proud}," said [fN]. "{You did'
                ' well|You are a good runner}," [fhe] said, and they became friends.'
            ),
        ]
        end = "[N] won the [contest] and got the [c] [t]."
        who = ("{Why did [fN] lose?|Why did [fN] not win?}", "[fN] lost because [fhe] fell asleep.")
        result = ("{Who won?|Did [N] win?|Who won the [contest]?}", "[N] won the [contest].")
    return dict(
        title="The Big [contest]",
        beats=[
            (
                "There was going to be a big [contest]. The way went from [spot] to [spot2]. The"
                " prize was a [c] [t]. {[N] wanted to win it very much.|Every day, [N] practiced"
                " for [num] hours.}"
            ),
            (
                '{On the big day,|At last the day came, and} everyone came to watch. [W] "{One,'
                ' two, three, go|Ready, set, go}!"'
            ),
            (
                "[N] {went|ran} as fast as [he] could. {[His] heart beat fast.|Soon [he] was in"
                " front.}"
                if helps
                else "[N] was not the fastest, but [he] {did [his] best|was careful and strong}."
            ),
        ]
        + tail,
        morals="kind" if helps else "patient",
        friend=True,
        mood="eager",
        about=(
            ["who wants to win a [contest]", "and a [contest]", "who runs in a race"]
            if "race" in v["contest"]
            else ["who wants to win a [contest]", "and a [contest]"]
        ),
        qa=[
            who,
            result,
            ("What was the prize?", "The prize was a [c] [t]."),
            ("Where did the [contest] start?", "It started at [spot]."),
        ],
        end=end,
        next=(
            'The next day, [N] and [fN] {met|practiced} near [spot3]. "Let us run just for fun,"'
            " said [N]. They ran and laughed until they were tired."
        ),
    )
