"""The Grok-2 architecture, small, in PyTorch for training; `reference.py` is the plain form in float64."""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    """Sizes and constants, under the names of the released Grok-2 `config.json`."""

    vocab_size: int = 2560
    hidden_size: int = 256
    intermediate_size: int = 512
    moe_intermediate_size: int = 160
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 32
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    max_position_embeddings: int = 2048
    rope_theta: int = 10000
    rope_type: str = "linear"
    original_max_position_embeddings: int = 1024
    scaling_factor: float = 2.0
    rms_norm_eps: float = 1e-5
    attn_logit_softcapping: float = 30.0
    router_logit_softcapping: float = 30.0
    final_logit_softcapping: float = 50.0
    attn_temperature_len: int = 256
    embedding_multiplier_scale: float = 16.0
    output_multiplier_scale: float = 0.5

    def to_json(self):
        """The fields of `config.json` that this model has in common with the released Grok-2."""
        return {
            "architectures": ["Grok1ForCausalLM"],
            "model_type": "git",
            "torch_dtype": "bfloat16",
            **asdict(self),
            "hidden_act": "gelu",
            "residual_moe": True,
            "extrapolation_factor": 1.0,
            "attn_factor": 1.0,
            "beta_fast": 8,
            "beta_slow": 1,
            "sliding_window_size": -1,
            "global_attn_every_n": 1,
            "tie_word_embeddings": False,
        }


# What `train.py` trains; `train_qa.py` goes on with interpolated positions and a longer context.
FIRST_STAGES = Config(
    max_position_embeddings=512,
    rope_type="original",
    original_max_position_embeddings=512,
    scaling_factor=1.0,
)


class RMSNorm(nn.Module):
    def __init__(self, size, eps, init=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), float(init)))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps)


def rotary_tables(c, length):
    """cos and sin, [length, head_dim]: angles are f32 products, their cosines computed in f64."""
    inv = 1.0 / c.rope_theta ** (torch.arange(0, c.head_dim, 2, dtype=torch.float64) / c.head_dim)
    if c.rope_type == "linear":  # position interpolation
        inv = inv / c.scaling_factor
    inv = inv.float()
    angle = torch.outer(torch.arange(length).float(), inv).double()
    angle = torch.cat([angle, angle], -1)
    return angle.cos().float(), angle.sin().float()


def temperature(c, length):
    """The attention temperature of each query position, [length]."""
    pos = torch.arange(length, dtype=torch.float64)
    tau = torch.log2(pos.clamp(min=1)) / math.log2(c.attn_temperature_len)
    return torch.where(pos > c.attn_temperature_len, tau, torch.ones_like(tau)).float()


def rotate_half(x):
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1)


class Attention(nn.Module):
    BLOCK = 128

    def __init__(self, c):
        super().__init__()
        self.c = c
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, q, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(q, c.hidden_size, bias=False)

    def forward(self, x, cos, sin, tau, mask):
        c = self.c
        b, t, _ = x.shape
        h, kv, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        group = h // kv
        q = self.q_proj(x).view(b, t, h, d).transpose(1, 2)
        k = self.k_proj(x).view(b, t, kv, d).transpose(1, 2)
        v = self.v_proj(x).view(b, t, kv, d).transpose(1, 2)
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        q = q.view(b, kv, group, t, d)
        outs = []
        # Skip keys beyond the block of queries, which halves the work above the diagonal.
        for start in range(0, t, self.BLOCK):
            end = min(t, start + self.BLOCK)
            n = end - start
            qs = q[:, :, :, start:end].reshape(b, kv, group * n, d)
            s = qs @ k[:, :, :end].transpose(-1, -2)
            s = s.float() * (d**-0.5 / c.attn_logit_softcapping)
            s = torch.tanh(s).view(b, kv, group, n, end)
            s = (
                s * (c.attn_logit_softcapping * tau[start:end, None])
                + mask[:, None, None, start:end, :end]
            )
            p = s.softmax(-1).to(v.dtype).view(b, kv, group * n, end)
            outs.append((p @ v[:, :, :end]).view(b, kv, group, n, d))
        y = torch.cat(outs, 3).reshape(b, h, t, d).transpose(1, 2).reshape(b, t, h * d)
        return self.o_proj(y)


