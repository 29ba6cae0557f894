"""Plots about friends, fears, skills and quarrels."""

from . import words as w
from .plots_lost import meet


def friend(s):
    r, v = s.r, s.v
    s.person("f")
    game = r.choice(
        [
            "hide and seek",
            "catch",
            "a counting game",
            "a game with stones",
            "tag",
            "a guessing game",
        ]
    )
    v["game"] = game
    start = r.choice(
        [
            meet(s)
            + ' "{Do you want to play with me|Will you play with me|Do you like [game]}?" asked'
            " [fN]. {[N] looked at [his] feet. Then [he] smiled.|[N] did not know what to say.}"
            ' "{Yes, please|I would love to}," [he] said at last.',
            (
                "{Then|One morning}, a ball came flying over [spot2]. It landed at [N]'s feet."
                ' "{Can you throw it back|That is my ball}!" called someone. It was a [fA] [fK].'
                ' [N] threw the ball back. "I am [fN]," said the [fK]. "{Come and play!|Do you want'
                ' to play?}"'
            ),
            (
                '[He] wrote on a {piece of paper|big leaf}: "I am looking for a friend." {The wind'
                " took it away.|[He] put it on [spot2].} The next day, a [fA] [fK] {stood at the"
                ' door|came}. "I am [fN]," [fhe] said. "I read your words. I am looking for a'
                ' friend too."'
            ),
            (
                "Near [spot2], [he] {heard someone cry|saw someone who was sad too}. It was a [fA]"
                ' [fK]. "{Why do you cry|What is the matter}?" asked [N]. "{I am new here|I am all'
                ' alone}, and I have no friends," said the [fK]. "My name is [fN]." "I am [N],"'
                ' said [N]. "{Then we can be friends|Now you have one}!"'
            ),
        ]
    )
    return dict(
        title="A Friend for [N]",
        beats=[
            (
                "But [N] had no one to play with. {[He] felt lonely.|Every day, [he] played"
                ' alone.|"I wish I had a friend," [he] often said.}'
            ),
            (
                "[W] [N] {went to [spot]|sat by [spot]|walked past [spot]}. {[He] saw some other"
                " animals play, but [he] was too shy to ask.|Nobody was there.|[He] {counted|looked"
                " at} the clouds.}"
            ),
            start,
            (
                "They played [game] {all day|until the sun went down}. {They laughed and"
                " laughed.|[N] won once, and [fN] won twice.|It was so much fun.}"
            ),
            (
                '{In the evening|When it was time to go home}, [fN] asked, "{Will you come back'
                ' tomorrow|Can we play again tomorrow}?" "{Yes|Of course|I will}!" said [N].'
            ),
        ],
        morals="kind",
        friend=True,
        mood="lonely",
        about=[
            "who had no friends",
            "who wanted a friend",
            "who finds a friend",
            "who was lonely",
            "who makes a new friend",
        ],
        qa=[
            ("{What did they play?|What game did they play?}", "They played [game]."),
            (
                "{Why was [N] sad?|Why was [he] lonely?}",
                "[N] was lonely because [he] had no one to play with.",
            ),
            (
                "{Who became [his] friend?|Who was [his] new friend?}",
                "[fN] the [fK] became [his] friend.",
            ),
        ],
        end=(
            "[N] found a friend, and [his] name was [fN]."
            if v["fhe"] == "he"
            else "[N] found a friend, and her name was [fN]."
        ),
        next=(
            "The next day, [N] and [fN] met again {near|at} [spot]. They played [game], and then"
            " they ate [food]."
        ),
    )


FEARS = [
    ("the dark", "dark", "the lamp went out", "It was so dark that [he] could not see anything"),
    ("thunder", "loud", "a storm came", "Boom! went the thunder"),
    ("deep water", "deep", "[he] had to cross the river", "The water was deep and cold"),
    ("high places", "high", "[he] had to climb a tall tree", "The ground looked far, far away"),
    ("the old house", "old", "[he] had to go into the old house", "The floor made strange sounds"),
    (
        "the deep woods",
        "dark",
        "[he] had to walk into the deep woods",
        "The trees looked like giants",
    ),
    ("loud noises", "loud", "the big bell rang and rang", "Ding, dong! It hurt [his] ears"),
    ("big dogs", "big", "a big dog stood on the path", "The dog looked right at [him]"),
]


