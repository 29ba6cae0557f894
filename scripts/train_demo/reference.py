"""A straightforward float64 implementation of the model, which reads the exported files."""

import json
import math
import os

import torch
from safetensors.torch import load_file

from tokenizer import Tokenizer


class Reference:
    """Reads config.json, model.safetensors and tokenizer.tok.json of a directory; bf16 weights become float64."""

    def __init__(self, directory, dtype=torch.float64):
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
            self.c = json.load(f)
        self.dtype = dtype
        self.w = {
            k: v.to(dtype)
            for k, v in load_file(os.path.join(directory, "model.safetensors")).items()
        }
        self.tok = Tokenizer.load(os.path.join(directory, "tokenizer.tok.json"))

    def norm(self, x, name):
        c = self.c
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + c["rms_norm_eps"]) * self.w[name]

    def rotary(self, start, end):
        """cos and sin [n, head_dim / 2]: f32 frequencies and angles, cosine in f64, rounded to f32."""
        c = self.c
        d = c["head_dim"]
        inv = 1.0 / c["rope_theta"] ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
        if c["rope_type"] == "linear":  # position interpolation
            inv = inv / c["scaling_factor"]
        inv = inv.float()
        angle = torch.outer(torch.arange(start, end).float(), inv).double()
        return angle.cos().float().to(self.dtype), angle.sin().float().to(self.dtype)

    def forward(self, ids, cache=None, loads=None):
        """Logits [n, vocab] of ids after `cache`: (k, v) of each layer, which are extended in place."""
        c, w = self.c, self.w
        h, kv, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        n = len(ids)
        start = cache[0][0].shape[0] if cache else 0
        cos, sin = self.rotary(start, start + n)
        cos, sin = cos[:, None], sin[:, None]

        def rotate(x):
            a, b = x[..., : d // 2], x[..., d // 2 :]
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        pos = torch.arange(start, start + n, dtype=torch.float64)
        t_len = c["attn_temperature_len"]
        tau = torch.where(
            pos > t_len, torch.log2(pos.clamp(min=1)) / math.log2(t_len), torch.ones_like(pos)
        ).to(self.dtype)
        hidden = torch.arange(start + n)[None, :] > (start + torch.arange(n))[:, None]
        x = w["model.embed_tokens.weight"][torch.tensor(ids)] * c["embedding_multiplier_scale"]
        fresh = []
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            a = self.norm(x, p + "pre_attn_norm.weight")
            q = rotate((a @ w[p + "self_attn.q_proj.weight"].T).view(n, h, d))
            k = rotate((a @ w[p + "self_attn.k_proj.weight"].T).view(n, kv, d))
            v = (a @ w[p + "self_attn.v_proj.weight"].T).view(n, kv, d)
            if cache:
                k, v = torch.cat([cache[i][0], k]), torch.cat([cache[i][1], v])
            fresh.append((k, v))
            out = []
            for j in range(h):
                g = j // (h // kv)
                s = (q[:, j] @ k[:, g].T) * d**-0.5
                s = c["attn_logit_softcapping"] * torch.tanh(s / c["attn_logit_softcapping"])
                s = (s * tau[:, None]).masked_fill(hidden, float("-inf"))
                out.append(s.softmax(-1) @ v[:, g])
            a = torch.cat(out, -1) @ w[p + "self_attn.o_proj.weight"].T
            x = x + self.norm(a, p + "post_attn_norm.weight")
            m = self.norm(x, p + "pre_moe_norm.weight")
            r = m @ w[p + "block_sparse_moe.gate.weight"].T
            r = c["router_logit_softcapping"] * torch.tanh(r / c["router_logit_softcapping"])
            share, chosen = r.softmax(-1).topk(c["num_experts_per_tok"], -1)
            moe = torch.zeros_like(m)
            for e in range(c["num_local_experts"]):
                rows, slot = (chosen == e).nonzero(as_tuple=True)
                if loads is not None:
                    loads[i][e] += len(rows)
                if len(rows):
                    q_ = p + f"block_sparse_moe.experts.{e}."
                    y = self.gated(m[rows], q_ + "w1.weight", q_ + "w3.weight", q_ + "w2.weight")
                    moe[rows] += share[rows, slot, None] * y
            mlp = self.gated(
                m, p + "mlp.gate_proj.weight", p + "mlp.up_proj.weight", p + "mlp.down_proj.weight"
            )
            x = x + self.norm((mlp + moe) / math.sqrt(2), p + "post_moe_norm.weight")
        if cache is not None:
            cache[:] = fresh
        y = self.norm(x, "model.norm.weight") @ w["lm_head.weight"].T * c["output_multiplier_scale"]
        return c["final_logit_softcapping"] * torch.tanh(y / c["final_logit_softcapping"])

    def gated(self, x, gate, up, down):
        w = self.w
        return (torch.nn.functional.gelu(x @ w[gate].T) * (x @ w[up].T)) @ w[down].T

    def prompt(self, text):
        """Ids of a chat prompt: one user turn and the opening of the answer."""
        return self.tok.encode(f"Human: {text}") + [1] + self.tok.encode("\n\nAssistant:")

    def greedy(self, ids, count):
        """`count` greedy ids, and for each the margin of the best logit over the second."""
        cache, out, gaps = [], [], []
        logits = self.forward(ids, cache)[-1]
        for _ in range(count):
            top = logits.topk(2)
            out.append(int(top.indices[0]))
            gaps.append(float(top.values[0] - top.values[1]))
            logits = self.forward(out[-1:], cache)[-1]
        return out, gaps

    def sample(self, ids, seed, temperature=0.7, top_p=0.95, limit=400, top_k=0):
        """Ids up to <|separator|> or <|eos|>; the random numbers are splitmix64 of the seed."""
        from stories.engine import Rng

        rng, cache, out = Rng(seed), [], []
        logits = self.forward(ids, cache)[-1]
        while len(out) < limit:
            order = logits.argsort(descending=True, stable=True)[: top_k or None]
            p = (logits[order] / temperature).softmax(-1)
            p[p.cumsum(-1) - p > top_p] = 0
            mark = (rng.next() >> 11) * 2.0**-53 * float(p.sum())
            at = min(int((p.cumsum(-1) <= mark).sum()), int((p > 0).sum()) - 1)
            token = int(order[at])
            if token in (1, 2):
                break
            out.append(token)
            logits = self.forward([token], cache)[-1]
        return out

    def perplexity(self, text, window=512):
        """Perplexity of a text in windows without overlap; the first id of each is not scored."""
        ids = self.tok.encode(text)
        total, count = 0.0, 0
        loads = [[0] * self.c["num_local_experts"] for _ in range(self.c["num_hidden_layers"])]
        for at in range(0, len(ids), window):
            part = ids[at : at + window]
            if len(part) < 2:
                break
            logp = self.forward(part, loads=loads)[:-1].log_softmax(-1)
            total -= float(logp.gather(1, torch.tensor(part[1:])[:, None]).sum())
            count += len(part) - 1
        return math.exp(total / count), count, len(ids), loads
