//! Rotary embedding of queries and keys, and the write of keys and values to the cache.

use super::{Pick, Rows};
use crate::{
    Binder, Bounded, DType::F32, Dispatch, Fill, Host, Kernel, Result, Shader, Tensor, Tuning,
    params, shader,
};

/// Rotates the pairs `(d, d + head_dim/2)` of queries and keys by the angles in `cos_sin`, and
/// stores keys and values at their positions. Rows that are padding, and positions that another
/// shard of the cache holds, are left alone.
#[derive(Clone, Copy, Debug)]
pub struct RopeCache {
    /// Step record.
    pub step: Tensor,
    /// Queries, keys and values of each token, in that order:
    /// `[tokens, (n_heads + 2 n_kv_heads) head_dim]`.
    pub qkv: Tensor,
    /// Cosine and sine of each pair's angle, side by side: `[tokens, head_dim]`.
    pub cos_sin: Tensor,
    /// Rotated queries: `[tokens, n_heads, head_dim]`.
    pub q: Tensor,
    /// Keys of positions `pos0..`: `[len, n_kv_heads, head_dim]`.
    pub k: Tensor,
    /// Values of the same positions.
    pub v: Tensor,
    /// First position of this shard of the cache.
    pub pos0: u32,
}

params! { n_heads: u32, n_kv_heads: u32, half: u32, pos0: u32, len: u32, write_q: u32 }

impl Kernel for RopeCache {
    fn shader(&self, _: &Tuning) -> Shader {
        shader!("rope_cache", "step")
    }

    fn dispatch(&self, binder: Binder<'_>) -> Result<Dispatch> {
        let [tokens, n_heads, head_dim] = self.q.dims()?;
        let [len, n_kv_heads, _] = self.k.dims()?;
        let n_all = n_heads + 2 * n_kv_heads;
        binder
            .step(self.step)?
            .read("qkv", self.qkv, F32, [tokens, n_all * head_dim])?
            .read("cos_sin", self.cos_sin, F32, [tokens, head_dim])?
            .write("q", self.q, F32, [tokens, n_heads, head_dim])?
            .write("k", self.k, F32, [len, n_kv_heads, head_dim])?
            .touching(tokens, len)
            .write("v", self.v, F32, [len, n_kv_heads, head_dim])?
            .touching(tokens, len)
            .dispatch(
                Params {
                    n_heads,
                    n_kv_heads,
                    half: head_dim / 2,
                    pos0: self.pos0,
                    len,
                    write_q: u32::from(self.pos0 == 0),
                },
                [(n_all * head_dim / 2).div_ceil(64), tokens, 1],
            )
    }

    fn oracle(&self, host: &mut Host) {
        let [_, n_heads, head_dim] = self.q.shape.extents() else {
            unreachable!("dispatch checked it")
        };
        let [len, n_kv, _] = self.k.shape.extents() else { unreachable!("dispatch checked it") };
        let (n_heads, head_dim, n_kv) = (*n_heads as usize, *head_dim as usize, *n_kv as usize);
        let (len, pos0) = (*len as usize, self.pos0 as usize);
        let (pos, real) = (host.ints(self.step)[0] as usize, host.ints(self.step)[1] as usize);
        let (mut q, mut k, mut v) =
            (host.current(self.q), host.current(self.k), host.current(self.v));
        let (qkv, cos_sin) = (host.floats(self.qkv), host.floats(self.cos_sin));
        let n_all = n_heads + 2 * n_kv;
        for t in 0..real {
            let angles = &cos_sin[t * head_dim..][..head_dim];
            let slot = (pos + t).wrapping_sub(pos0);
            for head in 0..n_all {
                let x = &qkv[(t * n_all + head) * head_dim..][..head_dim];
                let at = |h: usize| (slot * n_kv + h) * head_dim;
                if head < n_heads {
                    if pos0 == 0 {
                        rotate(x, angles, &mut q[(t * n_heads + head) * head_dim..]);
                    }
                } else if slot >= len {
                } else if head < n_heads + n_kv {
                    rotate(x, angles, &mut k[at(head - n_heads)..]);
                } else {
                    for (v, &x) in v[at(head - n_heads - n_kv)..].iter_mut().zip(x) {
                        *v = Bounded::exact(x);
                    }
                }
            }
        }
        host.write(self.q, q);
        host.write(self.k, k);
        host.write(self.v, v);
    }

