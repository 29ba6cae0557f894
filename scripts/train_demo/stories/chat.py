"""Chats: requests for stories, questions with answers from a story's facts, and small talk.

A chat is a list of (role, text) with the roles "Human" and "Assistant".
"""

from . import tell
from .engine import Rng

ASK = [
    "Tell me a story about {X}.",
    "Tell me a story about {X}.",
    "Tell me a story about {X}.",
    "Please tell me a story about {X}.",
    "Can you tell me a story about {X}?",
    "Could you tell me a story about {X}, please?",
    "I want to hear a story about {X}.",
    "Write a story about {X}.",
    "Write a short story about {X}.",
    "I would like a story about {X}.",
    "A story about {X}, please.",
    "Do you know a story about {X}?",
    "Tell me a bedtime story about {X}.",
    "Tell me about {X}.",
    "tell me a story about {X}",
    "Tell a story about {X}!",
    "Make up a story about {X}.",
    "Give me a story about {X}.",
    "How about a story about {X}?",
    "Tell me a short story about {X}.",
    "My child wants a story about {X}.",
    "Let us have a story about {X}.",
    "story about {X}",
    "Tell me a nice story about {X}",
    "I am tired. Tell me a story about {X}.",
]
ASK_ANY = [
    "Tell me a story.",
    "Tell me a story!",
    "Please tell me a story.",
    "Can you tell me a story?",
    "I want a story.",
    "Tell me a bedtime story.",
    "Write a story.",
    "tell me a story",
    "Story, please!",
    "Tell me something nice.",
    "I cannot sleep. Please tell me a story.",
    "Do you know a story?",
]
SUBJECT = [
    "a [K]",
    "a [K]",
    "a [A] [K]",
    "a [A] [K]",
    "a [K] named [N]",
    "a [K] called [N]",
    "a [A] [K] named [N]",
    "[N] the [K]",
    "a [K] and a [fK]",
    "a [K] who lived [P]",
    "a [K] and [his] friend, a [fK]",
    "a [K] named [N] and a [fK] named [fN]",
]
HELLO = [
    "Hello!",
    "Hi!",
    "Hello.",
    "Hi there!",
    "Good morning!",
    "Good evening.",
    "hello",
    "hi",
    "Hey!",
    "Hello, how are you?",
    "How are you?",
    "Good day!",
]
HELLO_BACK = [
    (
        "{Hello|Hi|Hello there}! {I am glad you are here.|It is nice to meet you.|How nice to see"
        " you!} {Would you like to hear a story?|What shall my story be about?|Shall I tell you a"
        " story?|Who shall be in your story?}"
    ),
    (
        "{Hello|Hi}! I {tell|know} {small stories|little stories}. {What would you like to"
        " hear?|Tell me who should be in it.}"
    ),
]
WHO = [
    "Who are you?",
    "What are you?",
    "What is your name?",
    "Are you a robot?",
    "Are you a person?",
    "Tell me about yourself.",
    "who are you",
    "What can you do?",
    "What do you do?",
    "What is this?",
    "Can you help me?",
]
I_AM = [
    (
        "I am a {very small|tiny|little} language model{| that tells stories}. {I tell stories"
        " about animals and people.|I can tell you a story, and you can ask me about it.} {Would"
        " you like one?|Who shall be in it?|Just name an animal.}"
    ),
    (
        "I am a little storyteller {inside a computer|made of numbers}. {I have the same shape as"
        " Grok 2, but I am much, much smaller.|I know how to tell small stories, and not much"
        " else.} {Shall I tell you one?|What shall it be about?}"
    ),
]
OTHER = [
    "What is two plus two?",
    "What is the capital of France?",
    "How is the weather today?",
    "Can you write code?",
    "What time is it?",
    "Who is the president?",
    "Help me with my homework.",
    "What is the meaning of life?",
    "How do I cook rice?",
    "Solve this problem.",
    "Explain how a computer works.",
    "What is deep learning?",
    "Where is the moon?",
    "Translate this for me.",
    "Do you like music?",
    "How old are you?",
    "What is the best movie?",
    "How far is the sun?",
    "Write a poem.",
    "What is the news?",
    "Is it going to rain?",
    "How do planes fly?",
    "Why is the sky blue?",
    "Sing a song.",
    "What is your favorite color?",
]
SORRY = [
    (
        "{I am sorry, but I do not know that.|I do not know that.|That is too hard for me.|I wish I"
        " knew.} {I am a small model, and I only know how to tell stories.|I only tell little"
        " stories.|Stories are all I know.} {Would you like to hear one?|Shall I tell you one?|What"
        " shall it be about?}"
    ),
]
THANKS = [
    "Thank you!",
    "Thanks!",
    "Thank you, that was nice.",
    "That was a good story.",
    "I liked that story.",
    "Thank you. Good night!",
    "I love it!",
    "What a nice story!",
]
WELCOME = [
    (
        "{You are welcome!|I am glad you liked it.|Thank you for listening!} {Shall I tell you"
        " another one?|Come back when you want another story.|Sleep well!|[N] says thank you"
        " too.|[N] the [K] waves to you.}"
    ),
]
GENERIC = [
    (
        (
            "{What was the name of the [K]?|What was the [K]'s name?|What is the [K]'s name?|What"
            " was the [K] called?|Who is the story about?}"
        ),
        "{The [K]'s name was [N].|The [K] was named [N].|[His] name was [N].}",
    ),
    ("{What kind of animal was [N]?|Who was [N]?|What was [N]?|Who is [N]?}", "[N] was a [A] [K]."),
    (
        "{Who was [fN]?|Who is [fN]?|What kind of animal was [fN]?|What was [fN]?}",
        "[fN] was a [fA] [fK].",
    ),
    ("{Where did [N] live?|Where did the [K] live?|Where did [he] live?}", "[N] lived [P]."),
    (
        (
            "{Who helped [him]?|Who helped [N]?|Who was [his] friend?|Who was [N]'s friend?|Who was"
            " with [N]?}"
        ),
        "It was [fN], a [fA] [fK].",
    ),
    (
        "{What was the name of the [fK]?|What was the [fK]'s name?|What was [his] friend called?}",
        "{The [fK]'s name was [fN].|The [fK] was named [fN].}",
    ),
]
END_ASK = [
    "How did it end?",
    "How did the story end?",
    "What happened in the end?",
    "Did it end well?",
    "And how did it end?",
]
NEXT_ASK = [
    "What happened next?",
    "Tell me what happened next.",
    "And then?",
    "What happened the next day?",
    "Then what?",
    "Go on.",
    "Please tell me more.",
    "What happened after that?",
    "Tell me more about [N].",
]
ANOTHER = [
    "Tell me another story about {X}.",
    "Another one, please. About {X}.",
    "Now tell me a story about {X}.",
    "Now one about {X}.",
    "One more! About {X}.",
]


