//! Compares what a device wrote with what the oracle allows, element by element: how far the values
//! are apart, in units in the last place too, how many are wrong, and where they lie.

use std::fmt;

use half::{bf16, f16};
use serde_json::{Value, json};

use super::{
    is_poison,
    place::{Field, Place},
};
use crate::{
    base::{
        num::round,
        tensor::{DType, Shape, Tensor},
    },
    machine::{
        binder::Operand,
        host::{self, Host, POISON},
    },
};

/// What is expected of an element that must stay as it is.
const NO_WRITE: &str = "no write at all";

/// One output beside the oracle's.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    /// Number of elements compared.
    pub(super) elements: usize,
    /// Largest error, as a fraction of the bound.
    pub(super) worst: f64,
    /// Number of stored values that are the other neighbour of the exact one.
    pub(super) rounded: usize,
    /// What is wrong.
    pub(super) wrong: Option<Wrong>,
}

/// The wrong elements of an output.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Name of the WGSL variable.
    pub operand: &'static str,
    /// The type of its elements.
    pub dtype: DType,
    /// Its extents.
    pub shape: Shape,
    /// Number of wrong elements.
    pub count: usize,
    /// Number of elements that the kernel had to write.
    pub of: usize,
    /// The pattern that they form.
    pub place: Place,
    /// The first of them.
    pub first: Element,
    /// That which is farthest from the expected value, in units in the last place.
    pub farthest: Element,
}

/// A wrong element.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// Its coordinates.
    pub at: Vec<u32>,
    /// What the device wrote.
    pub got: Number,
    /// What it should have written.
    pub expected: Number,
    /// Largest error allowed, where that is a number.
    pub bound: Option<f64>,
    /// Distance from the expected value rounded to the element's type, in units in the last place:
    /// how many numbers of that type lie between, and one. `None` of integers, of quantized
    /// elements, and where one of the two is not finite.
    pub ulps: Option<u64>,
}

/// A value as people read it, and its bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// Decimal digits, or what there should be instead of a value.
    pub text: String,
    /// The bits in the element's type, rounded to it if need be, in hexadecimal; `None` of what is
    /// no value, and of quantized elements, which share a scale.
    pub bits: Option<String>,
}

impl Number {
    fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), bits: None }
    }

    /// A value of the oracle.
    fn wanted(value: f64, dtype: DType) -> Self {
        let bits = if value.is_finite() { bits(value, dtype) } else { None };
        Self { text: format!("{value:e}"), bits: bits.map(|bits| hex(bits, dtype)) }
    }

    /// Element `index` as the device wrote it.
    fn got(value: f64, bytes: &[u8], index: usize, dtype: DType) -> Self {
        let text = match dtype {
            // The shortest digits that give these bits, and not those of the same f64.
            DType::F32 => format!("{:e}", round(value)),
            _ => format!("{value:e}"),
        };
        Self { text, bits: raw(bytes, index, dtype).map(|bits| hex(bits, dtype)) }
    }

    /// As JSON.
    fn json(&self) -> Value {
        json!({ "value": self.text, "bits": self.bits })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.bits.as_ref().map_or(Ok(()), |bits| write!(f, " ({bits})"))
    }
}

impl Element {
    fn json(&self) -> Value {
        let Self { at, got, expected, bound, ulps } = self;
        json!({
            "at": at,
            "got": got.json(),
            "expected": expected.json(),
            "bound": bound,
            "ulps": ulps,
        })
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "got {}, expected {}", self.got, self.expected)?;
        if let Some(bound) = self.bound {
            write!(f, " within {bound:.3e}")?;
        }
        self.ulps.map_or(Ok(()), |ulps| write!(f, ", {ulps} ULP apart"))
    }
}

impl Wrong {
    /// How many are wrong, where they lie, and which is the farthest.
    pub fn extent(&self) -> String {
        let Self { count, of, place, first, farthest, .. } = self;
        // Elements that should not have been written are wrong beside those that should.
        let far = if farthest == first {
            String::new()
        } else {
            format!("; farthest at {:?}: {farthest}", farthest.at)
        };
        format!("{count} wrong, of {of} to be written: {place}{far}")
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "output": self.operand,
            "type": self.dtype.name(),
            "shape": self.shape.extents(),
            "count": self.count,
            "of": self.of,
            "place": self.place.json(),
            "first": self.first.json(),
            "farthest": self.farthest.json(),
        })
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operand, shape, first, .. } = self;
        write!(f, "`{operand}` element {:?} of {shape}: {first}", first.at)
    }
}

