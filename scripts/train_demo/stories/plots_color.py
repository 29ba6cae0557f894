"""Plots full of colored things, for the second stage: a color must be remembered through the whole story."""

from .plots_lost import meet


def mixup(s):
    """Two friends take each other's thing by mistake."""
    s.person("f")
    s.v["t2"] = s.v["t"]
    return dict(
        title="The Wrong [t]",
        beats=[
            (
                "[N] had a [c] [t]. [His] friend [fN], a [fA] [fK], had a [t] too. [fHis] [t] was"
                " [c2]."
            ),
            (
                "One day, they played {by [spot]|near [spot]}. They put the [c] [t] and the [c2]"
                " [t] on {the grass|a big stone|the same bench}. {It grew late, and they went"
                " home.|Then it began to rain, and they ran home.}"
            ),
            (
                'At home, [N] looked at [his] [t]. It was [c2]! "{Oh no|Oh}! This is not my [t],"'
                ' [he] said. "My [t] is [c]." {[He] ran back at once.|So [he] went out again.}'
            ),
            (
                'On the way, [he] met [fN]. [fN] held a [c] [t]. "{Look|See}! I took the [c] [t],"'
                ' said [fN], "but mine is [c2]." "And I took the [c2] [t]," said [N], "but mine is'
                ' [c]."'
            ),
            (
                "{They laughed and laughed.|Then they both had to laugh.} [N] gave [fN] the [c2]"
                ' [t], and [fN] gave [N] the [c] [t]. {"Now all is well," said [N].|"Let us put our'
                ' names on them," said [fN].}'
            ),
        ],
        morals="friend help",
        friend=True,
        mood="puzzled",
        about=["who took the wrong [t]", "who had a [c] [t]", "and a [c] [t]", "with a [c] [t]"],
        qa=[
            ("{What color was [N]'s [t]?|What color was the [t] of [N]?}", "[N]'s [t] was [c]."),
            (
                "{What color was [fN]'s [t]?|What color was the [t] of [fN]?}",
                "[fN]'s [t] was [c2].",
            ),
            (
                "{What did [N] take by mistake?|What was wrong?}",
                "[N] took the [c2] [t] by mistake.",
            ),
            ("{Where did they play?}", "They played near [spot]."),
        ],
        end="[N] got [his] [c] [t] back, and [fN] got [fhis] [c2] [t].",
        next=(
            "The next day, [N] put [his] name on the [c] [t], and [fN] put [fhis] name on the [c2]"
            " [t]. Then they played again near [spot]."
        ),
    )


def loved_color(s):
    """One loves one color, the other another; together they paint something in both."""
    r, v = s.r, s.v
    s.person("f")
    v["wall"] = r.choice(["fence", "bridge", "boat", "bench", "door", "tower", "gate", "wagon"])
    return dict(
        title="[c] and [c2]",
        beats=[
            (
                "[N] loved the color [c]. [His] [t] was [c], [his] door was [c], and [he] slept"
                ' under a [c] blanket. "[c] is the best color of all," [he] {said|always said}.'
            ),
            meet(s)
            + ' "{I like your|What a fine} [c] [t]," said [fN], "but I love the color [c2]. My [t2]'
            ' is [c2], and my house is [c2] too."',
            (
                'One day, they wanted to paint the old [wall]. "{Let us paint it|We must paint it}'
                ' [c]," said [N]. "No, [c2]," said [fN]. "[c]!" cried [N]. "[c2]!" cried [fN].'
                " {They both were angry.|They could not agree.}"
            ),
            (
                'Then [N] had an idea. "{One half can be [c], and the other half can be [c2]|I will'
                ' paint my side [c], and you can paint your side [c2]}," [he] said. So they took a'
                " pot of [c] paint and a pot of [c2] paint and {began|went to work}."
            ),
            (
                "{In the evening|At last}, the [wall] was [c] and [c2]. {It was the prettiest"
                ' [wall] in the whole land.|Everyone came to see it.} "[c] and [c2] look good'
                ' together," said [fN]. "Just like us," said [N].'
            ),
        ],
        morals="share friend",
        friend=True,
        mood="eager",
        about=[
            "who loved the color [c]",
            "who loves [c] things",
            "and a [c] [t]",
            "who paints a [wall]",
        ],
        qa=[
            (
                "{What color did [N] love?|What was [N]'s favorite color?}",
                "[N] loved the color [c].",
            ),
            (
                "{What color did [fN] love?|What was [fN]'s favorite color?}",
                "[fN] loved the color [c2].",
            ),
            ("{What did they paint?}", "They painted the old [wall]."),
            ("{What color was the [t]?|What color was [N]'s [t]?}", "[N]'s [t] was [c]."),
            (
                "{What color was the [wall]?|What color was the [wall] in the end?}",
                "The [wall] was [c] and [c2].",
            ),
        ],
        end="They painted the [wall] [c] and [c2], and both were happy.",
        next=(
            "The next day, [N] gave [fN] a [c] flower, and [fN] gave [N] a [c2] flower. They put"
            " both of them in front of the [wall]."
        ),
    )


def market(s):
    """The hero wants one thing of one color, and nothing else will do."""
    r, v = s.r, s.v
    s.person("f")
    s.person("g")
    v["for"] = r.choice(
        ["for [his] [rel]", "for the big feast", "for [himself]", "for [his] little brother"]
    )
    return dict(
        title="The [c] [t]",
        beats=[
            (
                "{One day|One morning}, [N] went to the market. [He] wanted a [c] [t] [for]. It had"
                " to be [c], {and nothing else|and no other color}."
            ),
            (
                'First [he] came to [fN] the [fK]. "I have a {fine|pretty|nice} [c2] [t]," said'
                ' [fN]. "{No, thank you|Thank you, but no}," said [N]. "I am looking for a [c]'
                ' [t]."'
            ),
            (
                'Then [he] came to [gN] the [gK]. "{Do you have|Have you got} a [c] [t]?" asked'
                ' [N]. "I do," said [gN], "but the [c] [t] is not for money. {Bring me|Give me}'
                ' some [food], and it is yours."'
            ),
            (
                "[N] ran home and made some [food]. {It took a long time.|It smelled so good.} [He]"
                " brought it to [gN]. [gN] {ate it all|was very glad} and gave [him] the [c] [t]."
            ),
            (
                '"{At last, my|Now I have a} [c] [t]!" {said|cried} [N]. {On the way home, everyone'
                ' looked at the [c] [t].|[fN] saw it and said, "Your [c] [t] is prettier than my'
                ' [c2] one."}'
            ),
        ],
        morals="patient",
        friend=True,
        mood="eager",
        about=[
            "who wants a [c] [t]",
            "who wanted a [c] [t]",
            "who goes to the market",
            "who looks for a [c] [t]",
        ],
        qa=[
            (
                "{What did [N] want?|What did [he] look for?|What did [N] want to buy?}",
                "[N] wanted a [c] [t].",
            ),
            ("{What did [fN] have?|What color was the [t] of [fN]?}", "[fN] had a [c2] [t]."),
            (
                "{Who had the [c] [t]?|Who gave [him] the [c] [t]?}",
                "[gN] the [gK] had the [c] [t].",
            ),
            ("{What did [gN] want?|What did [N] make?}", "It was [food]."),
            ("{What color was the [t]?}", "The [t] was [c]."),
        ],
        end="[N] got the [c] [t] from [gN] the [gK].",
        next=(
            'The next day, [fN] painted the [c2] [t] [c]. "Now we both have a [c] [t]," said [fN],'
            " and [N] laughed."
        ),
    )


PLOTS = [mixup, loved_color, market]
