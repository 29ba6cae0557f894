//! The sampler: its settings, its edges, and the distribution it draws from.

use grok_wgpu::lab::text::sampler::{Candidate, Needs, Sampler, Sampling, logprobs, top_logprobs};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// All settings active; tests switch off what they do not need.
const WARM: Sampling = Sampling {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    seed: 42,
};

fn candidates(logits: &[f32]) -> Vec<Candidate> {
    (0..).zip(logits).map(|(id, &logit)| Candidate { id, logit }).collect()
}

fn sampler(sampling: Sampling) -> Sampler {
    Sampler::new(sampling).expect("settings in range")
}

fn draw(sampling: Sampling, logits: &[f32], recent: &[u32], draws: usize) -> Vec<u32> {
    let candidates = candidates(logits);
    let mut sampler = sampler(sampling);
    (0..draws).map(|_| sampler.sample(&candidates, recent).expect("a token")).collect()
}

/// How often each id was drawn.
fn counts(ids: &[u32], len: usize) -> Vec<usize> {
    let mut counts = vec![0; len];
    for &id in ids {
        counts[id as usize] += 1;
    }
    counts
}

/// Checks the draws against probabilities, by Pearson's statistic.
///
/// The limit is five standard deviations in Wilson and Hilferty's normal approximation of the
/// chi-square distribution: a correct sampler fails with one seed in three million, and a sampler
/// with one probability wrong by a hundredth fails with nearly all seeds. A token of probability
/// zero must never be drawn.
fn check_distribution(sampling: Sampling, logits: &[f32], recent: &[u32], want: &[f64]) {
    // At least 20 expected draws of a token, for the approximation to hold.
    let draws = if logits.len() < 100 { 200_000 } else { 20 * logits.len() };
    let counts = counts(&draw(sampling, logits, recent, draws), logits.len());
    let mut statistic = 0.0;
    let mut cells: f64 = 0.0;
    for (&count, &p) in counts.iter().zip(want) {
        if p == 0.0 {
            assert_eq!(count, 0, "{sampling:?}: {counts:?} for {want:?}");
        } else {
            let expected = p * draws as f64;
            statistic += (count as f64 - expected).powi(2) / expected;
            cells += 1.0;
        }
    }
    // A single token has a statistic of zero; any limit will do.
    let freedom = (cells - 1.0).max(1.0);
    let spread = 2.0 / (9.0 * freedom);
    let limit = freedom * (1.0 - spread + 5.0 * spread.sqrt()).powi(3);
    assert!(statistic <= limit, "{statistic} > {limit}: {counts:?} for {want:?}");
}

fn softmax(values: &[f64]) -> Vec<f64> {
    let sum: f64 = values.iter().map(|value| value.exp()).sum();
    values.iter().map(|value| value.exp() / sum).collect()
}

const LOGITS: [f32; 6] = [0.5, 2.0, -1.0, 1.0, 2.0, -30.0];

fn scaled(factor: f64) -> Vec<f64> {
    LOGITS.iter().map(|&logit| f64::from(logit) * factor).collect()
}

/// The probabilities, renormalized over the `kept` ids.
fn only(kept: &[usize], p: &[f64]) -> Vec<f64> {
    let sum: f64 = kept.iter().map(|&id| p[id]).sum();
    (0..p.len()).map(|id| if kept.contains(&id) { p[id] / sum } else { 0.0 }).collect()
}

#[test]
fn draws_follow_the_softmax() {
    // exp(-32) is never drawn in 200,000 draws.
    let p = only(&[0, 1, 2, 3, 4], &softmax(&scaled(1.0)));
    check_distribution(WARM, &LOGITS, &[], &p);
    for temperature in [0.5_f32, 2.0] {
        let p = softmax(&scaled(1.0 / f64::from(temperature)));
        let p = only(&[0, 1, 2, 3, 4], &p);
        check_distribution(Sampling { temperature, ..WARM }, &LOGITS, &[], &p);
    }
}