COURAGE = [
    ("[he] sang a song", "[He] began to sing. The song was small at first, and then it was loud."),
    ("[he] counted to ten", "[He] closed [his] eyes and counted to ten. Then [he] opened them."),
    ("[he] took a deep breath", '[He] took a deep breath. "I can do it," [he] whispered.'),
    (
        "[he] thought of [his] friend",
        "[He] thought of [fN], who needed help. That made [him] strong.",
    ),
    (
        "[he] remembered the words of [his] [rel]",
        (
            '[His] [rel] always said, "Brave is when you are afraid and do it anyway." [N]'
            " remembered these words."
        ),
    ),
    ("[he] took small steps", "[He] took one small step. Then [he] took another one."),
]


def fear(s):
    r, v = s.r, s.v
    s.person("f")
    v["fear"], v["adj"], v["event"], v["scene"] = r.choice(FEARS)
    v["trick"], act = r.choice(COURAGE)
    v["trouble"] = r.choice(
        [
            "had hurt [fhis] foot",
            "was stuck",
            "was lost",
            "was all alone and crying",
            "had fallen and could not get up",
        ]
    )
    return dict(
        title="Brave [N]",
        beats=[
            (
                '{But there was one thing.|} [N] was afraid of [fear]. {Nobody knew it.|"It is too'
                ' [adj]," [he] always said.|[He] did not want to tell anyone.}'
            ),
            (
                'One {day|evening}, [N] heard a cry. "Help! {Help me|Please help}!" It was [his]'
                " friend [fN], a [fA] [fK]. [fN] [trouble]."
            ),
            (
                "[N] {ran to help|wanted to help}. But {then |}[event]. [scene]. {[His] legs"
                ' shook.|[His] heart beat fast.|"Oh no," [he] said.}'
            ),
            act,
            (
                "{Step by step|Slowly}, [N] went on. {[He] did not look back.|[He] was still"
                " afraid, but [he] did not stop.} {At last|Soon} [he] {came to|found} [fN] and"
                " {helped [fhim] up|took [fhim] home|stayed with [fhim]}."
            ),
            (
                '"{You came|You saved me|Thank you}," said [fN]. "You are the bravest [K] I know!"'
                ' {"I was very afraid," said [N].|[N] smiled. [fear] did not seem so bad now.}'
            ),
        ],
        morals="brave",
        friend=True,
        mood="afraid",
        about=[
            "who was afraid of [fear]",
            "who is afraid of [fear]",
            "who learns to be brave",
            "who saves a friend",
        ],
        qa=[
            ("What was [N] afraid of?", "[N] was afraid of [fear]."),
            (
                "{Why did [fN] need help?|What was wrong with [fN]?|What happened to [fN]?}",
                "[fN] [trouble].",
            ),
            (
                "{How did [N] become brave?|What helped [N] to be brave?}",
                "{To be brave, |}[trick].",
            ),
            ("{Who cried for help?|Who did [N] help?}", "It was [fN] the [fK]."),
        ],
        end="[N] was brave and helped [fN], even though [he] was afraid of [fear].",
        next=(
            'The next day, [N] told [his] [rel] everything. "I am proud of you," said [his] [rel].'
            " {[N] was not so afraid of [fear] anymore.|And they ate [food] together.}"
        ),
    )


SKILLS = {
    "swim": ("swimming", "kick your legs", "crossed the pond"),
    "sing": ("singing", "listen to the birds", "sang for everyone at the fair"),
    "paint": (
        "painting",
        "look at the colors around you",
        "painted a picture of the whole village",
    ),
    "dance": ("dancing", "listen to the music", "danced at the big feast"),
    "whistle": ("whistling", "make your mouth round", "whistled a merry tune"),
    "bake": ("baking", "measure the flour first", "baked bread for all the neighbors"),
    "read": ("reading", "learn one letter every day", "read a whole book to [his] [rel]"),
    "skate": ("skating", "bend your knees", "skated around the lake three times"),
    "juggle": ("juggling", "start with one ball", "juggled four apples"),
    "climb": ("climbing", "do not look down", "climbed to the top of the tree"),
    "play the flute": ("music", "blow very softly", "played a song at the market"),
    "count": ("counting", "use stones to count", "counted all the stars over the hill"),
    "ride a bike": ("riding", "look straight ahead", "rode all around the village"),
    "tell jokes": ("telling jokes", "laugh first", "made the whole village laugh"),
    "sew": ("sewing", "make small stitches", "made a coat for [his] [rel]"),
}


