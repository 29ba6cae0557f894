#!/usr/bin/env python3
"""Writes decoders.json beside this file, deterministically.

Needs `pip install tokenizers`, the package that wrote most files called tokenizer.json. It is the
judge: the Rust code never sees it.

    decoders   a small tokenizer of each kind of decoder; what ids stand for, and what they stand for
               together with those that follow
    prompts    ways to put tokens around a text; its ids with and without them
"""

import json
import pathlib
import random

import tokenizers

HERE = pathlib.Path(__file__).parent
PAIRS = 24


def added(*texts):
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    return [{"id": i, "content": text, **flags} for i, text in enumerate(texts)]


def whole(words, decoder, specials=("<unk>", "<s>", "</s>")):
    """A file with a vocabulary of these words, the special tokens first."""
    vocab = {word: i for i, word in enumerate([*specials, *words])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added(*specials),
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": decoder,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }


def sequence(*decoders):
    return {"type": "Sequence", "decoders": list(decoders)}


def strip(start, stop=0):
    return {"type": "Strip", "content": " ", "start": start, "stop": stop}


BLANK = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
FALLBACK, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
PIECES = ["▁", "▁▁", "a", "▁a", "▁the", "▁cat", "s", ".", "é", "你"]
BYTES = [f"<0x{byte:02X}>" for byte in "你🙂é".encode()]
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}

KINDS = {
    "SentencePiece": whole([*PIECES, *BYTES], sequence(BLANK, FALLBACK, FUSE, strip(1))),
    "two blanks": whole([*PIECES, *BYTES], sequence(BLANK, FALLBACK, FUSE, strip(2))),
    "each token": whole(PIECES, sequence(BLANK, strip(1))),
    "pattern": whole(
        PIECES,
        sequence(BLANK, FUSE, {"type": "Replace", "pattern": {"Regex": "^\\s+"}, "content": ""}),
    ),
    "Metaspace": whole(
        PIECES, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    ),
    "Metaspace, never": whole(
        PIECES, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}
    ),
    "WordPiece": whole(
        ["do", "n't", "not", "##s", "cat", ".", ",", "'", "##ing", "你"],
        {"type": "WordPiece", "prefix": "##", "cleanup": True},
    ),
    "BPEDecoder": whole(
        ["a</w>", "b", "cat</w>", ".</w>", "你"], {"type": "BPEDecoder", "suffix": "</w>"}
    ),
    "CTC": whole(
        ["<pad>", "|", "a", "b", "c", "n't"],
        {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
    ),
    "ByteLevel": whole(["a", "Ġa", "Ġthe", "ä½", "ł", "Ċ"], BYTE_LEVEL),
    "ByteLevel in a sequence": whole(
        ["a", "Ġa", "Ġthe", "ä½", "ł", "Ċ"], sequence(BYTE_LEVEL, FUSE)
    ),
    "none": whole(["a", "b", "cat", "."], None),
}


def text_of(judge, ids):
    # One kind of decoder fails on an empty list.
    return judge.decode(ids, skip_special_tokens=False) if ids else ""


def pairs(name, judge, size):
    """Ids, those that follow, and the texts of the former and of both. Bytes of no character are left out:
    what they add to a text is not defined."""
    rng = random.Random(name)
    found = []
    while len(found) < PAIRS:
        before = [rng.randrange(size) for _ in range(rng.choice([0, 1, 1, 2, 3, 9, 30]))]
        after = [rng.randrange(size) for _ in range(rng.choice([1, 2, 5, 20]))]
        if name in ("SentencePiece", "two blanks"):
            before, after = whole_characters(judge, before), whole_characters(judge, after)
        head, both = text_of(judge, before), text_of(judge, before + after)
        if after and both.startswith(head) and "\ufffd" not in both:
            found.append({"before": before, "after": after, "head": head, "both": both})
    return found


def whole_characters(judge, ids):
    """Replaces each byte by all the bytes of a character."""
    first = judge.token_to_id("<0xE4>")
    characters = [range(first, first + 3), range(first + 3, first + 7), range(first + 7, first + 9)]
    return [one for id in ids for one in next((c for c in characters if id in c), [id])]


A = {"Sequence": {"id": "A", "type_id": 0}}


def template(single, **specials):
    tokens = {
        name: {"id": name, "ids": ids, "tokens": [name] * len(ids)}
        for name, ids in specials.items()
    }
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [A, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": tokens,
    }


def special(name):
    return {"SpecialToken": {"id": name, "type_id": 0}}


PROCESSORS = {
    "nothing": None,
    "ByteLevel": BYTE_LEVEL,
    "the text alone": template([A]),
    "before": template([special("s"), A], s=[1]),
    "two ids": template([special("s"), A], s=[1, 0]),
    "before and after": template([special("s"), A, special("e")], s=[1], e=[2]),
    "after": template([A, special("e")], e=[2]),
    "in a sequence": {
        "type": "Sequence",
        "processors": [BYTE_LEVEL, template([special("s"), A], s=[1])],
    },
    "BertProcessing": {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]},
    "RobertaProcessing": {
        "type": "RobertaProcessing",
        "sep": ["</s>", 2],
        "cls": ["<s>", 1],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
}


def main():
    decoders = []
    for name, file in KINDS.items():
        judge = tokenizers.Tokenizer.from_str(json.dumps(file))
        size = len(file["model"]["vocab"])
        decoders.append({"name": name, "file": file, "pairs": pairs(name, judge, size)})
    prompts = []
    for name, processor in PROCESSORS.items():
        file = {**KINDS["none"], "post_processor": processor}
        judge = tokenizers.Tokenizer.from_str(json.dumps(file))
        texts = [
            {
                "text": text,
                "ids": judge.encode(text).ids,
                "plain": judge.encode(text, add_special_tokens=False).ids,
            }
            for text in ["", "a", "a cat ."]
        ]
        prompts.append({"name": name, "file": file, "texts": texts})
    lines = [
        '{"decoders": [\n'
        + ",\n".join(json.dumps(one, ensure_ascii=False) for one in decoders)
        + "\n],",
        '"prompts": [\n'
        + ",\n".join(json.dumps(one, ensure_ascii=False) for one in prompts)
        + "\n]}",
    ]
    (HERE / "decoders.json").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