class Experts(nn.Module):
    """Eight GeGLU experts, top 2, weighted by the softmax over all eight without renormalization."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        n, d, f = c.num_local_experts, c.hidden_size, c.moe_intermediate_size
        self.gate = nn.Linear(d, n, bias=False)
        self.w13 = nn.Parameter(torch.empty(n, d, 2 * f))
        self.w2 = nn.Parameter(torch.empty(n, f, d))

    def forward(self, x):
        c = self.c
        b, t, d = x.shape
        xf = x.reshape(-1, d)
        logits = F.linear(xf.float(), self.gate.weight.float())
        logits = torch.tanh(logits / c.router_logit_softcapping) * c.router_logit_softcapping
        p = logits.softmax(-1)
        w, idx = p.topk(c.num_experts_per_tok, -1)
        if torch.is_autocast_enabled("cpu"):
            xf = xf.to(torch.bfloat16)
        y, load = self.dispatch(xf, w, idx)
        balance = c.num_local_experts * (load * p.mean(0)).sum()
        z = torch.logsumexp(logits, -1).square().mean()
        return y.view(b, t, d), balance, z, load

    @torch.compiler.disable
    def dispatch(self, xf, w, idx):
        """Sorts token slots by expert: one matrix product for each expert, and no token is dropped."""
        c = self.c
        n, k, f = c.num_local_experts, c.num_experts_per_tok, c.moe_intermediate_size
        flat = idx.reshape(-1)
        order = torch.argsort(flat, stable=True)
        token = order // k
        counts = torch.bincount(flat, minlength=n)
        xs = xf.index_select(0, token)
        outs, at = [], 0
        for e, m in enumerate(counts.tolist()):
            if m == 0:
                continue
            g, u = (xs[at : at + m] @ self.w13[e].to(xs.dtype)).split(f, -1)
            outs.append((F.gelu(g) * u) @ self.w2[e].to(xs.dtype))
            at += m
        ys = torch.cat(outs) * w.reshape(-1)[order].unsqueeze(-1).to(xs.dtype)
        y = torch.zeros_like(xf).index_add(0, token, ys.to(xf.dtype))
        return y, counts.float() / flat.numel()


class Dense(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.w13 = nn.Linear(c.hidden_size, 2 * c.intermediate_size, bias=False)
        self.w2 = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        g, u = self.w13(x).chunk(2, -1)
        return self.w2(F.gelu(g) * u)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        post = 1.0 / math.sqrt(2 * c.num_hidden_layers)
        self.pre_attn_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attn_norm = RMSNorm(c.hidden_size, c.rms_norm_eps, post)
        self.pre_moe_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_moe_norm = RMSNorm(c.hidden_size, c.rms_norm_eps, post)
        self.attn, self.moe, self.mlp = Attention(c), Experts(c), Dense(c)

    def forward(self, x, cos, sin, tau, mask):
        x = x + self.post_attn_norm(self.attn(self.pre_attn_norm(x), cos, sin, tau, mask))
        h = self.pre_moe_norm(x)
        y, balance, z, load = self.moe(h)
        y = (y + self.mlp(h)) * 0.5**0.5
        return x + self.post_moe_norm(y), balance, z, load


class Grok(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        for p in self.parameters():
            if p.dim() >= 2:
                fan_in = p.shape[-1] if p.dim() == 2 else p.shape[1]
                nn.init.normal_(p, std=fan_in**-0.5)
        nn.init.normal_(self.embed.weight, std=1.0 / c.embedding_multiplier_scale)
        nn.init.normal_(self.lm_head.weight, std=0.5 * c.hidden_size**-0.5)
        for layer in self.layers:
            nn.init.normal_(layer.moe.gate.weight, std=0.02)
        cos, sin = rotary_tables(c, c.max_position_embeddings)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.register_buffer("tau", temperature(c, c.max_position_embeddings), persistent=False)

    def hidden(self, ids, mask=None):
        """The normed last states [b, t, hidden], and (balance, z, load [layers, experts])."""
        c = self.c
        t = ids.shape[1]
        if mask is None:
            mask = torch.full((1, t, t), float("-inf")).triu(1)
        x = self.embed(ids) * c.embedding_multiplier_scale
        balance = z = 0.0
        loads = []
        for layer in self.layers:
            x, a, b, load = layer(x, self.cos[:t], self.sin[:t], self.tau[:t], mask)
            balance, z = balance + a, z + b
            loads.append(load)
        n = c.num_hidden_layers
        return self.norm(x), (balance / n, z / n, torch.stack(loads))

    def head(self, x):
        """Logits of normed states."""
        c = self.c
        logits = self.lm_head(x).float() * c.output_multiplier_scale
        return torch.tanh(logits / c.final_logit_softcapping) * c.final_logit_softcapping

    def forward(self, ids, targets=None, mask=None):
        """ids [b, t]; mask [b, t, t] additive. Returns logits, or (loss, balance, z, load [layers, experts])."""
        x, rest = self.hidden(ids, mask)
        logits = self.head(x)
        if targets is None:
            return logits
        loss = F.cross_entropy(
            logits.view(-1, self.c.vocab_size), targets.reshape(-1), ignore_index=-100
        )
        return loss, *rest


def document_mask(ids, eos=2):
    """Additive mask [b, t, t]: causal within documents. An eos belongs to the document after it."""
    doc = (ids == eos).cumsum(1)
    t = ids.shape[1]
    see = (doc[:, :, None] == doc[:, None, :]) & torch.ones(t, t, dtype=torch.bool).tril()
    return torch.zeros(see.shape).masked_fill(~see, float("-inf"))
