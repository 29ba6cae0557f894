#!/usr/bin/env python3
"""Writes the small SentencePiece models and golden ids beside this file, deterministically.

Needs `pip install sentencepiece==0.2.3 protobuf`. The package trains the models and is the judge: the Rust
code never sees it.

    *.model          models of a few hundred pieces, without their charsmap
    nmt_nfkc.gz      the charsmap of the package's default rules, as a message that, put behind a
                     model, is joined with it
    golden.json.gz   texts, with their ids and the text of those ids by model; and ids with their
                     text
"""

import gzip
import io
import json
import pathlib
import random

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb

HERE = pathlib.Path(__file__).parent

CORPUS = """Deep learning is a part of machine learning. It trains networks of many layers on examples.
The layers near the input learn simple things; the layers near the output learn the things that have names.
Hello world! How do I say that in German, French, Russian, Greek and Chinese?
Hallo Welt! Bonjour tout le monde. Привет, мир! Γειά σου Κόσμε! 你好，世界！ こんにちは世界。
It isn't hard, and you'll see that we've done it before; they're all greetings, and I'm sure he'd say so.
def hello(name): print("Hello, " + name + "!") for i in range(10): if i % 2 == 0: return i
The weather in the north of the country was cold, and the wind from the sea was strong.
The children were in the house with their mother. One of them said that there was a ship.
In 1984 there were 3.14159 and 2,718 numbers, 10 of them below 100 and 1000 above 12345.
السلام عليكم ورحمة الله وبركاته. कैसे हो आप सब लोग?
café naïve résumé Zoë coöperate façade über straße
""".splitlines()

# Name, options of the trainer, and how the model is changed afterwards.
MODELS = {
    # T5 and XLNet are like this.
    "unigram_nfkc": dict(model_type="unigram", vocab_size=300, pad_id=3),
    "unigram_bytes": dict(
        model_type="unigram",
        vocab_size=520,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<sep>", "learn", "learning", "\u2581\u2581", "\t", "é", "1000"],
        control_symbols=["<ctrl>", "[X]"],
        character_coverage=0.98,
    ),
    # Llama 2 is like this.
    "bpe_bytes": dict(
        model_type="bpe",
        vocab_size=560,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        character_coverage=0.98,
    ),
    "bpe_nfkc": dict(
        model_type="bpe",
        vocab_size=300,
        user_defined_symbols=["<sep>", "the", "th", " x ", "ﬁ", "1000"],
        unk_surface="<?>",
        unk_id=2,
        bos_id=-1,
        eos_id=0,
        pad_id=1,
        eos_piece="[EOS]",
        unk_piece="[UNK]",
        pad_piece="[PAD]",
    ),
    # Nothing is added to a text, blanks are at the end of words, and pieces of the middle are unused.
    "bpe_suffix": dict(
        model_type="bpe",
        vocab_size=300,
        normalization_rule_name="nmt_nfkc_cf",
        treat_whitespace_as_suffix=True,
        remove_extra_whitespaces=True,
    ),
    "unigram_plain": dict(
        model_type="unigram",
        vocab_size=300,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=True,
    ),
}
# Pieces that are made unused, by model: every so many normal ones of more than one character.
UNUSED = {"bpe_nfkc": 3, "unigram_nfkc": 5, "bpe_bytes": 7}
# nmt_nfkc_cf's map is another one, which would double the files: it gets the usual map instead.

