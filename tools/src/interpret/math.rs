//! WGSL arithmetic on words, by kind of expression and component.

use naga::{BinaryOperator as B, MathFunction as M, ScalarKind as K, UnaryOperator as U};

/// A result, or the reason why it is undefined.
pub(crate) type Word = Result<u32, &'static str>;

fn f(word: u32) -> f32 {
    f32::from_bits(word)
}

fn i(word: u32) -> i32 {
    word.cast_signed()
}

pub(crate) fn unary(op: U, kind: K, a: u32) -> Word {
    Ok(match (op, kind) {
        (U::Negate, K::Float) => (-f(a)).to_bits(),
        (U::Negate, K::Sint) => i(a).wrapping_neg().cast_unsigned(),
        (U::LogicalNot, K::Bool) => u32::from(a == 0),
        (U::BitwiseNot, K::Sint | K::Uint) => !a,
        _ => return Err("an unary operator that is not known here"),
    })
}

pub(crate) fn binary(op: B, kind: K, a: u32, b: u32) -> Word {
    let ordering = match kind {
        K::Float => f(a).partial_cmp(&f(b)),
        K::Sint => Some(i(a).cmp(&i(b))),
        _ => Some(a.cmp(&b)),
    };
    Ok(match (op, kind) {
        (B::Equal, _) => u32::from(ordering.is_some_and(std::cmp::Ordering::is_eq)),
        (B::NotEqual, _) => u32::from(!ordering.is_some_and(std::cmp::Ordering::is_eq)),
        (B::Less, _) => u32::from(ordering.is_some_and(std::cmp::Ordering::is_lt)),
        (B::LessEqual, _) => u32::from(ordering.is_some_and(std::cmp::Ordering::is_le)),
        (B::Greater, _) => u32::from(ordering.is_some_and(std::cmp::Ordering::is_gt)),
        (B::GreaterEqual, _) => u32::from(ordering.is_some_and(std::cmp::Ordering::is_ge)),
        (B::And | B::LogicalAnd, K::Sint | K::Uint | K::Bool) => a & b,
        (B::InclusiveOr | B::LogicalOr, K::Sint | K::Uint | K::Bool) => a | b,
        (B::ExclusiveOr, K::Sint | K::Uint | K::Bool) => a ^ b,
        (B::Add, K::Float) => (f(a) + f(b)).to_bits(),
        (B::Subtract, K::Float) => (f(a) - f(b)).to_bits(),
        (B::Multiply, K::Float) => (f(a) * f(b)).to_bits(),
        (B::Divide, K::Float) => (f(a) / f(b)).to_bits(),
        (B::Modulo, K::Float) => (f(a) % f(b)).to_bits(),
        (B::Add, K::Sint | K::Uint) => a.wrapping_add(b),
        (B::Subtract, K::Sint | K::Uint) => a.wrapping_sub(b),
        (B::Multiply, K::Sint | K::Uint) => a.wrapping_mul(b),
        (B::Divide | B::Modulo, K::Sint | K::Uint) if b == 0 => return Err("division by zero"),
        (B::Divide, K::Uint) => a / b,
        (B::Modulo, K::Uint) => a % b,
        (B::Divide, K::Sint) => i(a).wrapping_div(i(b)).cast_unsigned(),
        (B::Modulo, K::Sint) => i(a).wrapping_rem(i(b)).cast_unsigned(),
        (B::ShiftLeft | B::ShiftRight, K::Sint | K::Uint) if b >= 32 => {
            return Err("a shift by 32 or more");
        }
        (B::ShiftLeft, K::Sint | K::Uint) => a << b,
        (B::ShiftRight, K::Uint) => a >> b,
        (B::ShiftRight, K::Sint) => (i(a) >> b).cast_unsigned(),
        _ => return Err("a binary operator that is not known here"),
    })
}