/// Tells whether an element that must not be written was written.
#[derive(Clone, Copy)]
pub(super) struct Untouched<'a> {
    pub(super) poison: u32,
    pub(super) before: &'a [u8],
}

/// Compares a device's bytes with the oracle's values. NaN is outside of any bound.
///
/// Where the oracle has NaN or an infinity, the device must have one of those too, but not the
/// same: another order of a sum can turn one into the other.
///
/// Without `untouched` there is no poison, and all elements count as written. `workgroups` are
/// those of the dispatch.
pub(super) fn compare(
    host: &Host,
    operand: Operand,
    workgroups: [u32; 3],
    bytes: &[u8],
    exact: bool,
    untouched: Option<Untouched<'_>>,
) -> Compared {
    let tensor = operand.tensor;
    let mut found =
        Found { bytes, tensor, wrong: Vec::new(), strays: 0, first: None, farthest: None };
    let Judged { elements, written, worst, rounded } = if tensor.dtype == DType::U32 {
        ints(host, &mut found, untouched)
    } else {
        floats(host, &mut found, exact, untouched)
    };
    let wrong = found.first.zip(found.farthest).map(|(first, farthest)| {
        let cols = tensor.shape.extents().last().map_or(1, |&cols| cols as usize);
        let groups = workgroups.iter().fold(1, |all: usize, &n| all.saturating_mul(n as usize));
        // With a stray write among them, they are not those that had to be written.
        let judged = if found.strays > 0 { usize::MAX } else { written };
        Wrong {
            operand: operand.name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            count: found.wrong.len(),
            of: written,
            place: Place::of(&found.wrong, Field { len: elements, cols, judged, groups }),
            first,
            farthest,
        }
    });
    Compared { elements, worst, rounded, wrong }
}

/// A comparison under way.
struct Judged {
    elements: usize,
    /// Elements that the kernel had to write.
    written: usize,
    worst: f64,
    rounded: usize,
}

impl Judged {
    fn of(tensor: Tensor) -> Self {
        let elements = usize::try_from(tensor.shape.len()).unwrap_or(usize::MAX);
        Self { elements, written: 0, worst: 0.0, rounded: 0 }
    }
}

/// The wrong elements so far.
struct Found<'a> {
    bytes: &'a [u8],
    tensor: Tensor,
    wrong: Vec<usize>,
    /// How many of them should not have been written.
    strays: usize,
    first: Option<Element>,
    farthest: Option<Element>,
}

impl Found<'_> {
    fn add(
        &mut self,
        index: usize,
        got: Number,
        expected: Number,
        bound: Option<f64>,
        ulps: Option<u64>,
    ) {
        self.wrong.push(index);
        // What is not finite is farther than any number.
        let far = |ulps: Option<u64>| ulps.unwrap_or(u64::MAX);
        if self.farthest.as_ref().is_none_or(|other| far(ulps) > far(other.ulps)) {
            let at = coordinates(index, self.tensor.shape);
            let element = Element { at, got, expected, bound, ulps };
            self.first.get_or_insert_with(|| element.clone());
            self.farthest = Some(element);
        }
    }

    /// A float that is wrong in itself, whatever the bound.
    fn odd(&mut self, index: usize, value: f64, expected: &str) {
        let got = Number::got(value, self.bytes, index, self.tensor.dtype);
        self.add(index, got, Number::plain(expected), None, None);
    }
}

fn ints(host: &Host, found: &mut Found<'_>, untouched: Option<Untouched<'_>>) -> Judged {
    let tensor = found.tensor;
    let mut judged = Judged::of(tensor);
    let word = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("chunks of four"));
    let words = found.bytes.chunks_exact(4).map(word);
    let number =
        |value: u32| Number { text: value.to_string(), bits: Some(format!("{value:#010x}")) };
    for (i, (got, &want)) in words.zip(host.ints(tensor)).enumerate() {
        let kept = untouched
            .filter(|Untouched { before, .. }| want == POISON && is_poison(&before[4 * i..][..4]));
        judged.written += usize::from(kept.is_none());
        let want = kept.map_or(want, |kept| kept.poison);
        if got != want && !host.allows(tensor, i, got) {
            let want = if kept.is_some() { Number::plain(NO_WRITE) } else { number(want) };
            found.strays += usize::from(kept.is_some());
            found.add(i, number(got), want, None, None);
        }
    }
    judged
}

