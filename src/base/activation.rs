//! What stands between the two halves of a gated MLP.

/// Which polynomial stands for the Gaussian error linear unit in the gated MLPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// `x/2 (1 + erf(x / sqrt 2))`: what `SGLang` computes, and the default.
    Erf,
    /// The tanh approximation: JAX's default, and llama.cpp's.
    Tanh,
}