/// Builtin functions that work on each component by itself.
pub(crate) fn math(fun: M, kind: K, [a, b, c]: [u32; 3]) -> Word {
    if (kind, fun) == (K::Uint, M::CountLeadingZeros) {
        return Ok(a.leading_zeros());
    }
    let float = match fun {
        M::Abs => f(a).abs(),
        M::Min => f(a).min(f(b)),
        M::Max => f(a).max(f(b)),
        M::Clamp => f(a).max(f(b)).min(f(c)),
        M::Round => f(a).round_ties_even(),
        M::Floor => f(a).floor(),
        M::Ceil => f(a).ceil(),
        M::Trunc => f(a).trunc(),
        M::Sign if f(a) == 0.0 => 0.0,
        M::Sign => f(a).signum(),
        M::Sqrt => f(a).sqrt(),
        M::InverseSqrt => 1.0 / f(a).sqrt(),
        M::Exp => f(a).exp(),
        M::Exp2 => f(a).exp2(),
        M::Log => f(a).ln(),
        M::Log2 => f(a).log2(),
        M::Fma => f(a).mul_add(f(b), f(c)),
        _ => return Err("a function that is not known here"),
    };
    match (kind, fun) {
        (K::Float, _) => Ok(float.to_bits()),
        (K::Uint, M::Abs) => Ok(a),
        (K::Uint, M::Min) => Ok(a.min(b)),
        (K::Uint, M::Max) => Ok(a.max(b)),
        (K::Uint, M::Clamp) => Ok(a.max(b).min(c)),
        (K::Sint, M::Abs) => Ok(i(a).wrapping_abs().cast_unsigned()),
        (K::Sint, M::Min) => Ok(i(a).min(i(b)).cast_unsigned()),
        (K::Sint, M::Max) => Ok(i(a).max(i(b)).cast_unsigned()),
        (K::Sint, M::Clamp) => Ok(i(a).max(i(b)).min(i(c)).cast_unsigned()),
        _ => Err("a function of integers that is not known here"),
    }
}

/// The dot product of two vectors of floats, summed in order.
pub(crate) fn dot(a: &[u32], b: &[u32]) -> u32 {
    let products = a.iter().zip(b).map(|(&a, &b)| f(a) * f(b));
    products.reduce(|sum, product| sum + product).unwrap_or(0.0).to_bits()
}

/// Value conversion, as in `f32(x)`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "conversions from f32 truncate and saturate, in Rust as in WGSL"
)]
pub(crate) fn convert(from: K, to: K, a: u32) -> Word {
    Ok(match (from, to) {
        (K::Float, K::Float) | (K::Sint | K::Uint | K::Bool, K::Sint | K::Uint) => a,
        (K::Float, K::Sint) => (f(a) as i32).cast_unsigned(),
        (K::Float, K::Uint) => f(a) as u32,
        (K::Float, K::Bool) => u32::from(f(a) != 0.0),
        (K::Sint | K::Uint | K::Bool, K::Bool) => u32::from(a != 0),
        (K::Sint, K::Float) => (i(a) as f32).to_bits(),
        (K::Uint | K::Bool, K::Float) => (a as f32).to_bits(),
        _ => return Err("a conversion that is not known here"),
    })
}

/// A float as the nearest half, and that as an f32. A device may take halves below the normal ones
/// for zeros, and assume that there are no infinities and no NaN, so here they are zeros as well.
pub(crate) fn half(a: u32) -> u32 {
    if !f(a).is_finite() {
        return 0;
    }
    let half = half::f16::from_f32(f(a));
    let is_small = half.classify() == std::num::FpCategory::Subnormal;
    let half = if is_small { half::f16::ZERO } else { half };
    half.to_f32().to_bits()
}

/// `unpack2x16float`.
pub(crate) fn unpack_halves(a: u32) -> [u32; 2] {
    let [b0, b1, b2, b3] = a.to_le_bytes();
    [[b0, b1], [b2, b3]].map(|half| half::f16::from_le_bytes(half).to_f32().to_bits())
}

/// `pack4xI8`.
pub(crate) fn pack_bytes(a: &[u32]) -> u32 {
    a.iter().rev().fold(0, |word, &byte| word << 8 | (byte & 0xff))
}

/// `dot4I8Packed`.
pub(crate) fn dot_bytes(a: u32, b: u32) -> u32 {
    let bytes = |word: u32| word.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
    let sum: i32 = bytes(a).into_iter().zip(bytes(b)).map(|(a, b)| a * b).sum();
    sum.cast_unsigned()
}
