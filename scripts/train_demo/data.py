"""Makes the corpus, the tokenizer and the token rows from seeds; the bytes are the same on every run.

python data.py OUT_DIR            writes train.bin, train2.bin, valid.bin, tokenizer.tok.json, heldout.txt, corpus.json
python data.py OUT_DIR --check F  compares the digests with the file F (models/demo/corpus.json)
"""

import argparse
import array
import hashlib
import json
import os
import sys
from pathlib import Path

from stories import chat, tell
from stories.engine import Rng
from tokenizer import EOS, SEPARATOR, Tokenizer, train

SEED = "grok-wgpu-demo-1"
DOCUMENTS = 80_000
SECOND_SEED = "grok-wgpu-demo-2"
SECOND_DOCUMENTS = 45_000
PLAIN_SHARE = 0.4
VOCAB_SIZE = 2560
ROW = 512
HELDOUT_STORIES = 36
VALID_DOCUMENTS = 400


def document(seed, vivid=False):
    """One training document: a plain story (str) or a chat (list of turns)."""
    if Rng(f"kind-{seed}").chance(PLAIN_SHARE):
        return tell.story(seed, vivid)
    return chat.chat(seed, vivid)


def render(doc):
    """A readable form for digests and for training the tokenizer."""
    if isinstance(doc, str):
        return doc + "<|eos|>"
    return "".join(f"{role}: {text}<|separator|>\n\n" for role, text in doc)


def encode(tok, doc):
    """Token ids as in the engine: text between special tokens is encoded separately."""
    if isinstance(doc, str):
        return tok.encode(doc) + [EOS]
    ids = []
    for i, (role, text) in enumerate(doc):
        ids += tok.encode(("\n\n" if i else "") + f"{role}: {text}") + [SEPARATOR]
    return ids + [EOS]


def pack(docs):
    """Packs documents into rows of ROW + 1 ids, padded with 0; longer documents are truncated."""
    rows, open_rows = [], []
    for ids in docs:
        ids = ids[: ROW + 1]
        best = None
        for row in open_rows:
            if len(row) + len(ids) <= ROW + 1 and (best is None or len(row) > len(best)):
                best = row
        if best is None:
            best = []
            open_rows.append(best)
        best += ids
        if len(best) > ROW - 60 or len(open_rows) > 24:
            full = max(open_rows, key=len)
            open_rows.remove(full)
            rows.append(full)
    rows += open_rows
    return [row + [0] * (ROW + 1 - len(row)) for row in rows]


def heldout():
    return "\n\n".join(tell.story(f"heldout-{SEED}-{i}") for i in range(HELDOUT_STORIES)) + "\n"


def sha(data):
    return hashlib.sha256(data).hexdigest()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--check")
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    docs = [document(f"{SEED}-{i}") for i in range(DOCUMENTS)]
    corpus = hashlib.sha256()
    for doc in docs:
        corpus.update(render(doc).encode())
    docs2 = [document(f"{SECOND_SEED}-{i}", vivid=True) for i in range(SECOND_DOCUMENTS)]
    corpus2 = hashlib.sha256()
    for doc in docs2:
        corpus2.update(render(doc).encode())
    sample = [render(d).replace("<|eos|>", "").replace("<|separator|>", "") for d in docs[:12_000]]
    tok = train(sample, VOCAB_SIZE)
    path = os.path.join(args.out, "tokenizer.tok.json")
    tok.save(path)
    tok = Tokenizer.load(path)
    rows = pack([encode(tok, d) for d in docs])
    rows2 = pack([encode(tok, d) for d in docs2])
    valid = pack([encode(tok, document(f"valid-{SEED}-{i}")) for i in range(VALID_DOCUMENTS)])
    text = heldout()
    docs = docs + docs2
    stories = {d for d in docs if isinstance(d, str)} | {
        t for d in docs if not isinstance(d, str) for _, t in d
    }
    seen = sum(tell.story(f"heldout-{SEED}-{i}") in stories for i in range(HELDOUT_STORIES))
    if seen:
        raise ValueError(f"{seen} held-out stories occur in the training data")
    blobs = {
        name: array.array("H", [i for row in part for i in row])
        for name, part in (("train.bin", rows), ("train2.bin", rows2), ("valid.bin", valid))
    }
    for name, values in blobs.items():
        if sys.byteorder == "big":
            values.byteswap()
        with open(os.path.join(args.out, name), "wb") as f:
            f.write(values.tobytes())
    with open(os.path.join(args.out, "heldout.txt"), "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
    report = {
        "seed": SEED,
        "documents": DOCUMENTS,
        "plain_share": PLAIN_SHARE,
        "vocab_size": VOCAB_SIZE,
        "row": ROW,
        "rows": len(rows),
        "tokens": sum(1 for r in rows for i in r if i),
        "corpus_sha256": corpus.hexdigest(),
        "tokenizer_sha256": sha(Path(path).read_bytes()),
        "train_sha256": sha(blobs["train.bin"].tobytes()),
        "second": {
            "seed": SECOND_SEED,
            "documents": SECOND_DOCUMENTS,
            "rows": len(rows2),
            "tokens": sum(1 for r in rows2 for i in r if i),
            "corpus_sha256": corpus2.hexdigest(),
            "train_sha256": sha(blobs["train2.bin"].tobytes()),
        },
        "valid_sha256": sha(blobs["valid.bin"].tobytes()),
        "heldout_sha256": sha(text.encode()),
    }
    with open(os.path.join(args.out, "corpus.json"), "w", encoding="utf-8") as f:
        json.dump(report, f, indent=2)
        f.write("\n")
    print(json.dumps(report, indent=2))
    if args.check:
        with open(args.check, encoding="utf-8") as f:
            want = json.load(f)
        bad = [k for k in want if report.get(k) != want[k]]
        if bad:
            sys.exit(
                f"differs from {args.check}: "
                + ", ".join(f"{k}: got {report.get(k)}, wanted {want[k]}" for k in bad)
            )
        print(f"same as {args.check}")


if __name__ == "__main__":
    main()
