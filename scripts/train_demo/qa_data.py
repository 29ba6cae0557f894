"""Rows for the stages that teach answering: token ids with a class each, from seeds.

python qa_data.py OUT_DIR TOKENIZER

writes the rows of each lesson (drills, list1, list2, list3, mixed, answers, final, usual,
answers_long), of two validation sets, and qa.json with their digests. An element is
id + 4096 * class (u16). `train_qa.py` has a weight for each class.
"""

import argparse
import array
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass

from stories import ask, chat, lists, short, tell
from stories.engine import Rng
from tokenizer import EOS, SEPARATOR, V1, Tokenizer

ROW, LONG_ROW = 512, 2048
HUMAN, TEXT, SHORT, FACT = 0, 1, 2, 4  # FACT + the number of its kind in ask.KINDS
CLASS = 4096
KINDS = ("drill", "roll", "short", "story", "halves", "chat", "plain")


@dataclass(frozen=True)
class Mix:
    """Where documents come from: a seed, and the shares of KINDS in percent: drills, rolls of
    characters, very short stories, stories with questions, stories in two halves with questions
    between, other chats, plain stories."""

    seed: str
    shares: tuple
    wide: bool = True  # whether names in stories are of all lists alike, and one in seven invented


DRILLS = Mix("grok-wgpu-demo-4", (40, 20, 18, 12, 2, 4, 4))
ANSWERS = Mix("grok-wgpu-demo-5", (12, 8, 16, 34, 8, 8, 14))
# Names as in the first stages again, so that stories do not invent more of them than those do.
USUAL = Mix("grok-wgpu-demo-6", (4, 4, 10, 48, 10, 10, 14), wide=False)
# Documents of each level of lists.
LISTS = {1: 30_000, 2: 20_000, 3: 16_000}
ON = ["Go on.", "And then?", "What happened next?", "Please go on.", "Tell me more."]


def questions_of(made, n, r):
    """n questions of pairs (kind, function that makes one); some come again in other words."""
    out = [make() for _, make in r.sample(made, len(made))[:n]]
    for _, make in r.sample(made, min(2, len(made))):
        if r.chance(0.4):
            out.append(make())
    return out


def with_answers(questions):
    out = []
    for q in questions:
        fact = FACT + ask.KINDS.index(q.kind)
        spans = [(start, end, fact) for start, end in q.spans()]
        out += [("Human", q.ask, HUMAN, []), ("Assistant", q.answer, SHORT, spans)]
    return out


def short_chat(seed, make=short.story):
    s, text, made = make(seed)
    out = [("Human", s.say(s.r.choice(short.ASK)), HUMAN, []), ("Assistant", text, SHORT, [])]
    return out + with_answers(questions_of(made, 4 + s.r.below(5), s.r))


def drill(seed):
    """Statements, and the same facts again; an assistant's turn without a question."""
    _, text, again = short.drill(seed)
    out, spans = text, []
    for q in again:
        if q.spans()[0][0] == 0:  # "Rosie had the red hat": nothing before says who
            continue
        at = len(out) + 1
        out += " " + q.answer
        fact = FACT + ask.KINDS.index(q.kind)
        spans += [(at + start, at + end, fact) for start, end in q.spans()]
    return [("Human", "Tell me a story.", HUMAN, []), ("Assistant", out, SHORT, spans)]


def story_chat(seed, most=8, request=chat.ASK, wide=True):
    s, plot, text = tell.build(seed, vivid=True, wide=wide)
    first = chat.request(s, plot, request) if s.r.chance(0.95) else s.r.choice(chat.ASK_ANY)
    out = [("Human", first, HUMAN, []), ("Assistant", text, TEXT, [])]
    return s, plot, text, out + with_answers(ask.some(s, plot, text, most))