def learn(s):
    r, v = s.r, s.v
    pool = [
        k
        for k in SKILLS
        if not (
            k == "swim"
            and v["K"]
            in w.SWIMMERS
            | {
                "fish",
                "whale",
                "dolphin",
                "crab",
                "octopus",
                "crocodile",
                "mermaid",
                "hippo",
                "walrus",
                "toad",
                "snowman",
            }
        )
        and not (k == "climb" and "climb" in w.KINDS.get(v["K"], ("", "", ""))[2])
    ]
    v["skill"] = r.choice(pool)
    v["skilling"], v["tip"], v["did"] = SKILLS[v["skill"]]
    ability = {"swim": "swim", "climb": "climb"}.get(v["skill"])
    s.person("f", ability)
    return dict(
        title="[N] Learns to [skill]",
        beats=[
            (
                "[N] wanted to learn to [skill]. {[He] thought about it all day long.|All [his]"
                " friends could do it.} But {it was very hard|when [he] tried, it went wrong|the"
                " first time, everyone laughed}."
            ),
            (
                '"I will never learn to [skill]," {said [N] sadly|sighed [N]}. {[He] sat down by'
                " [spot].|[He] wanted to give up.}"
            ),
            meet(s)
            + ' "{I can show you how|I can teach you|Let me help you}," said [fN]. "{First, you'
            ' must [tip]|The secret is to [tip]}."',
            (
                "{So they began.|They started the same day.} {Every day|Each morning}, they met {by"
                " [spot2]|near [spot2]} and practiced. {The first day was bad. The second day was"
                " better.|Sometimes it went wrong, but [N] tried again.|[N] made many mistakes, but"
                " [fN] only smiled.}"
            ),
            (
                "{After [num] weeks|One fine day}, [N] {could do it|knew how to do it}! [He] [did]."
                ' {"Look at me!" [he] called.|Everyone clapped.|"I knew you could do it," said'
                " [fN].}"
            ),
        ],
        morals="patient",
        friend=True,
        mood="eager",
        about=[
            "who wants to learn to [skill]",
            "who learns to [skill]",
            "who wanted to [skill]",
            "who could not [skill]",
        ],
        qa=[
            ("What did [N] want to learn?", "[N] wanted to learn to [skill]."),
            ("{Who taught [him]?|Who taught [N] to [skill]?}", "[fN] the [fK] taught [him]."),
            ("{What was the secret?|What did [fN] tell [him]?}", "[fN] told [him] to [tip]."),
            ("{Where did they practice?|Where did they meet?}", "They met near [spot2]."),
        ],
        end="[N] learned to [skill], and [he] [did].",
        next=(
            '{Soon|One day}, a little [c2] bird came to [N]. "Can you teach me too?" it asked. "Of'
            ' course," said [N]. "First, you must [tip]." And [N] became a teacher.'
        ),
    )


