"""Byte-level BPE: trainer, encoder and reader of the `tokenizer.tok.json` schema of Grok-2."""

import heapq
import itertools
import json
from collections import Counter, defaultdict

import regex

V1 = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PAD, SEPARATOR, EOS = 0, 1, 2
SPECIALS = ["<|pad|>", "<|separator|>", "<|eos|>"] + [f"<|reserved_{i}|>" for i in range(3, 128)]
FIRST_BYTE = len(SPECIALS)
FIRST_MERGE = FIRST_BYTE + 256


def train(texts, vocab_size):
    """Learns merges from an iterable of texts; ties go to the pair of lowest bytes."""
    counts = Counter()
    for text in texts:
        counts.update(V1.findall(text))
    vocab = {bytes([b]): FIRST_BYTE + b for b in range(256)}
    words = [[bytes([b]) for b in piece.encode()] for piece in sorted(counts)]
    weight = [counts[piece] for piece in sorted(counts)]
    pairs, where = Counter(), defaultdict(set)
    for i, word in enumerate(words):
        for pair in itertools.pairwise(word):
            pairs[pair] += weight[i]
            where[pair].add(i)
    heap = [(-n, pair) for pair, n in pairs.items()]
    heapq.heapify(heap)
    while len(vocab) + FIRST_BYTE < vocab_size and heap:
        n, pair = heapq.heappop(heap)
        if -n != pairs[pair] or n == 0:
            continue
        merged = pair[0] + pair[1]
        if merged not in vocab:
            vocab[merged] = FIRST_BYTE + len(vocab)
        changed = set()
        for i in where.pop(pair):
            word, out, j = words[i], [], 0
            while j < len(word):
                if j + 1 < len(word) and (word[j], word[j + 1]) == pair:
                    out.append(merged)
                    j += 2
                else:
                    out.append(word[j])
                    j += 1
            for old in itertools.pairwise(word):
                pairs[old] -= weight[i]
                changed.add(old)
            for new in itertools.pairwise(out):
                pairs[new] += weight[i]
                where[new].add(i)
                changed.add(new)
            words[i] = out
        pairs[pair] = 0
        for other in changed:
            if pairs[other] > 0:
                heapq.heappush(heap, (-pairs[other], other))
    if len(vocab) + FIRST_BYTE != vocab_size:
        raise ValueError(
            f"only {len(vocab) + FIRST_BYTE} of {vocab_size} tokens can be learned from this text"
        )
    return Tokenizer(vocab)


class Tokenizer:
    """Encodes as tiktoken does: the adjacent pair of lowest id first, the leftmost on ties."""

    def __init__(self, vocab):
        self.vocab = vocab
        self.bytes = {i: b for b, i in vocab.items()}
        self.cache = {}

    @property
    def size(self):
        return len(self.vocab) + len(SPECIALS)

    def piece(self, text):
        if text in self.cache:
            return self.cache[text]
        raw = text.encode()
        if raw in self.vocab:
            ids = [self.vocab[raw]]
        else:
            parts = [raw[i : i + 1] for i in range(len(raw))]
            while True:
                best, at = None, -1
                for i in range(len(parts) - 1):
                    rank = self.vocab.get(parts[i] + parts[i + 1])
                    if rank is not None and (best is None or rank < best):
                        best, at = rank, i
                if best is None:
                    break
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            ids = [self.vocab[p] for p in parts]
        self.cache[text] = ids
        return ids

    def encode(self, text):
        """Ids of one run of text without special tokens."""
        return [i for piece in V1.findall(text) for i in self.piece(piece)]

    def decode(self, ids):
        out = b"".join(SPECIALS[i].encode() if i < len(SPECIALS) else self.bytes[i] for i in ids)
        return out.decode("utf-8", "replace")

    def save(self, path):
        data = {
            "regular_tokens": [
                {"bytes": list(b), "token": i}
                for b, i in sorted(self.vocab.items(), key=lambda x: x[1])
            ],
            "special_tokens": [
                {"bytes": list(s.encode()), "token": i} for i, s in enumerate(SPECIALS)
            ],
            "word_split": "V1",
            "vocab_size": self.size,
        }
        with open(path, "w", encoding="utf-8") as f:
            json.dump(data, f, separators=(",", ":"))
            f.write("\n")

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        return cls({bytes(t["bytes"]): t["token"] for t in data["regular_tokens"]})
