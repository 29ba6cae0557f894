//! Texts, and random schedules of their tokens.

use std::{collections::HashMap, ops::AddAssign};

use grok_wgpu::lab::{
    engine::{
        Engine,
        sequence::{Kind, Sequence},
        step::{Input, Readback, Run, StepOutput},
    },
    machine::Machine,
};
use pollster::block_on;

/// Numbers that are the same in each run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits") % end.max(1)
    }

    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i + 1));
        }
    }
}

/// Tokens of a text by their kind: parts of a prompt, and generated tokens.
pub(crate) struct Script {
    tokens: Vec<(Kind, u32)>,
}

impl Script {
    /// A prompt, generated tokens, and perhaps both again, of at most `longest` tokens.
    pub(crate) fn random(random: &mut Random, vocab: u32, longest: usize) -> Self {
        let length = longest / 2 + random.below(longest / 2 + 1);
        let (mut tokens, mut kind) = (Vec::new(), Kind::Prompt);
        while tokens.len() < length {
            let most = if kind == Kind::Prompt { length } else { 12 };
            for _ in 0..=random.below(most) {
                let id = random.below(vocab as usize);
                tokens.push((kind, u32::try_from(id).expect("ids are small")));
            }
            kind = if kind == Kind::Prompt { Kind::Generated } else { Kind::Prompt };
        }
        tokens.truncate(longest);
        Self { tokens }
    }

    fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The ids after the first `done` that go through the model in one way, up to the end of their
    /// part.
    fn next(&self, done: usize) -> (Kind, Vec<u32>) {
        let kind = self.tokens[done].0;
        let part = self.tokens[done..].iter().take_while(|token| token.0 == kind);
        let ids: Vec<u32> = part.map(|token| token.1).collect();
        match kind {
            Kind::Prompt => (kind, ids),
            Kind::Generated => (kind, ids[..1].to_vec()),
        }
    }
}

/// Logits after so many tokens: at the end of each part of a prompt, and of each generated token.
pub(crate) type Logits = HashMap<usize, Vec<f32>>;

/// What a text has alone.
pub(crate) fn alone<M: Machine>(engine: &mut Engine<M>, script: &Script) -> Logits {
    let (mut text, mut all) = (Sequence::new(), Logits::new());
    while text.tokens().len() < script.len() {
        let (kind, ids) = script.next(text.tokens().len());
        let logits = match kind {
            Kind::Prompt => block_on(engine.logits(&mut text, &ids)).expect("runs"),
            Kind::Generated => {
                let run =
                    Run { sequence: &mut text, input: Input::generated(&ids[0], Readback::Logits) };
                let mut outputs = block_on(engine.step(&mut [run])).expect("runs");
                logits_of(&outputs.remove(0).expect("it fits"))
            }
        };
        all.insert(text.tokens().len(), logits);
    }
    all
}

fn logits_of(output: &StepOutput) -> Vec<f32> {
    output.candidates.iter().map(|candidate| candidate.logit).collect()
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// How many texts each step had.
    pub(crate) rows: Vec<usize>,
    /// Steps with prompts and generated tokens.
    mixed: usize,
    /// Steps with chunks of several prompts.
    prompts: usize,
    compared: usize,
    cancelled: usize,
    restored: usize,
    refused: usize,
    finished: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.rows.extend(other.rows);
        for (sum, more) in [
            (&mut self.mixed, other.mixed),
            (&mut self.prompts, other.prompts),
            (&mut self.compared, other.compared),
            (&mut self.cancelled, other.cancelled),
            (&mut self.restored, other.restored),
            (&mut self.refused, other.refused),
            (&mut self.finished, other.finished),
        ] {
            *sum += more;
        }
    }
}

impl Counts {
    /// Checks that what should be tested has happened.
    pub(crate) fn check(&self) {
        let many = self.rows.iter().filter(|&&rows| rows > 4).count();
        let Self { mixed, prompts, compared, cancelled, restored, refused, finished, .. } = self;
        for (what, count) in [
            ("steps of more than four texts", &many),
            ("mixed steps", mixed),
            ("steps of several prompts", prompts),
            ("cancelled texts", cancelled),
            ("restored texts", restored),
            ("texts without room", refused),
        ] {
            assert!(*count > 0, "no {what}: {self:?}");
        }
        assert!(*finished > 10 && *compared > 100, "{self:?}");
    }
}

struct Active {
    script: usize,
    text: Sequence,
    /// Whether its pages were taken.
    lost: bool,
}

