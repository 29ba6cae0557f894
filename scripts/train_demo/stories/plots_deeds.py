"""Plots about deeds and feelings: friends, fears, skills, rescues, storms, races, wishes."""

from . import words as w
from .plots_lost import meet


def friend(s):
    r, v = s.r, s.v
    s.person("f")
    game = r.choice(["hide and seek", "catch", "a counting game", "a game with stones", "tag", "a guessing game"])
    v["game"] = game
    start = r.choice([
        meet(s) + " \"{Do you want to play with me|Will you play with me|Do you like [game]}?\" asked [fN]. {[N] looked at [his] feet. Then [he] smiled.|[N] did not know what to say.} \"{Yes, please|I would love to},\" [he] said at last.",
        "{Then|One morning}, a ball came flying over [spot2]. It landed at [N]'s feet. \"{Can you throw it back|That is my ball}!\" called someone. It was a [fA] [fK]. [N] threw the ball back. \"I am [fN],\" said the [fK]. \"{Come and play!|Do you want to play?}\"",
        "[He] wrote on a {piece of paper|big leaf}: \"I am looking for a friend.\" {The wind took it away.|[He] put it on [spot2].} The next day, a [fA] [fK] {stood at the door|came}. \"I am [fN],\" [fhe] said. \"I read your words. I am looking for a friend too.\"",
        "Near [spot2], [he] {heard someone cry|saw someone who was sad too}. It was a [fA] [fK]. \"{Why do you cry|What is the matter}?\" asked [N]. \"{I am new here|I am all alone}, and I have no friends,\" said the [fK]. \"My name is [fN].\" \"I am [N],\" said [N]. \"{Then we can be friends|Now you have one}!\"",
    ])
    return dict(
        title="A Friend for [N]",
        beats=[
            "But [N] had no one to play with. {[He] felt lonely.|Every day, [he] played alone.|\"I wish I had a friend,\" [he] often said.}",
            "[W] [N] {went to [spot]|sat by [spot]|walked past [spot]}. {[He] saw some other animals play, but [he] was too shy to ask.|Nobody was there.|[He] {counted|looked at} the clouds.}",
            start,
            "They played [game] {all day|until the sun went down}. {They laughed and laughed.|[N] won once, and [fN] won twice.|It was so much fun.}",
            "{In the evening|When it was time to go home}, [fN] asked, \"{Will you come back tomorrow|Can we play again tomorrow}?\" \"{Yes|Of course|I will}!\" said [N].",
        ],
        morals="kind", friend=True, mood="lonely",
        about=["who had no friends", "who wanted a friend", "who finds a friend", "who was lonely", "who makes a new friend"],
        qa=[
            ("{What did they play?|What game did they play?}", "They played [game]."),
            ("{Why was [N] sad?|Why was [he] lonely?}", "[N] was lonely because [he] had no one to play with."),
            ("{Who became [his] friend?|Who was [his] new friend?}", "[fN] the [fK] became [his] friend."),
        ],
        end="[N] found a friend, and [his] name was [fN]." if v["fhe"] == "he" else "[N] found a friend, and her name was [fN].",
        next="The next day, [N] and [fN] met again {near|at} [spot]. They played [game], and then they ate [food].",
    )


FEARS = [
    ("the dark", "dark", "the lamp went out", "It was so dark that [he] could not see anything"),
    ("thunder", "loud", "a storm came", "Boom! went the thunder"),
    ("deep water", "deep", "[he] had to cross the river", "The water was deep and cold"),
    ("high places", "high", "[he] had to climb a tall tree", "The ground looked far, far away"),
    ("the old house", "old", "[he] had to go into the old house", "The floor made strange sounds"),
    ("the deep woods", "dark", "[he] had to walk into the deep woods", "The trees looked like giants"),
    ("loud noises", "loud", "the big bell rang and rang", "Ding, dong! It hurt [his] ears"),
    ("big dogs", "big", "a big dog stood on the path", "The dog looked right at [him]"),
]
COURAGE = [
    ("[he] sang a song", "[He] began to sing. The song was small at first, and then it was loud."),
    ("[he] counted to ten", "[He] closed [his] eyes and counted to ten. Then [he] opened them."),
    ("[he] took a deep breath", "[He] took a deep breath. \"I can do it,\" [he] whispered."),
    ("[he] thought of [his] friend", "[He] thought of [fN], who needed help. That made [him] strong."),
    ("[he] remembered the words of [his] [rel]", "[His] [rel] always said, \"Brave is when you are afraid and do it anyway.\" [N] remembered these words."),
    ("[he] took small steps", "[He] took one small step. Then [he] took another one."),
]