#[test]
fn filters_keep_what_they_should() {
    let p = softmax(&scaled(1.0));
    // In order: 1 and 4 (0.379 each), 3 (0.139), 0 (0.085), 2 (0.019).
    let keeps: [(Sampling, &[usize]); 9] = [
        (Sampling { top_k: 1, ..WARM }, &[1]),
        (Sampling { top_k: 3, ..WARM }, &[1, 3, 4]),
        (Sampling { top_p: 0.0, ..WARM }, &[1]),
        (Sampling { top_p: 0.4, ..WARM }, &[1, 4]),
        (Sampling { top_p: 0.8, ..WARM }, &[1, 3, 4]),
        (Sampling { min_p: 1.0, ..WARM }, &[1, 4]),
        (Sampling { min_p: 0.3, ..WARM }, &[1, 3, 4]),
        // top_p applies to the probabilities renormalized after top_k: here two halves.
        (Sampling { top_k: 2, top_p: 0.45, ..WARM }, &[1]),
        (Sampling { top_p: 0.95, min_p: 0.2, ..WARM }, &[0, 1, 3, 4]),
    ];
    for (sampling, kept) in keeps {
        check_distribution(sampling, &LOGITS, &[], &only(kept, &p));
    }
}

#[test]
fn filters_come_after_the_temperature() {
    // At temperature 2 the two best sum to 0.61, so a top_p of 0.7 needs a third; at 1 they sum to
    // 0.76.
    let hot = softmax(&scaled(0.5));
    let sampling = Sampling { temperature: 2.0, top_p: 0.7, ..WARM };
    check_distribution(sampling, &LOGITS, &[], &only(&[1, 3, 4], &hot));
    let cold = softmax(&scaled(1.0));
    check_distribution(Sampling { top_p: 0.7, ..WARM }, &LOGITS, &[], &only(&[1, 4], &cold));
}

#[test]
fn penalties_come_before_the_temperature() {
    // The positive logit of id 1 is halved and the negative one of id 2 doubled, once each however
    // often the id occurred. Id 77 is not in the vocabulary.
    let sampling = Sampling { temperature: 0.5, repetition_penalty: 2.0, ..WARM };
    let values = [0.5, 1.0, -2.0, 1.0, 2.0, -30.0].map(|value: f64| value * 2.0);
    let p = only(&[0, 1, 2, 3, 4], &softmax(&values));
    check_distribution(sampling, &LOGITS, &[1, 2, 1, 1, 77], &p);
}

#[test]
fn large_vocabularies_are_drawn_from_evenly() {
    // Many more tokens than the part of the list that is sorted first.
    let p = vec![0.001; 1000];
    check_distribution(WARM, &[3.5; 1000], &[], &p);
    let kept: Vec<usize> = (0..500).collect();
    check_distribution(Sampling { top_p: 0.5, ..WARM }, &[3.5; 1000], &[], &only(&kept, &p));
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_of_equals() {
    let greedy = Sampling::default();
    assert_eq!(draw(greedy, &LOGITS, &[], 3), [1, 1, 1]);
    assert_eq!(draw(greedy, &[0.0; 9], &[], 1), [0]);
    assert_eq!(draw(greedy, &[-0.0, 0.0], &[], 1), [0]);
    assert_eq!(draw(greedy, &[f32::MIN, f32::MAX], &[], 1), [1]);
    // The penalty changes the greedy choice.
    assert_eq!(draw(Sampling { repetition_penalty: 1.5, ..greedy }, &LOGITS, &[1], 1), [4]);
    let mut shuffled = candidates(&LOGITS);
    shuffled.reverse();
    assert_eq!(sampler(greedy).sample(&shuffled, &[]).expect("a token"), 1);
}

#[test]
fn the_smallest_temperature_is_greedy() {
    let sampling = Sampling { temperature: f32::from_bits(1), ..WARM };
    assert!(draw(sampling, &[f32::MIN, 1.0, f32::MAX, 0.0], &[], 100).iter().all(|&id| id == 2));
    let sampling = Sampling { repetition_penalty: f32::from_bits(1), ..sampling };
    let logits = [f32::MIN, 1.0, f32::MAX];
    assert!(draw(sampling, &logits, &[0, 1, 2], 100).iter().all(|&id| id == 2));
}

#[test]
fn one_token_is_always_drawn() {
    for sampling in [
        WARM,
        Sampling::default(),
        Sampling { top_p: 0.0, min_p: 1.0, top_k: 1, ..WARM },
        Sampling { top_k: u32::MAX, temperature: 2.0, ..WARM },
        Sampling { repetition_penalty: 2.0, ..WARM },
    ] {
        for logit in [0.0, f32::MAX, f32::MIN, -1e-40] {
            assert_eq!(draw(sampling, &[logit], &[0], 5), [0; 5]);
        }
    }
}

#[test]
fn logits_that_are_no_numbers_are_errors() {
    for sampling in [WARM, Sampling::default(), Sampling { top_k: 1, ..WARM }] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let list = candidates(&[1.0, 2.0, bad]);
            let error = sampler(sampling).sample(&list, &[]).expect_err("not finite");
            assert_eq!(error.code(), "non_finite");
            assert!(error.to_string().contains("token 2"), "{error}");
        }
        assert_eq!(sampler(sampling).sample(&[], &[]).expect_err("nothing").code(), "usage");
    }
    assert_eq!(logprobs(&[1.0, f32::NAN], &[0]).expect_err("not finite").code(), "non_finite");
    assert!(top_logprobs(&[f32::INFINITY], 1).is_err());
}