def surprise(s):
    s.person("f")
    s.person("g")
    return dict(
        title="The Surprise",
        beats=[
            (
                "{It was|One day, it was} [N]'s birthday. But {nobody said a word|everyone seemed"
                " to forget it}."
            ),
            (
                '[He] went to [fN], a [fA] [fK]. "{Do you know what day it is|Will you play with'
                ' me}?" asked [N]. "{I have no time|I am busy}," said [fN]. {[fHe] hid something'
                " behind [fhis] back.|And [fhe] closed the door.}"
            ),
            (
                "Then [he] went to [gN] the [gK]. But [gN] {was not at home|had no time either}."
                ' [N] {walked home slowly|sat down by [spot]}. "{They forgot my birthday|Nobody'
                ' likes me}," [he] thought. {A tear ran down [his] nose.|[He] felt very sad.}'
            ),
            (
                'It {was|grew} dark when [he] {opened the door|came home}. "Surprise!" There were'
                " [fN] and [gN] and {all the others|[his] [rel]}! There was [food], {and [num]"
                " candles|and there were [c2] lights}."
            ),
            (
                '"{We did not forget|We worked all day}," laughed [fN]. [gN] gave [him] a [c] [t].'
                ' {"It is just what I wanted!" said [N].|[N] laughed and cried at the same time.}'
            ),
        ],
        morals="friend",
        friend=True,
        mood="sad",
        about=[
            "and a surprise",
            "and a birthday",
            "who had a birthday",
            "whose friends forgot [his] birthday",
        ],
        qa=[
            (
                "{What was the surprise?|Why did [fN] have no time?}",
                "It was a birthday party for [N].",
            ),
            (
                "{What did [gN] give [N]?|What was the gift?|What did [N] get?}",
                "[gN] gave [him] a [c] [t].",
            ),
            ("{What did they eat?|What was there to eat?}", "There was [food]."),
            (
                "{Why was [N] sad?|Why did [N] feel sad?}",
                "[N] thought that [his] friends forgot [his] birthday.",
            ),
        ],
        end="[N]'s friends gave [him] a surprise party, and [he] was very happy.",
        next=(
            "The next day, [N] helped [fN] and [gN] to clean up. Then [he] played with [his] new"
            " [t] all day."
        ),
    )


def quarrel(s):
    r, v = s.r, s.v
    s.person("f")
    v["way"] = r.choice(["[N] said sorry", "[fN] said sorry", "they both said sorry"])
    sorry = {
        "[N] said sorry": (
            '{At last|The next morning}, [N] went to [fN]\'s door. "I am sorry," [he] said. "{You'
            ' are more important than a [t]|I miss you}."'
        ),
        "[fN] said sorry": (
            '{At last|The next morning}, [fN] came to [N]\'s door. "I am sorry," [fhe] said. "{You'
            ' are more important than a [t]|I miss you}."'
        ),
        "they both said sorry": (
            "{At last|The next morning}, both of them went out at the same time. They met {by"
            ' [spot2]|near [spot2]}. "I am sorry!" they both said {at once|at the same time}, and'
            " then they had to laugh."
        ),
    }[v["way"]]
    return dict(
        title="The Quarrel",
        beats=[
            (
                "[His] best friend was [fN], a [fA] [fK]. {They did everything together.|They"
                " played together every day.}"
            ),
            (
                'One day, they found a [c] [t] {by [spot]|near [spot]}. "{I saw it first|It is'
                ' mine}," said [N]. "No, {I did|it is mine}!" said [fN]. They {pulled and'
                " pulled|shouted at each other}, {until both were angry|and both were very angry}."
            ),
            (
                '"{I will never play with you again|Go away}," said [fN]. [fHe] went home. [N]'
                " {kept the [t], but it was no fun alone|sat down alone with the [t]}."
            ),
            (
                "[N] {tried to play, but|looked at the [t], and} the day was long {and quiet|and"
                " sad}. [fN] was {sad|lonely} too."
            ),
            sorry,
            (
                "{So they made a plan.|Then they had an idea.} {One day [N] had the [t], and the"
                " next day [fN] had it.|They shared the [t], and nobody was angry anymore.}"
            ),
        ],
        morals="share",
        friend=True,
        mood="angry",
        about=[
            "who has a quarrel with a friend",
            "and a [fK] who had a fight",
            "who learns to say sorry",
            "and a [c] [t]",
        ],
        qa=[
            (
                "{What did they find?|Why were they angry?|What did they fight about?}",
                "They found a [c] [t], and both wanted it.",
            ),
            ("{Who said sorry?|How did they become friends again?}", "{In the end, |}[way]."),
            ("{Where did they find the [t]?|Where was the [t]?}", "They found it near [spot]."),
        ],
        end="In the end, [way], and they shared the [c] [t].",
        next=(
            "After that, when they wanted the same thing, they counted to [num] and laughed. Then"
            " they shared it."
        ),
    )
