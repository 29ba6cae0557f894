//! The activation function of gated MLPs.

/// Which form of GELU (Gaussian error linear unit) the gated MLPs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// `x/2 (1 + erf(x / sqrt 2))`: what `SGLang` computes, and the default.
    Erf,
    /// The tanh approximation: JAX's default, and llama.cpp's.
    Tanh,
}