#[test]
fn a_failed_draw_takes_no_number() {
    let mut broken = sampler(WARM);
    let mut whole = sampler(WARM);
    let good = candidates(&[1.0; 50]);
    for _ in 0..20 {
        assert!(broken.sample(&candidates(&[f32::NAN]), &[]).is_err());
        assert!(broken.sample(&[], &[]).is_err());
        assert_eq!(
            broken.sample(&good, &[]).expect("a token"),
            whole.sample(&good, &[]).expect("a token")
        );
    }
}

#[test]
fn the_top_list_gives_what_the_whole_vocabulary_gives() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for round in 0..100 {
        // Few distinct values, so that there are ties at the end of the list.
        let logits: Vec<f32> = (0..1000).map(|_| (rng.next_u32() % 40) as f32 / 4.0).collect();
        let top_k = 1 + rng.next_u32() % 64;
        let sampling = Sampling {
            top_k,
            top_p: if round % 2 == 0 { 1.0 } else { 0.7 },
            min_p: if round % 3 == 0 { 0.0 } else { 0.1 },
            temperature: 0.8,
            seed: round,
            ..WARM
        };
        assert_eq!(sampling.needs(), Needs::Top(top_k));
        let whole = candidates(&logits);
        let mut top = whole.clone();
        top.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
        top.truncate(top_k as usize);
        let mut shuffled = whole.clone();
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, rng.next_u32() as usize % (i + 1));
        }
        let ids = |list: &[Candidate]| -> Vec<u32> {
            let mut sampler = sampler(sampling);
            (0..20).map(|_| sampler.sample(list, &[]).expect("a token")).collect()
        };
        assert_eq!(ids(&whole), ids(&top));
        assert_eq!(ids(&whole), ids(&shuffled));
    }
}

#[test]
fn seeds_repeat_and_differ() {
    let logits = [1.0; 1000];
    let one = draw(WARM, &logits, &[], 50);
    assert_eq!(one, draw(WARM, &logits, &[], 50));
    for seed in [0, 43, u64::MAX] {
        assert_ne!(one, draw(Sampling { seed, ..WARM }, &logits, &[], 50));
    }
}

#[test]
fn a_seed_means_the_same_in_every_version() {
    let ids = draw(Sampling { seed: 1, ..WARM }, &[0.0; 100], &[], 8);
    assert_eq!(ids, [97, 69, 42, 17, 25, 96, 38, 70]);
}