def lower_article(text):
    """Undoes the capital of a sentence's first article, for use inside a sentence."""
    for article in ("A ", "An "):
        if text.startswith(article):
            return text[0].lower() + text[1:]
    return text


def lower_first(text):
    return text[0].lower() + text[1:]


def request(s, plot, templates=ASK):
    r = s.r
    if r.chance(0.5):
        about = lower_first(s.say(r.choice(plot["about"])))
        who = s.say(
            r.choice(
                [
                    "a [K]",
                    "a [K]",
                    "a [A] [K]",
                    "a [K] named [N]",
                    "[N] the [K]",
                    "a [A] [K] named [N]",
                ]
            )
        )
        text = lower_article(who) + " " + about
    else:
        text = lower_article(s.say(r.choice(SUBJECT)))
    return r.choice(templates).replace("{X}", text)


def questions(s, plot, n):
    """n different pairs of a question and its true answer about the story."""
    pool = plot["qa"] + plot["qa"] + GENERIC
    pairs, seen = [], set()
    for question, answer in s.r.sample(pool, len(pool)):
        if question not in seen and len(pairs) < n:
            seen.add(question)
            pairs.append((s.say(question), s.say(answer)))
    return pairs


def chat(seed, vivid=False):
    """One chat as a list of (role, text)."""
    r = Rng(f"chat-{seed}")
    s, plot, text = tell.build(seed, vivid)
    kind = r.below(100)
    out = []

    def small(asks, answers):
        out.append(("Human", r.choice(asks)))
        out.append(("Assistant", s.say(r.choice(answers))))

    if kind < 4:
        small(HELLO, HELLO_BACK)
        if r.chance(0.5):
            small(WHO, I_AM)
    elif kind < 8:
        small(WHO, I_AM)
    elif kind < 12:
        small(OTHER, SORRY)
    if kind < 12 and r.chance(0.5):
        return out
    out.append(("Human", request(s, plot) if r.chance(0.9) else r.choice(ASK_ANY)))
    out.append(("Assistant", text))
    if r.chance(0.15):
        return out
    follow = r.below(100)
    if follow < 10:
        small(THANKS, WELCOME)
        return out
    for question, answer in questions(s, plot, 1 + r.below(4)):
        out.append(("Human", question))
        out.append(("Assistant", answer))
    if r.chance(0.25):
        out.append(("Human", r.choice(END_ASK)))
        out.append(("Assistant", s.say(plot["end"])))
    if r.chance(0.3):
        out.append(("Human", s.say(r.choice(NEXT_ASK))))
        out.append(("Assistant", s.say(plot["next"])))
    elif r.chance(0.1):
        small(THANKS, WELCOME)
    elif r.chance(0.25):
        s2, plot2, text2 = tell.build(f"{seed}-second", vivid)
        out.append(("Human", request(s2, plot2, ANOTHER)))
        out.append(("Assistant", text2))
    return out