    fn boxed(&self) -> Box<dyn Kernel> {
        Box::new(*self)
    }
}

fn rotate(x: &[f64], angles: &[f64], out: &mut [Bounded]) {
    let half = x.len() / 2;
    for (d, angle) in angles.chunks_exact(2).enumerate() {
        let (a, b) = (Bounded::exact(x[d]), Bounded::exact(x[d + half]));
        out[d] = a.scaled(angle[0]).plus(b.scaled(-angle[1]));
        out[d + half] = b.scaled(angle[0]).plus(a.scaled(angle[1]));
    }
}

pub(super) fn cases() -> Rows {
    let mut rows = Rows::of("rope_cache");
    for (name, shape) in [
        ("one token", [1, 4, 2, 16]),
        ("Grok-2 heads", [2, 64, 8, 128]),
        ("ragged", [5, 6, 2, 36]),
        ("one head", [3, 1, 1, 8]),
        ("wide head", [2, 2, 1, 256]),
    ] {
        for (fill_name, fill) in super::FILLS {
            rows.add(format!("{name} {fill_name}"), move |host| {
                case(host, shape, [3, shape[0]], 0, 16, fill)
            });
        }
        // A quarter turn: cosine 0, sine 1.
        rows.exact(format!("{name} quarter turn"), move |host| {
            let kernel = case(host, shape, [0, shape[0]], 0, 8, Fill::Index);
            let [tokens, .., head_dim] = shape;
            let angles = (0..tokens * head_dim).map(|i| f64::from(i % 2)).collect();
            RopeCache { cos_sin: host.floats_from(F32, [tokens, head_dim], angles), ..kernel }
        });
    }
    rows.add("padded rows are left alone", |host| {
        case(host, [8, 4, 2, 16], [2, 5], 0, 16, Fill::Normal)
    });
    rows.add("positions straddle the end of the shard", |host| {
        case(host, [8, 4, 2, 16], [12, 8], 0, 16, Fill::Normal)
    });
    rows.add("second shard takes what the first left", |host| {
        case(host, [8, 4, 2, 16], [12, 8], 16, 16, Fill::Normal)
    });
    rows
}

pub(super) fn random(rows: &mut Rows, pick: &mut Pick) {
    let tokens = pick.size(17);
    let n_kv_heads = pick.size(4);
    let shape = [tokens, n_kv_heads * pick.size(8), n_kv_heads, pick.multiple(4, 256)];
    let real = tokens - if pick.once_in(4) { pick.below(tokens) } else { 0 };
    let len = pick.size(33);
    let [pos0, pos] = [len * pick.of(&[0, 0, 1]), pick.below(2 * len)];
    let (fill_name, fill) = pick.fill();
    let name = format!("{real} of {shape:?} at {pos}, shard {pos0}+{len}, {fill_name}");
    rows.add(name, move |host| case(host, shape, [pos, real], pos0, len, fill));
}

fn case(
    host: &mut Host,
    [tokens, n_heads, n_kv_heads, head_dim]: [u32; 4],
    [pos, real]: [u32; 2],
    pos0: u32,
    len: u32,
    fill: Fill,
) -> RopeCache {
    let angles = (0..tokens * head_dim / 2).flat_map(|i| {
        let (sin, cos) = f64::from(i).sin_cos();
        [cos, sin]
    });
    RopeCache {
        step: host.step(pos, real),
        qkv: host.f32([tokens, (n_heads + 2 * n_kv_heads) * head_dim], fill),
        cos_sin: host.floats_from(F32, [tokens, head_dim], angles.collect()),
        q: host.unwritten([tokens, n_heads, head_dim]),
        k: host.unwritten([len, n_kv_heads, head_dim]),
        v: host.unwritten([len, n_kv_heads, head_dim]),
        pos0,
    }
}
