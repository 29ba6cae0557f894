"""Checks of the questions, the very short stories and the rows that teach answering; no PyTorch.

Run in scripts/train_demo: python -m unittest
"""

import os
import re
import unittest

import qa_data
from stories import ask, lists, short, tell, words
from tokenizer import EOS, SEPARATOR, Tokenizer

MODEL = os.path.join(os.path.dirname(__file__), "..", "..", "..", "models", "demo")
TOKENIZER = Tokenizer.load(os.path.join(MODEL, "tokenizer.tok.json"))


def from_stories(count):
    """(text, Question, names) of whole stories."""
    for i in range(count):
        s, plot, text = tell.build(f"ask-{i}", vivid=True, wide=True)
        names = [s.v[p + "N"] for p in ("", "f", "g") if p + "N" in s.v]
        for q in ask.some(s, plot, text, 8):
            yield text, q, names


def from_short(count):
    for i in range(count):
        s, text, made = short.story(f"ask-{i}")
        names = [v for k, v in s.v.items() if re.fullmatch(r"N\d", k)]
        for _, make in made:
            yield text, make(), names


class Questions(unittest.TestCase):
    def test_a_story_has_the_fact_in_words(self):
        kinds = dict.fromkeys(ask.KINDS, 0)
        for text, q, _ in [*from_stories(150), *from_short(150)]:
            kinds[q.kind] += 1
            for fact in q.facts:
                self.assertTrue(ask.stated(fact, text), (fact, text))
            self.assertIsNone(re.search(r"[{}\[\]|]|  ", q.ask + q.answer), q)
        self.assertGreater(min(kinds.values()), 100, kinds)

    def test_the_true_answer_is_right_and_names_its_facts(self):
        for _, q, names in [*from_stories(150), *from_short(150)]:
            self.assertTrue(ask.right(q, q.answer, names), q)
            for start, end in q.spans():
                self.assertIn(q.answer[start:end].lower(), [f.lower() for f in q.facts])

    def test_an_answer_with_another_fact_is_wrong(self):
        seen = set()
        for _, q, names in from_stories(100):
            start, end = q.spans()[0]
            other = ask.rivals(q, names)[0]
            self.assertFalse(ask.right(q, q.answer[:start] + other + q.answer[end:], names), q)
            self.assertFalse(ask.right(q, q.answer[:-1] + f" or {other}.", names), q)
            self.assertFalse(ask.right(q, "I do not know.", names), q)
            seen.add(q.kind)
        self.assertEqual(seen, set(ask.KINDS))

    def test_no_home_is_asked_for_that_the_story_does_not_name(self):
        without = 0
        for i in range(150):
            s, plot, text = tell.build(f"home-{i}", vivid=True, wide=True)
            if ask.stated(s.v["P"], text) or ask.stated(s.v["home"], text):
                continue
            without += 1
            for q in ask.some(s, plot, text, 40):
                self.assertNotRegex(q.ask, rf"live.*\b{s.v['N']}\b|{s.v['N']} live")
        self.assertGreater(without, 10)

    def test_the_question_of_the_readme_is_asked(self):
        asked = {q.ask for _, q, _ in from_stories(600)}
        self.assertIn("What was the name of the fox?", asked)


class Names(unittest.TestCase):
    def test_wide_stories_invent_names(self):
        names = [tell.build(f"wide-{i}", wide=True)[0].v["N"] for i in range(350)]
        invented = [n for n in names if n not in words.ALL_NAMES]
        self.assertTrue(25 < len(invented) < 75, len(invented))
        self.assertGreater(len(set(invented)), 0.9 * len(invented))
        self.assertGreater(len(set(names)), 150)


class Rows(unittest.TestCase):
    def test_facts_are_marked_and_nothing_else_is(self):
        for i in range(200):
            doc = qa_data.short_chat(f"mark-{i}")
            ids = qa_data.encode(TOKENIZER, doc)
            for n, kind in enumerate(ask.KINDS):
                told = TOKENIZER.decode(
                    [v % qa_data.CLASS for v in ids if v // qa_data.CLASS == qa_data.FACT + n]
                )
                want = " ".join(
                    text[start:end]
                    for _, text, _, spans in doc
                    for start, end, fact in spans
                    if fact == qa_data.FACT + n
                )
                self.assertEqual(told.split(), want.split(), (kind, doc))

    def test_a_drill_asks_only_for_what_was_said_before(self):
        for i in range(60):
            first = short.drill(f"{i}")[1]
            _, text, _, spans = qa_data.drill(f"{i}")[1]
            self.assertTrue(text.startswith(first))
            self.assertGreater(len(spans), 12)
            for start, end, _ in spans:
                self.assertTrue(ask.stated(text[start:end], first), (text[start:end], first))
                # The key comes first: at least two words since the last sentence.
                self.assertGreater(len(text[text.rfind(". ", 0, start) + 2 : start].split()), 1)

    def test_ids_are_those_of_the_engine(self):
        for i in range(60):
            doc = qa_data.halves_chat(f"ids-{i}")
            ids = [v % qa_data.CLASS for v in qa_data.encode(TOKENIZER, doc)]
            want = []
            for j, (role, text, _, _) in enumerate(doc):
                want += TOKENIZER.encode(("\n\n" if j else "") + f"{role}: {text}") + [SEPARATOR]
            self.assertEqual(ids, [*want, EOS])

    def test_a_long_row_is_one_conversation_that_returns_to_earlier_stories(self):
        doc = qa_data.long_chat("x", TOKENIZER)
        size = len(qa_data.encode(TOKENIZER, doc))
        self.assertTrue(1200 < size <= qa_data.LONG_ROW + 1, size)
        self.assertGreater(sum(len(text) > 300 for _, text, _, _ in doc), 2)

    def test_a_list_asks_only_for_what_it_said_before(self):
        for level in lists.LEVELS:
            asked = 0
            for i in range(60):
                text, spans = lists.facts(level, f"list-{level}-{i}")
                asked += len(spans)
                for start, end, _ in spans:
                    self.assertTrue(ask.stated(text[start:end], text[:start]), text)
            self.assertGreater(asked, 60)

    def test_the_mix_has_all_its_parts(self):
        for mix in (qa_data.DRILLS, qa_data.ANSWERS, qa_data.USUAL):
            self.assertEqual(sum(mix.shares), 100)
        docs = [qa_data.document(qa_data.DRILLS, f"mix-{i}") for i in range(300)]
        plain = sum(isinstance(d, str) for d in docs)
        self.assertTrue(5 < plain < 40, plain)
        marked = sum(any(t[3] for t in d) for d in docs if not isinstance(d, str))
        self.assertGreater(marked, 220)


if __name__ == "__main__":
    unittest.main()