def fear(s):
    r, v = s.r, s.v
    s.person("f")
    v["fear"], v["adj"], v["event"], v["scene"] = r.choice(FEARS)
    v["trick"], act = r.choice(COURAGE)
    v["trouble"] = r.choice(["had hurt [fhis] foot", "was stuck", "was lost", "was all alone and crying", "had fallen and could not get up"])
    return dict(
        title="Brave [N]",
        beats=[
            "{But there was one thing.|} [N] was afraid of [fear]. {Nobody knew it.|\"It is too [adj],\" [he] always said.|[He] did not want to tell anyone.}",
            "One {day|evening}, [N] heard a cry. \"Help! {Help me|Please help}!\" It was [his] friend [fN], a [fA] [fK]. [fN] [trouble].",
            "[N] {ran to help|wanted to help}. But {then |}[event]. [scene]. {[His] legs shook.|[His] heart beat fast.|\"Oh no,\" [he] said.}",
            act,
            "{Step by step|Slowly}, [N] went on. {[He] did not look back.|[He] was still afraid, but [he] did not stop.} {At last|Soon} [he] {came to|found} [fN] and {helped [fhim] up|took [fhim] home|stayed with [fhim]}.",
            "\"{You came|You saved me|Thank you},\" said [fN]. \"You are the bravest [K] I know!\" {\"I was very afraid,\" said [N].|[N] smiled. [fear] did not seem so bad now.}",
        ],
        morals="brave", friend=True, mood="afraid",
        about=["who was afraid of [fear]", "who is afraid of [fear]", "who learns to be brave", "who saves a friend"],
        qa=[
            ("What was [N] afraid of?", "[N] was afraid of [fear]."),
            ("{Why did [fN] need help?|What was wrong with [fN]?|What happened to [fN]?}", "[fN] [trouble]."),
            ("{How did [N] become brave?|What helped [N] to be brave?}", "{To be brave, |}[trick]."),
            ("{Who cried for help?|Who did [N] help?}", "It was [fN] the [fK]."),
        ],
        end="[N] was brave and helped [fN], even though [he] was afraid of [fear].",
        next="The next day, [N] told [his] [rel] everything. \"I am proud of you,\" said [his] [rel]. {[N] was not so afraid of [fear] anymore.|And they ate [food] together.}",
    )