fn floats(
    host: &Host,
    found: &mut Found<'_>,
    exact: bool,
    untouched: Option<Untouched<'_>>,
) -> Judged {
    let (tensor, bytes) = (found.tensor, found.bytes);
    let dtype = tensor.dtype;
    let mut judged = Judged::of(tensor);
    let bounds = host.bounds(tensor);
    let cols = tensor.shape.extents().last().map_or(1, |&cols| cols as usize);
    let kept = untouched.map(|Untouched { poison, .. }| host::untouched(tensor, bytes, poison));
    let got = host::decode_rows(dtype, cols, bytes).into_iter();
    for (i, (got, &want)) in got.zip(host.floats(tensor)).enumerate() {
        let fresh = kept.as_ref().is_some_and(|kept| kept[i]);
        if kept.is_some() && host::is_unwritten(want) {
            if !fresh {
                found.strays += 1;
                found.odd(i, got, NO_WRITE);
            }
            continue;
        }
        judged.written += 1;
        if !want.is_finite() {
            if got.is_finite() {
                judged.worst = f64::INFINITY;
                found.odd(i, got, &format!("{want}"));
            } else if fresh {
                let got = Number::plain("nothing at all");
                found.add(i, got, Number::plain(format!("{want}")), None, None);
            }
            continue;
        }
        let bound = if exact && !host.rounds { 0.0 } else { bounds.map_or(0.0, |b| b[i]) };
        let error = (got - want).abs();
        let within = error <= bound;
        if !within {
            let ratio = error / bound;
            judged.worst = judged.worst.max(if ratio.is_nan() { f64::INFINITY } else { ratio });
            let number = Number::got(got, bytes, i, dtype);
            let ulps = ulps(raw(bytes, i, dtype), want, dtype);
            found.add(i, number, Number::wanted(want, dtype), Some(bound), ulps);
        } else if dtype == DType::F32 {
            judged.worst = judged.worst.max(if bound > 0.0 { error / bound } else { 0.0 });
        } else {
            // Of a value that is rounded to a coarser type, one neighbour is as right as the other
            // where the f32 before lies near the middle: the error is all of the bound, or none.
            judged.rounded += usize::from(error > 0.0);
        }
    }
    judged
}

/// Width of an element's bits, if its bits are its own.
fn width(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F32 | DType::U32 => Some(32),
        DType::F16 | DType::BF16 => Some(16),
        DType::Q8 | DType::Q4 | DType::Q3 | DType::Q2 => None,
    }
}

fn hex(bits: u32, dtype: DType) -> String {
    let digits = if width(dtype) == Some(16) { 6 } else { 10 };
    format!("{bits:#0digits$x}")
}

/// The bits of element `index`.
fn raw(bytes: &[u8], index: usize, dtype: DType) -> Option<u32> {
    match (width(dtype)?, bytes) {
        (32, bytes) => {
            let word = bytes.get(4 * index..4 * index + 4)?;
            Some(u32::from_le_bytes(word.try_into().ok()?))
        }
        (_, bytes) => {
            let half = bytes.get(2 * index..2 * index + 2)?;
            Some(u16::from_le_bytes(half.try_into().ok()?).into())
        }
    }
}

/// The bits of a value in a type.
fn bits(value: f64, dtype: DType) -> Option<u32> {
    match dtype {
        DType::F32 => Some(round(value).to_bits()),
        DType::F16 => Some(f16::from_f64(value).to_bits().into()),
        DType::BF16 => Some(bf16::from_f64(value).to_bits().into()),
        DType::U32 | DType::Q8 | DType::Q4 | DType::Q3 | DType::Q2 => None,
    }
}

/// Distance of the bits `got` from the value `want` in units in the last place of `dtype`.
fn ulps(got: Option<u32>, want: f64, dtype: DType) -> Option<u64> {
    let width = width(dtype)?;
    let infinity = bits(f64::INFINITY, dtype)?;
    let sign = 1 << (width - 1);
    // Counts floats from zero, in either direction; both zeros are 0.
    let rank = |bits: u32| {
        let size = bits & (sign - 1);
        let rank = if bits & sign == 0 { i64::from(size) } else { -i64::from(size) };
        (size < infinity).then_some(rank)
    };
    Some(rank(got?)?.abs_diff(rank(bits(want, dtype)?)?))
}