#[test]
fn needs_are_the_least() {
    let sampling = Sampling::default();
    assert_eq!(sampling.needs(), Needs::Greedy);
    assert_eq!(Sampling { top_k: 40, ..sampling }.needs(), Needs::Greedy);
    assert_eq!(Sampling { repetition_penalty: 1.1, ..sampling }.needs(), Needs::All);
    assert_eq!(Sampling { top_k: 1, ..WARM }.needs(), Needs::Top(1));
    assert_eq!(Sampling { top_k: 64, top_p: 0.5, ..WARM }.needs(), Needs::Top(64));
    assert_eq!(Sampling { top_k: 65, ..WARM }.needs(), Needs::All);
    assert_eq!(WARM.needs(), Needs::All);
    assert_eq!(Sampling { top_k: 5, repetition_penalty: 0.9, ..WARM }.needs(), Needs::All);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let bad = [
        ("temperature", Sampling { temperature: -1.0, ..WARM }),
        ("temperature", Sampling { temperature: 2.001, ..WARM }),
        ("temperature", Sampling { temperature: 1e30, ..WARM }),
        ("temperature", Sampling { temperature: f32::NAN, ..WARM }),
        ("top_p", Sampling { top_p: 1.1, ..WARM }),
        ("top_p", Sampling { top_p: -0.1, ..WARM }),
        ("top_p", Sampling { top_p: f32::NAN, ..WARM }),
        ("min_p", Sampling { min_p: 2.0, ..WARM }),
        ("min_p", Sampling { min_p: f32::NAN, ..WARM }),
        ("repetition_penalty", Sampling { repetition_penalty: 0.0, ..WARM }),
        ("repetition_penalty", Sampling { repetition_penalty: -1.0, ..WARM }),
        ("repetition_penalty", Sampling { repetition_penalty: 2.5, ..WARM }),
        ("repetition_penalty", Sampling { repetition_penalty: f32::NAN, ..WARM }),
    ];
    for (name, sampling) in bad {
        let error = Sampler::new(sampling).err().expect("refused");
        assert_eq!(error.code(), "usage");
        assert!(error.to_string().contains(&format!("{name} is ")), "{error}");
    }
    let all =
        Sampling { temperature: 3.0, top_p: 3.0, min_p: 3.0, repetition_penalty: 3.0, ..WARM };
    let text = all.validate().expect_err("refused").to_string();
    assert_eq!(text.matches(" is 3").count(), 4, "{text}");
    for sampling in [
        Sampling { temperature: 2.0, top_p: 0.0, min_p: 1.0, repetition_penalty: 2.0, ..WARM },
        Sampling { temperature: 0.0, top_k: u32::MAX, seed: u64::MAX, ..WARM },
    ] {
        assert!(sampling.validate().is_ok());
    }
}

#[test]
fn logprobs_are_the_log_softmax() {
    let want: Vec<f64> = softmax(&scaled(1.0)).iter().map(|p| p.ln()).collect();
    let got = logprobs(&LOGITS, &[4, 0, 5]).expect("finite");
    for (got, want) in got.iter().zip([want[4], want[0], want[5]]) {
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }
    let top = top_logprobs(&LOGITS, 4).expect("finite");
    let ids: Vec<u32> = top.iter().map(|&(id, _)| id).collect();
    assert_eq!(ids, [1, 4, 3, 0]);
    for (id, got) in top {
        assert!((got - want[id as usize]).abs() < 1e-12);
    }
    // Extreme logits, and a request for more tokens than there are.
    let far = top_logprobs(&[f32::MIN, f32::MAX], 5).expect("finite");
    assert_eq!(far.len(), 2);
    assert_eq!(far[0], (1, 0.0));
    assert!(far[1].0 == 0 && far[1].1.is_finite());
    let ties: Vec<u32> =
        top_logprobs(&[1.0; 500], 200).expect("finite").iter().map(|&(id, _)| id).collect();
    assert_eq!(ties, (0..200).collect::<Vec<u32>>());
    assert!(top_logprobs(&[], 3).expect("nothing").is_empty());
    let error = logprobs(&LOGITS, &[6]).expect_err("no such token");
    assert!(error.to_string().contains("token 6"), "{error}");
}