SKILLS = {
    "swim": ("swimming", "kick your legs", "crossed the pond"),
    "sing": ("singing", "listen to the birds", "sang for everyone at the fair"),
    "paint": ("painting", "look at the colors around you", "painted a picture of the whole village"),
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
    pool = [k for k in SKILLS if not (k == "swim" and v["K"] in w.SWIMMERS | {"fish", "whale", "dolphin", "crab", "octopus", "crocodile", "mermaid", "hippo", "walrus", "toad", "snowman"}) and not (k == "climb" and "climb" in w.KINDS.get(v["K"], ("", "", ""))[2])]
    v["skill"] = r.choice(pool)
    v["skilling"], v["tip"], v["did"] = SKILLS[v["skill"]]
    ability = {"swim": "swim", "climb": "climb"}.get(v["skill"])
    s.person("f", ability)
    return dict(
        title="[N] Learns to [skill]",
        beats=[
            "[N] wanted to learn to [skill]. {[He] thought about it all day long.|All [his] friends could do it.} But {it was very hard|when [he] tried, it went wrong|the first time, everyone laughed}.",
            "\"I will never learn to [skill],\" {said [N] sadly|sighed [N]}. {[He] sat down by [spot].|[He] wanted to give up.}",
            meet(s) + " \"{I can show you how|I can teach you|Let me help you},\" said [fN]. \"{First, you must [tip]|The secret is to [tip]}.\"",
            "{So they began.|They started the same day.} {Every day|Each morning}, they met {by [spot2]|near [spot2]} and practiced. {The first day was bad. The second day was better.|Sometimes it went wrong, but [N] tried again.|[N] made many mistakes, but [fN] only smiled.}",
            "{After [num] weeks|One fine day}, [N] {could do it|knew how to do it}! [He] [did]. {\"Look at me!\" [he] called.|Everyone clapped.|\"I knew you could do it,\" said [fN].}",
        ],
        morals="patient", friend=True, mood="eager",
        about=["who wants to learn to [skill]", "who learns to [skill]", "who wanted to [skill]", "who could not [skill]"],
        qa=[
            ("What did [N] want to learn?", "[N] wanted to learn to [skill]."),
            ("{Who taught [him]?|Who taught [N] to [skill]?}", "[fN] the [fK] taught [him]."),
            ("{What was the secret?|What did [fN] tell [him]?}", "[fN] told [him] to [tip]."),
            ("{Where did they practice?|Where did they meet?}", "They met near [spot2]."),
        ],
        end="[N] learned to [skill], and [he] [did].",
        next="{Soon|One day}, a little [c2] bird came to [N]. \"Can you teach me too?\" it asked. \"Of course,\" said [N]. \"First, you must [tip].\" And [N] became a teacher.",
    )


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
    trouble = r.choice([
        ("lost [his] way in the fog", "[N] lost [his] way in a thick fog. {[He] did not know where to go.|[He] called, but no one came.}", "\"{Follow me|This way},\" said a voice. It was [fN]! [fHe] led [N] {past [spot2]|through the fog} and all the way home."),
        ("had nothing to eat", "the winter was long, and [N] had nothing left to eat. {[He] was so hungry.|[His] shelves were empty.}", "Then there was a knock. It was [fN], with a basket of [food]. \"Now it is my turn to help you,\" [fhe] said."),
        ("lost [his] [t]", "[N] lost [his] [c] [t] and looked for it everywhere. {[He] was very sad.|[He] could not find it.}", "Then [fN] came, and in [fhis] bag was the [c] [t]! \"{I found it by [spot2]|It was lying by [spot2]},\" [fhe] said."),
        ("was sick", "[N] was sick and could not get up. {[His] head hurt.|[He] was cold.}", "Then the door opened. It was [fN], with hot soup and a warm blanket. [fHe] stayed until [N] was well."),
    ])
    v["later"] = trouble[0]
    beats = [
        "One day, [N] {was walking|went for a walk} {near|past} [spot]. [W] Suddenly, [he] heard a voice. \"{Help! I am stuck|Please help me|Help me, please}!\"",
        "It was [fN], a [fA] [fK]. [fHe] was {stuck|caught} [trap]. \"{Do not be afraid|Do not worry|Wait}! I will get you out,\" said [N].",
        "First [N] {tried|pulled and pulled} with all [his] might, but {it was no use|nothing happened}. Then [he] had an idea. [He] [deed]. {\"One, two, three!\"|Slowly, slowly, it worked.} [fN] was free!",
        "\"{Thank you|You saved me}! I will never forget {this|you},\" said [fN]." + (" [N] {smiled|laughed}. \"{It was nothing|Anyone would do it},\" [he] said." if repay else ""),
    ]
    if repay:
        beats += ["{Some time later|Not long after|A few weeks later}, " + trouble[1], trouble[2]]
    else:
        beats += ["[fN] {invited [N] to [fhome]|took [N] to [fhome]}. There they ate [food] {and told stories|and laughed a lot}.",
                  "{Before [N] went home,|Then} [fN] gave [him] a [c] [t]. \"{So that you remember me|It is for you},\" [fhe] said."]
    qa = [
        ("{Where was [fN] stuck?|Where was the [fK] stuck?|What happened to [fN]?}", "[fN] was stuck [trap]."),
        ("{How did [N] help [fN]?|How did [N] get [fhim] out?|What did [N] do?}", "[N] [deed]."),
        ("{Who did [N] save?|Who was stuck?|Who cried for help?}", "It was [fN], a [fA] [fK]."),
    ]
    if repay:
        qa.append(("{What happened to [N] later?|Why did [N] need help later?}", "Later, [N] [later]."))
    else:
        qa.append(("What did [fN] give [N]?", "[fN] gave [him] a [c] [t]."))
    return dict(
        title="[N] Helps [fN]", beats=beats, morals="kind", friend=True, mood="helpful",
        about=["who saves a [fK]", "who helps a [fK]", "and a [fK] in trouble", "who rescues a [fK]", "who helped a [fK]"],
        qa=qa, end="[N] saved [fN], and they were friends." if not repay else "[N] saved [fN], and later [fN] helped [N] too.",
        next="One week later, [N] and [fN] went back to the place together. They put up a sign. It said, \"Be careful here!\" Then they {ate [food2]|went home}.",
    )


def lostway(s):
    r, v = s.r, s.v
    s.person("f")
    why = r.choice([
        ("[he] followed a [c] butterfly", "But near [spot] [he] saw a [c] butterfly and ran after it, deeper and deeper into the woods."),
        ("it grew dark", "[He] stopped at [spot] to pick some [fruit]. {[He] picked so many that [he] forgot the time.|One more, and one more.} Soon it grew dark."),
        ("fog came up", "At first the way was easy. But near [spot], fog came up, and [he] could not see the path."),
        ("[he] took the wrong path", "At [spot], the path went left and right. [N] went left. It was the wrong way."),
        ("it began to snow", "But near [spot], it began to snow, and soon the path was white and could not be seen."),
    ])
    v["why"] = why[0]
    v["see"] = r.choice(["a light in a window", "smoke from a chimney", "the white house", "the red roof of the house"])
    return dict(
        title="[N] on the Way",
        beats=[
            "One day, [N] {wanted|went} to visit [his] [rel], who lived {on the other side of the hill|behind the woods|a long way off}. [He] {took|carried} a basket with [food]. \"{Stay on the path|Come back before dark},\" said everyone.",
            why[1],
            "{Now [he] was lost.|[N] did not know where [he] was.} {All the trees looked the same.|It was very quiet.} \"{Where am I|What shall I do|Hello? Is anybody there|Which way is it}?\" [he] said.",
            meet(s) + " \"Are you lost?\" asked [fN]. \"{Yes|I am},\" said [N]. {[His] voice was very small.|[He] told [fhim] everything.} \"{I know these woods|I know the way},\" said [fN]. \"{Come with me|Follow me}!\"",
            "They walked past [spot2] and [spot3]. {[fN] told jokes, and [N] was not afraid anymore.|They sang as they walked.|The moon came out and lit the way.} {At last|Soon}, [N] saw [see].",
            "[His] [rel] {stood at the door|came running}. \"{There you are|I was so worried}!\" [rhe] {said|cried}. {Then they all sat down and ate the [food].|[fN] came in too, and they all ate the [food].}",
        ],
        morals="help", friend=True, mood="lost",
        about=["who got lost", "who lost [his] way", "who visits [his] [rel]", "who gets lost on the way to [his] [rel]"],
        qa=[
            ("{Why did [N] get lost?|Why did [he] lose [his] way?}", "[N] got lost because [why]."),
            ("{Who did [N] want to visit?|Where did [N] want to go?}", "[N] wanted to visit [his] [rel]."),
            ("{What was in the basket?|What did [N] carry?}", "There was [food] in the basket."),
            ("Who showed [him] the way?", "[fN] the [fK] showed [him] the way."),
            ("{What did [N] see at last?|What did [he] see?}", "At last, [he] saw [see]."),
        ],
        end="[fN] showed [N] the way, and they all ate [food] at the house of [his] [rel].",
        next="The next morning, [fN] walked home with [N]. This time, [N] stayed on the path. [He] tied [c2] ribbons to the trees, so that [he] would never get lost again.",
    )


def storm(s):
    r, v = s.r, s.v
    s.person("f")
    v["harm"] = r.choice(["the wind took the roof", "the house was full of water", "a tree fell on the house", "the door blew away"])
    said = v["harm"][0].upper() + v["harm"][1:]
    v["said"] = said
    first_no = r.chance(0.35)
    return dict(
        title="The Big Storm",
        beats=[
            "One {night|evening}, a big storm came. {The wind blew hard.|The rain fell and fell.|The trees bent low.} [N] {was warm and dry inside|sat by the fire}.",
            "{Knock, knock!|Then there was a knock at the door.} Outside stood a [fA] [fK]. {[fHe] was wet and cold.|[fHe] shook with cold.} \"I am [fN],\" [fhe] said. \"[said]. {May I come in|Can I stay here}?\"",
            "\"{There is no room|My house is too small},\" said [N] and closed the door. But then [he] heard [fN] {cry|sneeze} outside. [N] felt {bad|sorry}. [He] opened the door again. \"Please come in,\" [he] said." if first_no else
            "\"{Of course|Yes, come in|Quick, come in}!\" said [N]. \"{There is room for two|It is small, but we can share}.\"",
            "[N] gave [fN] a dry [c] blanket and some [food]. They {told stories|sang songs|played a game} until {the storm was over|they fell asleep}.",
            "In the morning, {the sun came out|the sky was blue again}. [N] {went with|followed} [fN] {to see the damage|to [fhis] house}. \"{We can fix it|I will help you},\" [he] said. They worked for [num] days, and then {everything was as good as new|it was better than before}.",
        ],
        morals="kind share", friend=True, mood="cozy",
        about=["and a big storm", "who helps a friend in a storm", "and a storm", "who opens the door in a storm"],
        qa=[
            ("{Who knocked at the door?|Who came to the door?|Who stood outside?}", "[fN], a [fA] [fK], knocked at the door."),
            ("{What happened to [fN]'s house?|Why did [fN] need help?}", "In the storm, [harm]."),
            ("{What did [N] give [fN]?|What did [fN] get?}", "[N] gave [fhim] a [c] blanket and some [food]."),
            ("How long did they work?", "They worked for [num] days."),
        ],
        end="[N] and [fN] fixed the house together after the storm.",
        next="When the next storm came, [N] went to [fN]'s house. \"Now I can help you,\" said [fN]. They sat by the fire and ate [food2].",
    )


def seed(s):
    r, v = s.r, s.v
    s.person("f")
    v["plant"] = r.choice(["a [c] [flower]", "a big pumpkin", "a little apple tree", "a [c] [flower]", "a tall bean plant"])
    v["place"] = r.choice(["by [spot]", "near [spot]", "behind [spot]"])
    return dict(
        title="The Little Seed",
        beats=[
            "One day, {[N] found a tiny seed on the path|[his] [rel] gave [him] a tiny seed}. \"What will {it|this} become?\" [he] asked. [He] planted it [place] and gave it some water.",
            "Every day, [N] {looked at the ground|went to look}. {One day went by. Two days went by.|[He] waited and waited.} But nothing {happened|grew}. \"{It is a bad seed|It will never grow},\" [he] said.",
            meet(s) + " \"{Be patient|You must wait},\" said [fN]. \"{A seed needs sun, water and time|Good things grow slowly}.\"",
            "So {they waited together|[N] waited}. {It rained. Then the sun came out.|They told stories to the seed.|They sang to the seed every day.} {After [num] days|One morning}, there was a tiny green leaf! \"{It grows|Look, look}!\" {shouted|cried} [N].",
            "{The plant grew and grew.|Every day it was a little taller.} {In the summer|Soon}, it was [plant]. {Everyone came to see it.|It was the prettiest thing of all.}",
        ],
        morals="patient", friend=True, mood="waiting",
        about=["who planted a seed", "who plants a seed", "and a little seed", "who learns to wait", "who had a garden"],
        qa=[
            ("{What did [N] plant?|What did [N] find?}", "It was a tiny seed."),
            ("{Where did [N] plant the seed?|Where did [he] plant it?}", "[N] planted it [place]."),
            ("{What did the seed become?|What grew from the seed?}", "The seed became [plant]."),
            ("{What did [fN] say?|What does a seed need?}", "[fN] told [him] to wait."),
        ],
        end="The seed became [plant], and [N] and [fN] were very happy.",
        next="In the fall, there were [num] new seeds. [N] gave half of them to [fN]. In the spring, they planted all of them.",
    )


def race(s):
    r, v = s.r, s.v
    s.person("f")
    v["prize"] = "a [c] [t]"
    v["contest"] = r.choice(["race", "boat race", "jumping contest", "sled race", "running race"])
    helps = r.chance(0.6)
    if helps:
        tail = [
            "{But then|Suddenly}, [he] heard a cry. [fN], a [fA] [fK], had {fallen down|hurt [fhis] foot}. {Everyone else went on.|Nobody stopped.}",
            "[N] {stopped|looked back}. If [he] helped, [he] would lose. But [he] {could not leave [fN] alone|turned around}. \"{Hold on to me|I will help you},\" [he] said. They finished together, and they were last.",
            "But everyone clapped and cheered. \"{You did the right thing|You have the biggest heart},\" said the judge. And [N] got the [c] [t] after all.",
        ]
        end = "[N] came in last because [he] helped [fN], but [he] got the [c] [t] after all."
        who = ("{Why did [N] stop?|Why did [N] not win?}", "[N] stopped to help [fN].")
        result = ("{Who won?|Did [N] win?}", "[N] came in last, because [he] helped [fN].")
    else:
        tail = [
            "[fN], a [fA] [fK], was the fastest of all. \"{You will never win|I am much faster than you},\" [fhe] laughed. {[fN] stopped to rest under a tree and fell asleep.|[fN] stopped to eat [food], and then to drink, and then to sleep.}",
            "But [N] {did not stop|went on and on}. {Step by step|Slowly}, [he] passed the tree. [He] passed [spot3]. \"{Go, [N], go|Hurry, [N]}!\" called the others.",
            "When [fN] {woke up|opened [fhis] eyes}, it was too late. [N] had won! [He] got the [c] [t]. \"{Next time I will not sleep|I was too proud},\" said [fN]. \"{You did well|You are a good runner},\" [fhe] said, and they became friends.",
        ]
        end = "[N] won the [contest] and got the [c] [t]."
        who = ("{Why did [fN] lose?|Why did [fN] not win?}", "[fN] lost because [fhe] fell asleep.")
        result = ("{Who won?|Did [N] win?|Who won the [contest]?}", "[N] won the [contest].")
    return dict(
        title="The Big [contest]",
        beats=[
            "There was going to be a big [contest]. The way went from [spot] to [spot2]. The prize was a [c] [t]. {[N] wanted to win it very much.|Every day, [N] practiced for [num] hours.}",
            "{On the big day,|At last the day came, and} everyone came to watch. [W] \"{One, two, three, go|Ready, set, go}!\"",
            "[N] {went|ran} as fast as [he] could. {[His] heart beat fast.|Soon [he] was in front.}" if helps else "[N] was not the fastest, but [he] {did [his] best|was careful and strong}.",
        ] + tail,
        morals="kind" if helps else "patient", friend=True, mood="eager",
        about=["who wants to win a [contest]", "and a [contest]", "who runs in a race"] if "race" in v["contest"] else ["who wants to win a [contest]", "and a [contest]"],
        qa=[who, result, ("What was the prize?", "The prize was a [c] [t]."), ("Where did the [contest] start?", "It started at [spot].")],
        end=end,
        next="The next day, [N] and [fN] {met|practiced} near [spot3]. \"Let us run just for fun,\" said [N]. They ran and laughed until they were tired.",
    )


def star(s):
    r, v = s.r, s.v
    s.person("f", r.choice(["fly", "wise", "climb"]))
    v["body"] = r.choice(["a little star", "a small cloud", "a snowflake", "a moonbeam"])
    v["where"] = r.choice(["to the top of the hill", "to the top of the mountain", "to the top of the old tower"])
    body = v["body"].split(" ", 1)[1]
    v["b"] = body
    return dict(
        title="The [b]",
        beats=[
            "Every night, [N] looked up at the sky. {\"I wish I could touch it,\" [he] often said.|[He] loved the stars and the moon.}",
            "One night, [body] fell down {near [spot]|beside [spot]}. [N] ran to see it. The [b] was {crying|very sad|pale and cold}. \"I want to go home,\" it said. \"{Home is up there|But the sky is so far away}.\"",
            "\"{Do not cry|I will help you},\" said [N]. [He] {put it gently in a basket|carried it carefully}. But how could it go back to the sky?",
            "[N] asked [fN], a [fA] [fK]. \"{Take it|Carry it} [where],\" said [fN]. \"{There the sky is close|The wind there is strong}. {I will come with you|Let us go together}.\" They walked {all night|for a long time}.",
            "At the top, [N] lifted the [b] high. {\"One, two, three!\" they called.|The wind came.} Whoosh! The [b] flew up, up, up {into the night|to the sky}. \"Thank you, [N]! Thank you, [fN]!\" it called.",
            "{Now, every night,|Since then,} the [b] {smiles down|looks down} at them, and they wave back.",
        ],
        morals="kind", friend=True, mood="dreamy",
        about=["and [body]", "who helps [body]", "who finds [body]", "who looked at the sky"],
        qa=[
            ("{What fell from the sky?|What did [N] find?}", "It was [body]."),
            ("{Where did they take it?|Where did they go?|Where did they carry the [b]?}", "They went [where]."),
            ("{What did the [b] want?|Why was the [b] sad?}", "The [b] wanted to go home."),
        ],
        end="The [b] went back to the sky, and every night [N] and [fN] waved to it.",
        next="One winter night, the [b] sent them a gift. It was a [c] [t], and it shone in the dark. [N] and [fN] took turns with it.",
    )


def surprise(s):
    r, v = s.r, s.v
    s.person("f")
    s.person("g")
    return dict(
        title="The Surprise",
        beats=[
            "{It was|One day, it was} [N]'s birthday. But {nobody said a word|everyone seemed to forget it}.",
            "[He] went to [fN], a [fA] [fK]. \"{Do you know what day it is|Will you play with me}?\" asked [N]. \"{I have no time|I am busy},\" said [fN]. {[fHe] hid something behind [fhis] back.|And [fhe] closed the door.}",
            "Then [he] went to [gN] the [gK]. But [gN] {was not at home|had no time either}. [N] {walked home slowly|sat down by [spot]}. \"{They forgot my birthday|Nobody likes me},\" [he] thought. {A tear ran down [his] nose.|[He] felt very sad.}",
            "It {was|grew} dark when [he] {opened the door|came home}. \"Surprise!\" There were [fN] and [gN] and {all the others|[his] [rel]}! There was [food], {and [num] candles|and there were [c2] lights}.",
            "\"{We did not forget|We worked all day},\" laughed [fN]. [gN] gave [him] a [c] [t]. {\"It is just what I wanted!\" said [N].|[N] laughed and cried at the same time.}",
        ],
        morals="friend", friend=True, mood="sad",
        about=["and a surprise", "and a birthday", "who had a birthday", "whose friends forgot [his] birthday"],
        qa=[
            ("{What was the surprise?|Why did [fN] have no time?}", "It was a birthday party for [N]."),
            ("{What did [gN] give [N]?|What was the gift?|What did [N] get?}", "[gN] gave [him] a [c] [t]."),
            ("{What did they eat?|What was there to eat?}", "There was [food]."),
            ("{Why was [N] sad?|Why did [N] feel sad?}", "[N] thought that [his] friends forgot [his] birthday."),
        ],
        end="[N]'s friends gave [him] a surprise party, and [he] was very happy.",
        next="The next day, [N] helped [fN] and [gN] to clean up. Then [he] played with [his] new [t] all day.",
    )


def quarrel(s):
    r, v = s.r, s.v
    s.person("f")
    v["way"] = r.choice(["[N] said sorry", "[fN] said sorry", "they both said sorry"])
    sorry = {
        "[N] said sorry": "{At last|The next morning}, [N] went to [fN]'s door. \"I am sorry,\" [he] said. \"{You are more important than a [t]|I miss you}.\"",
        "[fN] said sorry": "{At last|The next morning}, [fN] came to [N]'s door. \"I am sorry,\" [fhe] said. \"{You are more important than a [t]|I miss you}.\"",
        "they both said sorry": "{At last|The next morning}, both of them went out at the same time. They met {by [spot2]|near [spot2]}. \"I am sorry!\" they both said {at once|at the same time}, and then they had to laugh.",
    }[v["way"]]
    return dict(
        title="The Quarrel",
        beats=[
            "[His] best friend was [fN], a [fA] [fK]. {They did everything together.|They played together every day.}",
            "One day, they found a [c] [t] {by [spot]|near [spot]}. \"{I saw it first|It is mine},\" said [N]. \"No, {I did|it is mine}!\" said [fN]. They {pulled and pulled|shouted at each other}, {until both were angry|and both were very angry}.",
            "\"{I will never play with you again|Go away},\" said [fN]. [fHe] went home. [N] {kept the [t], but it was no fun alone|sat down alone with the [t]}.",
            "[N] {tried to play, but|looked at the [t], and} the day was long {and quiet|and sad}. [fN] was {sad|lonely} too.",
            sorry,
            "{So they made a plan.|Then they had an idea.} {One day [N] had the [t], and the next day [fN] had it.|They shared the [t], and nobody was angry anymore.}",
        ],
        morals="share", friend=True, mood="angry",
        about=["who has a quarrel with a friend", "and a [fK] who had a fight", "who learns to say sorry", "and a [c] [t]"],
        qa=[
            ("{What did they find?|Why were they angry?|What did they fight about?}", "They found a [c] [t], and both wanted it."),
            ("{Who said sorry?|How did they become friends again?}", "{In the end, |}[way]."),
            ("{Where did they find the [t]?|Where was the [t]?}", "They found it near [spot]."),
        ],
        end="In the end, [way], and they shared the [c] [t].",
        next="After that, when they wanted the same thing, they counted to [num] and laughed. Then they shared it.",
    )


def egg(s):
    r, v = s.r, s.v
    s.person("f")
    v["baby"] = r.choice(["a tiny duck", "a little dragon", "a small turtle", "a baby owl", "a little swan", "a yellow chick"])
    baby = v["baby"].split(" ", 1)[1]
    v["b"] = baby
    v["bn"] = r.choice([n for n in "Pippin Dot Nibble Sunny Peep Button Cloud Bean".split()])
    return dict(
        title="The Egg",
        beats=[
            "One day, [N] found a [c] egg {near [spot]|by [spot]}. It was {cold|all alone}. [N] looked left and right, but there was no nest.",
            "[He] took it home and {put it near the fire|wrapped it in a blanket}. [His] friend [fN] the [fK] came to see it. \"{What is inside|Who is in there}?\" asked [fN]. \"{I do not know|We must wait},\" said [N].",
            "They {sat with the egg|kept the egg warm} {day and night|for [num] days}. {[fN] sang to it.|They told it stories.} Then, one morning: crack! The egg opened, and out came [baby].",
            "\"{Hello, little one|Welcome},\" said [N]. They called it [bn]. {[bn] ate and ate and grew and grew.|[bn] followed them everywhere.}",
            "{When summer came|One day}, a {big|proud} mother came {from far away|over the hill}. \"{I lost my egg in the wind|I have looked for my egg everywhere},\" she said. [N] was sad, but [he] {knew what was right|took [bn] to her}. \"Thank you for taking care of my child,\" said the mother.",
            "{[bn] came to visit them every week.|They all stayed friends, and [bn] came to visit every week.}",
        ],
        morals="kind", friend=True, mood="curious",
        about=["who found an egg", "who finds an egg", "and a [c] egg", "and [baby]"],
        qa=[
            ("{What was in the egg?|What came out of the egg?}", "There was [baby] in the egg."),
            ("{What color was the egg?}", "The egg was [c]."),
            ("{What did they call it?|What was the name of the [b]?}", "They called it [bn]."),
            ("{Where did [N] find the egg?|Where was the egg?}", "[N] found the egg near [spot]."),
        ],
        end="[N] gave [bn] back to its mother, and they all stayed friends.",
        next="A year later, [bn] was big and strong. [bn] took [N] and [fN] for a long ride over the hills. It was the best day of the year.",
    )


def kingdom(s):
    """A small quest: something is missing in the land, and the hero brings it back."""
    r, v = s.r, s.v
    s.person("f", r.choice(["wise", "strong", "fly", "small"]))
    v["lack"], v["asleep"] = r.choice([
        ("the rain", "in a cloud on the mountain"), ("the music", "in a box in the old tower"),
        ("the color", "in a jar in a deep cave"), ("the spring", "under the snow on the hill"),
        ("the moon", "in a well behind the hill"), ("the wind", "in a sack in a giant's kitchen"),
    ])
    v["ask"] = r.choice(["a song", "a joke", "a cup of tea", "a kind word", "a warm blanket", "a story"])
    return dict(
        title="[lack]",
        beats=[
            "One {day|year}, [lack] was gone. {Everyone was sad.|Nobody knew what to do.|The whole land was sad.} \"{I must find it|I will bring it back},\" {said|thought} [N].",
            "[N] {packed [food] and went away|took [his] [c] [t] and set out}. {[He] walked over hills and through woods.|[He] walked for [num] days.} " + meet(s),
            "\"{Where are you going|What are you looking for}?\" asked [fN]. \"I am looking for [lack],\" said [N]. \"{I have heard about it|I know},\" said [fN]. \"It is [asleep]. {I will show you|Come, I will go with you}.\"",
            "They {walked|went} past [spot] and [spot2]. {The way was long.|The night was cold.} And there it was, [asleep]. But an old {troll|ghost|snow bear} sat in front of it. \"{Nobody may pass|Go away},\" {it said|it growled}, \"{because I am so sad and alone|for nobody is ever kind to me}.\"",
            "[N] was {a little afraid|very quiet}, but [fN] {whispered|said}, \"{Be kind|Give it something}.\" So [N] gave it [ask]. {Nobody had ever done that before.|A smile came to its face.} \"{Thank you|You are kind},\" it said. \"{Take it with you|You may take it home}.\"",
            "{So they brought [lack] home.|And [lack] came back.} {Everyone danced and sang.|There was a big feast with [food2].}",
        ],
        morals="kind brave", friend=True, mood="worried",
        about=["who brings back [lack]", "who looks for [lack]", "who goes on a journey", "who goes on an adventure"],
        qa=[
            ("{What was gone?|What was [N] looking for?|What did [N] look for?}", "[N] was looking for [lack]."),
            ("{Where was it?|Where did they find it?|Where was [lack]?}", "It was [asleep]."),
            ("{What did [N] give?|How did they get it back?}", "[N] gave [ask]."),
            ("Who went with [N]?", "[fN] the [fK] went with [him]."),
        ],
        end="[N] and [fN] brought [lack] back home.",
        next="Some days later, there was a knock at the door. It was the one who had been so sad. \"May I visit you?\" it asked. [N] made [food2], and [fN] came too.",
    )


PLOTS = [friend, friend, fear, fear, learn, learn, rescue, rescue, lostway, storm, seed, race, star, surprise, quarrel, egg, kingdom]