/// Runs the texts until all have ended, by a random schedule, and compares what is read.
pub(crate) fn run<M: Machine>(
    engine: &mut Engine<M>,
    scripts: &[Script],
    want: &[Logits],
    random: &mut Random,
    counts: &mut Counts,
) {
    let mut waiting: Vec<usize> = (0..scripts.len()).collect();
    let mut active: Vec<Active> = Vec::new();
    while !waiting.is_empty() || !active.is_empty() {
        while !waiting.is_empty() && (active.is_empty() || random.once_in(3)) {
            let script = waiting.swap_remove(random.below(waiting.len()));
            active.push(Active { script, text: Sequence::new(), lost: false });
        }
        random.shuffle(&mut active);
        if active.len() > 1 && random.once_in(20) {
            counts.cancelled += 1;
            waiting.extend(active.pop().map(|gone| gone.script));
        }
        if random.once_in(8)
            && let Some(one) = active.iter_mut().find(|one| !one.text.tokens().is_empty())
        {
            one.text.release();
            one.lost = true;
        }
        for one in active.iter_mut().filter(|one| one.lost) {
            if block_on(engine.restore(&mut one.text)).is_ok() {
                counts.restored += 1;
                one.lost = false;
            }
        }
        let refused = step(engine, (scripts, want), &mut active, random, counts);
        counts.refused += usize::from(refused);
        if refused || active.iter().all(|one| one.lost) {
            // The first text keeps what it has, so there is one that ends.
            let gone = active.split_off(1.min(active.len()));
            waiting.extend(gone.iter().map(|gone| gone.script));
        }
        let before = active.len();
        active.retain(|one| one.text.tokens().len() < scripts[one.script].len());
        counts.finished += before - active.len();
    }
}

/// A step of some of the texts. Returns whether the cache had no room for one.
fn step<M: Machine>(
    engine: &mut Engine<M>,
    (scripts, want): (&[Script], &[Logits]),
    active: &mut [Active],
    random: &mut Random,
    counts: &mut Counts,
) -> bool {
    let options = engine.options();
    let mut budget = options.prefill as usize;
    let mut chosen: Vec<(&mut Active, Kind, Vec<u32>, Readback)> = Vec::new();
    for one in active.iter_mut().filter(|one| !one.lost) {
        if chosen.len() == options.rows as usize || random.once_in(6) {
            continue;
        }
        let done = one.text.tokens().len();
        let (kind, mut ids) = scripts[one.script].next(done);
        if kind == Kind::Prompt {
            let whole = random.once_in(2);
            let most = ids.len().min(budget);
            ids.truncate(if whole { most } else { random.below(most + 1) });
            budget -= ids.len();
        }
        if ids.is_empty() {
            continue;
        }
        let compared = want[one.script].contains_key(&(done + ids.len()));
        let read = match random.below(4) {
            0 => Readback::Nothing,
            1 => Readback::Top(1 + u32::try_from(random.below(4)).expect("small")),
            _ if compared => Readback::Logits,
            _ => Readback::Nothing,
        };
        chosen.push((one, kind, ids, read));
    }
    let of = |wanted: Kind| chosen.iter().filter(|(_, kind, ..)| *kind == wanted).count();
    counts.rows.push(chosen.len());
    counts.prompts += usize::from(of(Kind::Prompt) > 1);
    counts.mixed += usize::from(of(Kind::Prompt) > 0 && of(Kind::Generated) > 0);
    let mut runs: Vec<Run<'_>> = chosen
        .iter_mut()
        .map(|(one, kind, ids, read)| Run {
            sequence: &mut one.text,
            input: Input { kind: *kind, ..Input::prompt(ids, *read) },
        })
        .collect();
    let outputs = block_on(engine.step(&mut runs)).expect("the machine works");
    drop(runs);
    assert_eq!(outputs.len(), chosen.len());
    let mut refused = false;
    for ((one, _, ids, read), output) in chosen.iter().zip(outputs) {
        let length = one.text.tokens().len();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                assert!(error.to_string().contains("free pages"), "{error}");
                refused = true;
                continue;
            }
        };
        assert!(one.text.tokens().ends_with(ids));
        let Some(logits) = want[one.script].get(&length) else { continue };
        let got: Vec<(u32, u32)> =
            output.candidates.iter().map(|found| (found.id, found.logit.to_bits())).collect();
        let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        match read {
            Readback::Logits => {}
            Readback::Top(count) => {
                all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                all.truncate(*count as usize);
            }
            _ => all.clear(),
        }
        let all: Vec<(u32, u32)> = all.iter().map(|(id, logit)| (*id, logit.to_bits())).collect();
        assert!(got == all, "text {} has other bits after {length} tokens", one.script);
        counts.compared += got.len();
    }
    refused
}
