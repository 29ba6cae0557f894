"""Muon: momentum with an orthogonalized step for each matrix of the layers."""

import torch


@torch.no_grad()
def orthogonal(g, dtype=torch.bfloat16):
    """Newton-Schulz iteration on a batch of matrices [n, rows, cols]."""
    x = g.to(dtype)
    flip = x.shape[-2] > x.shape[-1]
    if flip:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if flip else x


class Muon:
    """Gate and up are separate matrices. `dtype` is that of the iteration: bf16 needs a processor for it."""

    def __init__(self, named, momentum=0.95, decay=0.02, dtype=torch.bfloat16):
        self.items = [(n, p, torch.zeros_like(p)) for n, p in named]
        self.momentum, self.decay, self.dtype = momentum, decay, dtype

    @torch.no_grad()
    def step(self, lr):
        for name, p, buf in self.items:
            buf.mul_(self.momentum).add_(p.grad)
            u = p.grad + self.momentum * buf
            if name.endswith("moe.w13"):
                n, d, f2 = u.shape
                v = u.view(n, d, 2, f2 // 2).permute(0, 2, 1, 3).reshape(n * 2, d, f2 // 2)
                o = orthogonal(v, self.dtype)
                o = o.view(n, 2, d, f2 // 2).permute(0, 2, 1, 3).reshape(n, d, f2)
            elif name.endswith("moe.w2"):
                o = orthogonal(u, self.dtype)
            elif name.endswith("mlp.w13.weight"):
                o = orthogonal(u.view(2, -1, u.shape[-1]), self.dtype).reshape(u.shape)
            else:
                o = orthogonal(u[None], self.dtype)[0]
            rows, cols = (u.shape[-1], u.shape[-2]) if u.dim() == 3 else (u.shape[-2], u.shape[-1])
            p.mul_(1 - lr * self.decay).add_(
                o.to(p.dtype), alpha=-lr * max(1.0, rows / cols) ** 0.5
            )