fn coordinates(index: usize, shape: Shape) -> Vec<u32> {
    let mut rest = index as u64;
    let mut coordinates: Vec<u32> = shape
        .extents()
        .iter()
        .rev()
        .map(|&extent| {
            let extent = u64::from(extent.max(1));
            let at = rest % extent;
            rest /= extent;
            u32::try_from(at).unwrap_or(u32::MAX)
        })
        .collect();
    coordinates.reverse();
    coordinates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{binder::Access, host::Bounded};

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// What a device with `got` is told where `want` is right within `bound`.
    fn found(dtype: DType, want: &[f64], bound: f64, got: &[u8], exact: bool) -> Compared {
        let mut host = Host::default();
        let shape = Shape::from([u32::try_from(want.len()).expect("few")]);
        let tensor = host.unwritten_as(dtype, shape);
        let results = want.iter().map(|&value| Bounded { value, bound }).collect();
        host.write(tensor, results);
        let operand = Operand { name: "out", access: Access::Write, tensor, touched: 0 };
        compare(&host, operand, [1, 1, 1], got, exact, None)
    }

    #[test]
    fn a_unit_in_the_last_place_is_one_step_of_the_bits() {
        let one = |got: f32, want: f64| ulps(Some(got.to_bits()), want, DType::F32);
        assert_eq!(one(1.0, 1.0), Some(0));
        assert_eq!(one(1.0 + f32::EPSILON, 1.0), Some(1));
        assert_eq!(one(-0.0, 0.0), Some(0));
        assert_eq!(one(-f32::from_bits(1), f64::from(f32::from_bits(1))), Some(2));
        assert_eq!(one(2.0, 1.0), Some(1 << 23));
        assert_eq!(one(f32::NAN, 1.0), None);
        assert_eq!(one(f32::INFINITY, 1.0), None);
        assert_eq!(one(-f32::MAX, f64::from(f32::MAX)), Some(2 * 0x7f7f_ffff));
        let half = f16::from_f64(1.5).to_bits();
        assert_eq!(ulps(Some(half.into()), 1.0, DType::F16), Some(512));
    }

    #[test]
    fn wrong_elements_are_counted_and_placed() {
        let got = bytes(&[1.0, 2.5, 3.0, f32::NAN]);
        let wrong = found(DType::F32, &[1.0, 2.0, 3.0, 4.0], 0.25, &got, false).wrong;
        let wrong = wrong.expect("two are wrong");
        assert_eq!(
            (wrong.count, wrong.of, wrong.place),
            (2, 4, Place::Stripe { every: 2, from: 1, to: 1 })
        );
        assert_eq!(
            wrong.to_string(),
            "`out` element [1] of [4]: got 2.5e0 (0x40200000), expected 2e0 (0x40000000) within \
             2.500e-1, 2097152 ULP apart"
        );
        // NaN is farther than any number.
        assert_eq!(wrong.farthest.at, [3]);
        assert!(wrong.extent().contains("farthest at [3]: got NaN (0x7fc00000)"), "{wrong:?}");
        let json = wrong.json();
        assert_eq!(json["first"]["ulps"], 2_097_152);
        assert_eq!(json["farthest"]["ulps"], Value::Null);
    }

    #[test]
    fn nan_is_never_within_a_bound() {
        for bound in [0.0, 1.0, f64::INFINITY] {
            let found = found(DType::F32, &[1.0], bound, &bytes(&[f32::NAN]), false);
            assert!(found.wrong.is_some() && found.worst.is_infinite(), "{bound}: {found:?}");
        }
        // Where there is no finite number, there must be none; which of them is left open.
        for got in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(found(DType::F32, &[f64::NAN], 0.0, &bytes(&[got]), false).wrong.is_none());
        }
        assert!(found(DType::F32, &[f64::NAN], 0.0, &bytes(&[1.0]), false).wrong.is_some());
    }

    /// A stored value is one neighbour of the exact one or the other. Neither is near a failure.
    #[test]
    fn rounding_to_a_coarser_type_is_no_fraction_of_the_bound() {
        let step = 1.0 / 1024.0;
        let got = f16::from_f64(1.0 + step).to_le_bytes();
        let other = found(DType::F16, &[1.0], step, &got, false);
        assert!(other.wrong.is_none());
        assert_eq!((other.worst, other.rounded), (0.0, 1));
        let same = found(DType::F16, &[1.0], step, &f16::ONE.to_le_bytes(), false);
        assert_eq!((same.worst, same.rounded), (0.0, 0));
        let far = found(DType::F16, &[1.0], step, &f16::from_f64(1.25).to_le_bytes(), false);
        let wrong = far.wrong.expect("256 steps are too many");
        assert_eq!((wrong.first.ulps, far.worst), (Some(256), 256.0));
        assert_eq!(wrong.first.got.bits.as_deref(), Some("0x3d00"));
        // In an exact row, the neighbour is wrong.
        assert!(found(DType::F16, &[1.0], step, &got, true).wrong.is_some());
    }
}