def halves_chat(seed, wide=True):
    """A story in two turns, with questions about the first half before the second comes."""
    s, plot, text = tell.build(seed, vivid=True, wide=wide)
    parts = text.split("\n\n")
    if len(parts) < 2:
        return story_chat(seed, wide=wide)[3]
    cut = 1 + s.r.below(len(parts) - 1)
    first, second = "\n\n".join(parts[:cut]), "\n\n".join(parts[cut:])
    out = [("Human", chat.request(s, plot), HUMAN, []), ("Assistant", first, TEXT, [])]
    out += with_answers(ask.some(s, plot, first, 3))
    out += [("Human", s.r.choice(ON), HUMAN, []), ("Assistant", second, TEXT, [])]
    return out + with_answers(ask.some(s, plot, text, 4))


def small_chat(seed, wide=True):
    """Greetings, what comes after a story, and what the model cannot do; as in the first stages."""
    s, plot, text = tell.build(seed, vivid=True, wide=wide)
    r, out = s.r, []

    def turn(asks, answers, weight=TEXT):
        out.append(("Human", s.say(r.choice(asks)), HUMAN, []))
        out.append(("Assistant", s.say(r.choice(answers)), weight, []))

    kind = r.below(100)
    if kind < 20:
        turn(chat.HELLO, chat.HELLO_BACK)
    elif kind < 40:
        turn(chat.WHO, chat.I_AM)
    elif kind < 60:
        turn(chat.OTHER, chat.SORRY)
    if kind < 60 and r.chance(0.6):
        return out
    out += [("Human", chat.request(s, plot), HUMAN, []), ("Assistant", text, TEXT, [])]
    if r.chance(0.3):
        turn(chat.THANKS, chat.WELCOME)
        return out
    # Of a plot's own questions, those whose answer names nothing that the story does not.
    for question, answer in r.sample(plot["qa"], min(3, len(plot["qa"]))):
        turn([question], [answer.replace(", a [fA] [fK]", " the [fK]")])
    if r.chance(0.5):
        turn(chat.END_ASK, [plot["end"]])
    if r.chance(0.5):
        turn(chat.NEXT_ASK, [plot["next"]])
    return out


def long_chat(seed, tok):
    """Stories and questions, also about the earlier ones, up to the length of a long row."""
    r = Rng(f"long-{seed}")
    out, size, used, earlier = [], 1, set(), []
    for i in range(200):
        request = chat.ASK if not i else chat.ANOTHER
        s, plot, text, turns = story_chat(f"{seed}-{i}", 3 + r.below(4), request)
        words = {s.v[p + x] for p in ("", "f", "g") for x in "NK" if p + x in s.v}
        words |= {s.v["t"], s.v["t2"]}
        if words & used or any(ask.stated(x, text) for x in used):
            continue
        if earlier and r.chance(0.7):
            before = r.choice(earlier)
            turns += with_answers(ask.some(*before, 1 + r.below(3)))
        more = len(encode(tok, turns))
        if size + more > LONG_ROW + 1:
            if len(earlier) > 2 or i > 30:
                break
            continue
        out, size, used = out + turns, size + more, used | words
        earlier.append((s, plot, text))
    return out


def document(mix, seed):
    kinds = [kind for kind, n in zip(KINDS, mix.shares, strict=True) for _ in range(n)]
    kind = Rng(f"kind-{seed}").choice(kinds)
    if kind == "drill":
        return drill(seed)
    if kind in ("roll", "short"):
        return short_chat(seed, short.roll if kind == "roll" else short.story)
    if kind == "story":
        return story_chat(seed, wide=mix.wide)[3]
    if kind == "halves":
        return halves_chat(seed, mix.wide)
    if kind == "chat":
        return small_chat(seed, mix.wide)
    return tell.story(seed, vivid=True)


def marked(tok, text, start, spans, weight):
    """Ids with classes of a text whose spans, counted from `start`, are facts."""
    out, at = [], -start
    for piece in V1.findall(text):
        end = at + len(piece)
        facts = [fact for first, last, fact in spans if at < last and end > first]
        what = facts[0] if facts and piece[0] not in ".?!" else weight
        out += [i + CLASS * what for i in tok.piece(piece)]
        at = end
    return out


