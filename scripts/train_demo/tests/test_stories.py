"""Checks of the story generator, the tokenizer and the packing; they need no PyTorch.

Run in scripts/train_demo: python -m unittest
"""

import hashlib
import json
import os
import re
import unittest

import data
from stories import chat, tell, words
from stories.engine import Rng, Story, parse
from tokenizer import EOS, FIRST_BYTE, FIRST_MERGE, SEPARATOR, SPECIALS, V1, Tokenizer, train

MODEL = os.path.join(os.path.dirname(__file__), "..", "..", "..", "models", "demo")
COLOR = "|".join(words.COLORS)
KIND = "|".join(sorted([*words.KINDS, *words.RARE_KINDS], key=len, reverse=True))
NAMES = {*words.NAMES_M, *words.NAMES_F, *words.RARE_M, *words.RARE_F}


class Engine(unittest.TestCase):
    def test_random_numbers_are_splitmix64(self):
        rng = Rng("")
        rng.state = 0
        self.assertEqual([rng.next(), rng.next()], [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4])

    def test_templates_choose_and_mend(self):
        s = Story("x")
        s.v.update(A="old", K="owl", he="she")
        self.assertEqual(
            s.say("{a [A] [K]|a [A] [K]} sat. [He] sang."), "An old owl sat. She sang."
        )
        with self.assertRaises(ValueError):
            parse("one } two")

    def test_every_template_of_every_plot_expands(self):
        for i in range(1500):
            s, plot, text = tell.build(f"all-{i}")
            lines = [text] + [s.say(x) for pair in plot["qa"] for x in pair]
            lines += [s.say(x) for x in [*plot["about"], plot["end"], plot["next"], plot["title"]]]
            for line in lines:
                self.assertIsNone(re.search(r"[{}\[\]|]|  | [.,!?]|\.\.", line), line)
                self.assertEqual(line.count('"') % 2, 0, line)


class Consistency(unittest.TestCase):
    def test_same_seed_same_story_and_other_seed_other_story(self):
        self.assertEqual(tell.story("a"), tell.story("a"))
        self.assertEqual(len({tell.story(i) for i in range(3000)}), 3000)

    def test_a_character_keeps_its_kind(self):
        for i in range(2000):
            s, _, text = tell.build(f"kind-{i}")
            kinds = {s.v[p + "N"]: s.v[p + "K"] for p in ("", "f", "g") if p + "N" in s.v}
            self.assertEqual(len(kinds), len([p for p in ("", "f", "g") if p + "N" in s.v]), text)
            for name, kind in re.findall(
                rf"\b([A-Z][a-z]+)(?:,? (?:the|an?)(?: \w+)?) ({KIND})\b", text
            ):
                if name in kinds:
                    self.assertEqual(kind, kinds[name], text)

    def test_no_name_comes_from_nowhere(self):
        for i in range(2000):
            s, _, text = tell.build(f"name-{i}")
            known = {s.v[k] for k in ("N", "fN", "gN", "bn") if k in s.v}
            strangers = (
                (NAMES & set(re.findall(r"\b[A-Z][a-z]+\b", text)))
                - known
                - {"Will", "Mark", "Sunny"}
            )
            self.assertEqual(strangers, set(), text)

    def test_a_thing_keeps_its_color(self):
        for i in range(2000):
            s, plot, text = tell.build(f"color-{i}")
            if "[c] [t]" in plot["end"] + "".join(plot["beats"]):
                found = set(re.findall(rf"\b({COLOR}) {re.escape(s.v['t'])}\b", text))
                self.assertLessEqual(found, {s.v["c"]}, text)

    def test_length_is_that_of_a_small_story(self):
        counts = [len(tell.story(f"len-{i}").split()) for i in range(2000)]
        self.assertGreater(min(counts), 80)
        self.assertLess(max(counts), 260)