TEXTS = [
    "",
    " ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    "\u2581",
    "\u2581\u2581a\u2581",
    "Hello world",
    " Hello  world ",
    "Hello\tworld\r\nnext\n\n\nlines \n",
    "<s>Hello</s><unk><pad><0x41><0x0A>",
    "<sep><ctrl>[X] a<sep>b<ctrl>c[EOS][PAD][UNK]",
    "learninglearn learning the then 1000 10000 x  x x",
    "ﬁ ﬂ ½ Ⅷ ① ㍿ ﷺ ｱｲｳ Ｈｅｌｌｏ　Ｗｏｒｌｄ！",
    "e\u0301 cafe\u0301 Z\u0351\u032b\u0343a\u0308\u0363l\u0348go",
    "🙂👩‍👩‍👧‍👦🇩🇪 👍🏽",
    "\u00a0\u2003\u2028\u3000\u0085x\u00a0y\u200b\u200d\ufeff\u00ad",
    "\x00",
    "a\x00b\x01\x02\x1b[31m\x7f\x9f",
    "\ufffd\ue000\U0010ffff\u202eabc\ufffe",
    "السلام عليكم ﻻ ﷲ",
    "कैसे हो",
    "你好，世界！こんにちは 안녕 ᄒ\u1161ᆫ",
    "a" * 300,
    " " * 257 + "x" + " " * 64,
    "the" * 80,
    "ÿ" * 40,
    "1" * 60,
    # Sums of scores begin anew after 100,000.
    "ÿłŧ the weather  " * 2500,
]
MIX = (
    list(
        "  \n\r\t'sStTaeioD0189!?.,^éßЖЯ你世🙂\u0301\u00a0\u3000ſ\u2581\x00\x07ﬁ½ｱＡ①\u200b\ufeff\ufffdㄱ각क\u093e"
    )
    + ["\r\n", "  ", "   ", "e\u0301", "<s>", "</s>", "<unk>", "<sep>", "<0x20>", "<ctrl>", "[EOS]"]
    + [word for line in CORPUS for word in line.split(" ")]
    + ["learning", "the", "then", "1000", "layers", "the ", " of", " network"] * 6
)


def texts():
    dice = random.Random(2)
    made = ["".join(dice.choice(MIX) for _ in range(dice.randrange(1, 16))) for _ in range(700)]
    made += [" ".join(dice.choice(MIX) for _ in range(dice.randrange(1, 10))) for _ in range(300)]
    any_char = [chr(c) for c in range(0x20, 0x2FFFF) if not 0xD800 <= c < 0xE000]
    made += [
        "".join(dice.choice(any_char) for _ in range(dice.randrange(1, 6))) for _ in range(150)
    ]
    compatible = [
        chr(c)
        for r in (range(0xA0, 0x600), range(0x1D00, 0x3400), range(0xF900, 0x10000))
        for c in r
    ]
    made += [
        "".join(dice.choice(compatible) for _ in range(dice.randrange(1, 8))) for _ in range(150)
    ]
    return TEXTS + made


def train(options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_writer=out,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    model = pb.ModelProto()
    model.ParseFromString(out.getvalue())
    return model


def squeeze(data):
    return gzip.compress(data, 9, mtime=0)


def main():
    usual = None
    judges = {}
    for name, options in MODELS.items():
        model = train(options)
        if name in UNUSED:
            normal = model.SentencePiece.NORMAL
            longer = [p for p in model.pieces if p.type == normal and len(p.piece) > 1]
            for piece in longer[:: UNUSED[name]]:
                piece.type = model.SentencePiece.UNUSED
        if model.normalizer_spec.precompiled_charsmap:
            usual = usual or model.normalizer_spec.precompiled_charsmap
            model.normalizer_spec.precompiled_charsmap = usual
        judge = sentencepiece.SentencePieceProcessor()
        judge.LoadFromSerializedProto(model.SerializeToString())
        judges[name] = judge
        model.normalizer_spec.ClearField("precompiled_charsmap")
        # What training was told of its input does not matter.
        (HERE / f"{name}.model").write_bytes(model.SerializeToString())
    patch = pb.ModelProto()
    patch.normalizer_spec.precompiled_charsmap = usual
    # The messages that protobuf joins need no required fields, and there are none.
    (HERE / "nmt_nfkc.gz").write_bytes(squeeze(patch.SerializeToString()))

    dice = random.Random(3)
    golden = {"texts": texts(), "models": {}}
    for name, judge in judges.items():
        ids = [judge.encode(text) for text in golden["texts"]]
        visible = [i for i in range(judge.get_piece_size()) if not judge.is_control(i)]
        few = [
            i for i in visible if judge.is_byte(i) or judge.id_to_piece(i)[0] == "\u2581"
        ] or visible
        any_ids = [
            [dice.choice(dice.choice([visible, few])) for _ in range(dice.randrange(0, 9))]
            for _ in range(300)
        ]
        golden["models"][name] = {
            "charsmap": "nfkc" in name or "suffix" in name,
            "ids": ids,
            # Nothing where the text comes back.
            "decoded": [
                None if back == text else back
                for text, back in zip(golden["texts"], map(judge.decode, ids), strict=True)
            ],
            "any_ids": any_ids,
            "any_decoded": [judge.decode(row) for row in any_ids],
            "eos": judge.eos_id(),
        }
    text = json.dumps(golden, separators=(",", ":"))
    (HERE / "golden.json.gz").write_bytes(squeeze(text.encode()))


if __name__ == "__main__":
    main()
