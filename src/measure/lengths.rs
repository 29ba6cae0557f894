//! Which of some lengths is the fastest: of prompt chunks, or of splits of attention.

/// The time with one length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    /// Tokens of a chunk, or positions of a split.
    pub length: u32,
    /// Seconds of the same work with each length.
    pub seconds: f64,
}

/// The fastest length. The `usual` one, or the first if it was not measured, wins unless another is
/// at least 3 % faster, since smaller differences may be noise. `None` if nothing was measured.
pub fn best(timed: &[Timed], usual: u32) -> Option<u32> {
    let usual = timed.iter().find(|of| of.length == usual).or(timed.first())?;
    let fastest = timed.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
    Some(if usual.seconds < 1.03 * fastest.seconds { usual } else { fastest }.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_length_wins_unless_another_is_clearly_faster() {
        let timed = |times: [f64; 3]| {
            let of = |(length, seconds)| Timed { length, seconds };
            [256, 512, 1024].into_iter().zip(times).map(of).collect::<Vec<_>>()
        };
        for (times, usual, want) in [
            ([1.0, 0.98, 0.99], 256, 256),
            ([1.0, 0.9, 0.95], 256, 512),
            ([1.0, 0.99, 0.98], 1024, 1024),
            ([0.9, 1.0, 1.1], 1024, 256),
            ([1.0, 0.5, 0.49], 100, 1024),
            ([0.99, 1.0, 0.98], 100, 256),
        ] {
            assert_eq!(best(&timed(times), usual), Some(want), "{times:?}, usually {usual}");
        }
        assert_eq!(best(&timed([1.0, 0.5, 0.6])[..1], 1024), Some(256), "the only one");
        assert_eq!(best(&[], 256), None);
    }
}