class Chats(unittest.TestCase):
    def test_turns_alternate_and_end_with_the_assistant(self):
        for i in range(1500):
            roles = [role for role, _ in chat.chat(i)]
            self.assertEqual(roles, ["Human", "Assistant"] * (len(roles) // 2))

    def test_the_story_obeys_the_request(self):
        for i in range(1500):
            turns = chat.chat(f"obey-{i}")
            for (_, ask), (_, answer) in zip(turns[::2], turns[1::2], strict=True):
                if "story about" not in ask.lower() or len(answer) < 300:
                    continue
                for name in NAMES & set(re.findall(r"\b[A-Z][a-z]+\b", ask)) - {"Will", "Mark"}:
                    self.assertIn(name, answer, ask)
                for kind in re.findall(rf"\ban? (?:\w+ )?({KIND})\b", ask):
                    self.assertIn(kind, answer, ask)

    def test_answers_are_true_of_the_story(self):
        checked = 0
        for i in range(1500):
            turns = chat.chat(f"true-{i}")
            story = next((t for r, t in turns if r == "Assistant" and len(t) > 300), "")
            for (_, ask), (_, answer) in zip(turns[::2], turns[1::2], strict=True):
                if ask.startswith("What color") and story:
                    color = answer.rstrip(".").split()[-1]
                    self.assertIn(color, story, ask)
                    checked += 1
        self.assertGreater(checked, 50)


class Tokens(unittest.TestCase):
    def test_the_split_is_v1(self):
        text = "Human: I'm 12!\n\nAn owl.  Yes"
        self.assertEqual(
            V1.findall(text),
            ["Human", ":", " I", "'m", " ", "1", "2", "!\n\n", "An", " owl", ".", " ", " Yes"],
        )

    def test_a_trained_tokenizer_round_trips(self):
        tok = train([tell.story(i) for i in range(200)], FIRST_MERGE + 100)
        for text in ("Once upon a time", "naïve 🦊 \x00\n\n  end ", "'s"):
            self.assertEqual(tok.decode(tok.encode(text)), text)
        self.assertEqual(tok.piece("\x00"), [FIRST_BYTE])
        self.assertEqual(tok.size, FIRST_MERGE + 100)
        self.assertEqual(len(SPECIALS), 128)

    def test_runs_between_specials_are_tokenized_apart(self):
        tok = train([tell.story(i) for i in range(200)], FIRST_MERGE + 100)
        ids = data.encode(tok, [("Human", "Hi."), ("Assistant", "Hello.")])
        want = (
            tok.encode("Human: Hi.")
            + [SEPARATOR]
            + tok.encode("\n\nAssistant: Hello.")
            + [SEPARATOR, EOS]
        )
        self.assertEqual(ids, want)
        self.assertEqual(
            want[: len(tok.encode("Human: Hi.")) + 1 + len(tok.encode("\n\nAssistant:"))][-1],
            tok.encode("\n\nAssistant:")[-1],
        )

    def test_packing_keeps_every_document_whole(self):
        docs = [[3 + i % 900] * (1 + i * 37 % 400) for i in range(300)]
        rows = data.pack(docs)
        self.assertTrue(all(len(r) == data.ROW + 1 for r in rows))
        self.assertEqual(
            sorted(x for r in rows for x in r if x), sorted(x for d in docs for x in d)
        )

    def test_the_shipped_files_are_those_of_the_recipe(self):
        with open(os.path.join(MODEL, "corpus.json"), encoding="utf-8") as f:
            report = json.load(f)
        with open(os.path.join(MODEL, "tokenizer.tok.json"), "rb") as f:
            self.assertEqual(hashlib.sha256(f.read()).hexdigest(), report["tokenizer_sha256"])
        text = data.heldout().encode()
        self.assertEqual(hashlib.sha256(text).hexdigest(), report["heldout_sha256"])
        with open(os.path.join(MODEL, "heldout.txt"), "rb") as f:
            self.assertEqual(f.read(), text)
        self.assertEqual(
            Tokenizer.load(os.path.join(MODEL, "tokenizer.tok.json")).size, report["vocab_size"]
        )


if __name__ == "__main__":
    unittest.main()