def encode(tok, doc):
    """Ids with classes, in the engine's chat format: text between special tokens apart."""
    if isinstance(doc, str):
        return [i + CLASS * TEXT for i in tok.encode(doc) + [EOS]]
    out = []
    for i, (role, text, weight, spans) in enumerate(doc):
        head = ("\n\n" if i else "") + f"{role}: "
        out += marked(tok, head + text, len(head), spans, weight)
        out.append(SEPARATOR + CLASS * (HUMAN if weight == HUMAN else TEXT))
    return [*out, EOS + CLASS * TEXT]


def pack(docs, row):
    """Packs documents into rows of row + 1 elements, padded with 0; longer ones are truncated."""
    rows, open_rows = [], []
    for ids in docs:
        ids = ids[: row + 1]
        fitting = [x for x in open_rows if len(x) + len(ids) <= row + 1]
        best = max(fitting, key=len) if fitting else []
        if not fitting:
            open_rows.append(best)
        best += ids
        if len(best) > row - 60 or len(open_rows) > 24:
            full = max(open_rows, key=len)
            open_rows = [x for x in open_rows if x is not full]
            rows.append(full)
    rows += open_rows
    return [x + [0] * (row + 1 - len(x)) for x in rows]


def listed(tok, level, seed):
    """Ids with classes of a list of facts."""
    text, spans = lists.facts(level, seed)
    kind = {"N": "name", "K": "kind", "C": "color", "T": "color"}
    marks = [(start, end, FACT + ask.KINDS.index(kind[slot])) for start, end, slot in spans]
    return [*marked(tok, text, 0, marks, SHORT), EOS + CLASS * TEXT]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("tokenizer")
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    tok = Tokenizer.load(args.tokenizer)
    report = {"kinds": KINDS, "mixes": [asdict(x) for x in (DRILLS, ANSWERS, USUAL)]}

    def write(name, rows):
        values = array.array("H", [i for r in rows for i in r])
        if sys.byteorder == "big":
            values.byteswap()
        with open(os.path.join(args.out, name + ".bin"), "wb") as f:
            f.write(values.tobytes())
        report[name] = {
            "rows": len(rows),
            "tokens": sum(1 for v in values if v),
            "facts": sum(1 for v in values if v // CLASS >= FACT),
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        }
        print(name, report[name], flush=True)
        return rows

    def make(name, count, row, document):
        return write(name, pack([document(i) for i in range(count)], row))

    def chats(mix, seed):
        return lambda i: encode(tok, document(mix, f"{seed}-{i}"))

    def long(seed):
        return lambda i: encode(tok, long_chat(f"{seed}-{i}", tok))

    drills = make("drills", 16_000, ROW, chats(DRILLS, DRILLS.seed))
    listed_rows = {}
    for level, count in LISTS.items():
        name, document = f"list{level}", lambda i, n=level: listed(tok, n, f"lev-{n}-{i}")
        listed_rows[level] = make(name, count, ROW, document)
    write("mixed", drills + listed_rows[3][:2500] + listed_rows[2][:600])
    answers = make("answers", 14_000, ROW, chats(ANSWERS, ANSWERS.seed))
    write("final", answers + drills[5000:7000] + listed_rows[3][2500:3100])
    make("usual", 2000, ROW, chats(USUAL, USUAL.seed))
    make("answers_long", 600, LONG_ROW, long(ANSWERS.seed))
    make("valid", 160, ROW, chats(ANSWERS, f"valid-{ANSWERS.seed}"))
    make("valid_long", 12, LONG_ROW, long(f"valid-{ANSWERS.seed}"))
    with open(os.path.join(args.out, "qa.json"), "w", encoding="utf-8") as f:
        json.dump(report, f, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main()
