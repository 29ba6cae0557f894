//! One step of several texts: what is counted, what is refused, and what fails alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{
        Engine, SessionOptions,
        sequence::{Kind, Sequence},
        step::{Input, Readback, Run, StepOutput},
    },
    machine::{
        Machine,
        gpu::{Gpu, LimitProfile},
        host::Host,
    },
    model::{Placement, Slots, config::Config, schema::EMBEDDING, weights::Weights},
};
use pollster::block_on;

use crate::{TOGETHER, common, load, tiny};

const TOP: Readback = Readback::Top(3);

/// Runs a step, with each text's input.
fn step<M: Machine>(
    engine: &mut Engine<M>,
    texts: &mut [Sequence],
    inputs: &[Input<'_>],
) -> Vec<Result<StepOutput>> {
    let runs = texts.iter_mut().zip(inputs);
    let mut runs: Vec<Run<'_>> = runs.map(|(sequence, &input)| Run { sequence, input }).collect();
    block_on(engine.step(&mut runs)).expect("the machine works")
}

fn good(outputs: Vec<Result<StepOutput>>) -> Vec<StepOutput> {
    outputs.into_iter().map(|output| output.expect("it runs")).collect()
}

fn texts<const N: usize>() -> [Sequence; N] {
    std::array::from_fn(|_| Sequence::new())
}

#[test]
fn a_step_is_one_submission_and_one_read_back() {
    let gpu = common::open(LimitProfile::Baseline);
    let mut engine = load(gpu, &tiny("tiny", 2), TOGETHER, Placement::WHOLE);
    let mut all = texts::<4>();
    let prompt = [5, 6, 7];
    let start = Input::prompt(&prompt, TOP);
    good(step(&mut engine, &mut all[..3], &[start; 3]));
    let ids = [9, 10, 11];
    let mut inputs: Vec<Input<'_>> = ids.iter().map(|id| Input::generated(id, TOP)).collect();

    let mut counted = |engine: &mut Engine<Gpu>, inputs: &[Input<'_>]| {
        let before = engine.machine().counters();
        good(step(engine, &mut all, inputs));
        engine.machine().counters() - before
    };
    let decode = counted(&mut engine, &inputs);
    assert_eq!((decode.submissions, decode.read_backs), (1, 1));
    inputs.push(start);
    let both = counted(&mut engine, &inputs);
    assert_eq!((both.submissions, both.read_backs), (1, 1));
    // What three rows read back, and one more.
    assert_eq!(both.read_back_bytes * 3, decode.read_back_bytes * 4);
    // Four generated tokens take as many dispatches as three, and as one.
    inputs[3] = Input::generated(&ids[0], TOP);
    let four = counted(&mut engine, &inputs);
    let one = counted(&mut engine, &inputs[..1]);
    assert_eq!((four.dispatches, four.submissions), (decode.dispatches, 1));
    assert_eq!((one.dispatches, one.submissions), (decode.dispatches, 1));
    assert!(both.dispatches > decode.dispatches);
    // The same step again and again is encoded while the device works.
    let again: u64 = (0..3).map(|_| counted(&mut engine, &inputs).encoded_ahead).sum();
    assert!(again >= 1, "{again}");
}

/// One pipeline serves any number of rows, so bits cannot depend on it.
#[test]
fn more_rows_compile_no_other_program() {
    let gpu = common::open(LimitProfile::Baseline);
    let sizes = TOGETHER.with_cache_positions(192);
    let mut engine = load(gpu, &tiny("tiny", 2), sizes, Placement::WHOLE);
    let mut all = texts::<6>();
    let (prompt, id) = ([5, 6, 7], 9);
    let (start, next) = (Input::prompt(&prompt, TOP), Input::generated(&id, TOP));
    let compiled = Arc::new(AtomicUsize::new(0));
    let listener = |compiled: &Arc<AtomicUsize>| {
        let compiled = Arc::clone(compiled);
        Box::new(move |_, _| {
            compiled.fetch_add(1, Ordering::Relaxed);
        })
    };
    engine.machine_mut().on_compiled(Some(listener(&compiled)));
    good(step(&mut engine, &mut all[..1], &[start]));
    good(step(&mut engine, &mut all[..1], &[next]));
    let first = compiled.load(Ordering::Relaxed);
    assert!(first > 10, "{first}");
    for texts in [2, 6] {
        for text in &mut all {
            text.rewind(0);
        }
        good(step(&mut engine, &mut all[..texts], &[start; 6][..texts]));
        good(step(&mut engine, &mut all[..texts], &[next; 6][..texts]));
    }
    assert_eq!(compiled.load(Ordering::Relaxed), first);
}

#[test]
fn what_cannot_be_fails_and_leaves_the_others() {
    let options = SessionOptions::new(64, 8, DType::F32).with_rows(3).with_cache_positions(96);
    let config = tiny("tiny", 1);
    let mut engine = load(Host::default(), &config, options, Placement::WHOLE);
    let mut all = texts::<4>();
    let (long, short, id) = ([3; 8], [4; 3], config.vocab_size);
    // Too many texts, and too many tokens of prompts: nothing runs.
    for (inputs, what) in [
        (&[Input::prompt(&short, TOP); 4][..], "4 texts in a step, expected at most 3"),
        (&[Input::prompt(&short, TOP); 3], "9 tokens of prompts in a step, expected at most 8"),
    ] {
        let mut runs: Vec<Run<'_>> =
            all.iter_mut().zip(inputs).map(|(sequence, &input)| Run { sequence, input }).collect();
        let error = block_on(engine.step(&mut runs)).expect_err("too many");
        assert_eq!((error.to_string().as_str(), error.code()), (what, "usage"));
    }
    // Each of the wrong ones by itself.
    for (wrong, what) in [
        (Input::prompt(&[], TOP), "no tokens"),
        (Input::generated(&id, TOP), "vocab_size"),
        (Input::generated(&1, Readback::Top(0)), "0 candidates"),
        (Input::generated(&1, Readback::AllLogits), "not of generated tokens"),
    ] {
        let inputs = [Input::prompt(&short, TOP), wrong, Input::generated(&1, TOP)];
        let outputs = step(&mut engine, &mut all[..3], &inputs);
        assert!(outputs[0].is_ok() && outputs[2].is_ok(), "{outputs:?}");
        let error = outputs[1].as_ref().expect_err(what);
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(all[1].tokens(), [0; 0], "{what}");
    }
    assert_eq!([all[0].tokens().len(), all[2].tokens().len()], [12, 4]);
    // Two of three pages are taken. The third text gets the last, and the first no second one.
    good(step(&mut engine, &mut all[1..2], &[Input::prompt(&long, TOP)]));
    for ids in [&long[..], &long, &short] {
        good(step(&mut engine, &mut all[..1], &[Input::prompt(ids, TOP)]));
    }
    let outputs = step(
        &mut engine,
        &mut all[..3],
        &[Input::prompt(&short, TOP), Input::generated(&1, TOP), Input::generated(&1, TOP)],
    );
    let error = outputs[0].as_ref().expect_err("there is no page");
    assert!(
        error.to_string().contains("the cache has 0 free pages of 32 positions")
            && error.to_string().contains("needs 1 more"),
        "{error}"
    );
    assert!(outputs[1].is_ok() && outputs[2].is_ok());
    assert_eq!(all[0].tokens().len(), 31);
    // One that is shorter frees nothing that it needs, one that is gone does.
    all[1].rewind(0);
    good(step(&mut engine, &mut all[..1], &[Input::prompt(&short, TOP)]));
    assert_eq!(all[0].tokens().len(), 34);
}

/// Logits of all tokens, beside other texts.
#[test]
fn each_text_is_read_as_it_asks() {
    let gpu = common::open(LimitProfile::Baseline);
    let mut engine = load(gpu, &tiny("tiny", 2), TOGETHER, Placement::WHOLE);
    let prompts = [[5, 6, 7], [200, 100, 50], [9, 9, 9], [1, 2, 3]];
    let reads = [Readback::Logits, Readback::AllLogits, Readback::Nothing, Readback::Top(2)];
    let inputs: Vec<Input<'_>> = prompts
        .iter()
        .zip(reads)
        .map(|(prompt, read)| Input::prompt(prompt, read).with_routes(true))
        .collect();
    let alone: Vec<StepOutput> = inputs
        .iter()
        .map(|&input| good(step(&mut engine, &mut texts::<1>(), &[input])).remove(0))
        .collect();
    let mut all = texts::<4>();
    assert_eq!(good(step(&mut engine, &mut all, &inputs)), alone);
    assert_eq!(alone[1].rows.len(), 3);
    assert_eq!([0, 1, 2, 3].map(|i: usize| alone[i].routes.len()), [1, 3, 0, 1]);
    assert_eq!([0, 3].map(|i: usize| alone[i].candidates.len()), [256, 2]);
    // Generated tokens, read in other ways than before.
    let ids = [20, 30, 40, 50];
    let reads = [Readback::Top(4), Readback::Top(1), Readback::Logits, Readback::Nothing];
    let inputs: Vec<Input<'_>> = ids
        .iter()
        .zip(reads)
        .map(|(id, read)| Input::generated(id, read).with_routes(true))
        .collect();
    let together = good(step(&mut engine, &mut all, &inputs));
    for ((prompt, &input), output) in prompts.iter().zip(&inputs).zip(&together) {
        let mut text = texts::<1>();
        good(step(&mut engine, &mut text, &[Input::prompt(prompt, Readback::Nothing)]));
        assert_eq!(good(step(&mut engine, &mut text, &[input])), std::slice::from_ref(output));
    }
}

/// Pages that somebody else gives out: a text that begins with what another one has computed as a
/// prompt has the bits that it has alone.
#[test]
fn texts_share_the_pages_that_are_lent_to_them() {
    let gpu = common::open(LimitProfile::Baseline);
    let options = TOGETHER.with_cache_positions(288);
    let mut engine = load(gpu, &tiny("tiny", 2), options, Placement::WHOLE);
    let prompt: Vec<u32> = (0..70).map(|i| i * 37 % 256).collect();
    let other: Vec<u32> = prompt[..64].iter().copied().chain([1, 2, 3]).collect();
    let mut whole = |ids: &[u32]| block_on(engine.logits(&mut Sequence::new(), ids));
    let want = [&prompt, &other].map(|ids| whole(ids).expect("runs"));

    let mut first = Sequence::new();
    engine.lend(&mut first, &[4, 0, 7]).expect("they are there");
    assert_eq!(block_on(engine.logits(&mut first, &prompt)).expect("runs"), want[0]);
    let mut second = Sequence::of([(Kind::Prompt, &prompt[..64])]);
    engine.lend(&mut second, &[4, 0, 2]).expect("they are there");
    // Both go on, in one step.
    let inputs = [Input::generated(&9, TOP), Input::prompt(&other[64..], Readback::Logits)];
    let mut both = [first, second];
    let outputs = good(step(&mut engine, &mut both, &inputs));
    let logits: Vec<f32> = outputs[1].candidates.iter().map(|found| found.logit).collect();
    assert_eq!(logits, want[1]);
    let [mut first, second] = both;
    drop(second);
    // 71 tokens, and room for 96.
    for _ in 71..96 {
        block_on(engine.prefill(&mut first, &[5], Readback::Nothing, false)).expect("room");
    }
    first.rewind(64);
    let tail = &prompt[64..];
    assert_eq!(block_on(engine.logits(&mut first, tail)).expect("runs"), want[0]);
    engine.lend(&mut first, &[4, 0]).expect("they are there");
    let error = block_on(engine.logits(&mut first, &[1])).expect_err("the third page is gone");
    assert!(error.to_string().contains("3 pages of the cache, and 2 were lent"), "{error}");
    let error = engine.lend(&mut first, &[9]).expect_err("there are nine");
    assert!(error.to_string().contains("page 9 of a cache that has 9"), "{error}");
}

/// A model whose embedding of one token is not a number.
#[derive(Clone)]
struct Spoiled(Synthetic);

const BAD: u32 = 77;

impl Weights for Spoiled {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.0.dtype(name)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        self.0.read_rows(name, row0, rows, into).await?;
        let bad = u64::from(BAD);
        if name == EMBEDDING && (row0..row0 + rows).contains(&bad) {
            let row = into.len() / usize::try_from(rows).expect("few rows");
            let at = row * usize::try_from(bad - row0).expect("few rows");
            into[at..at + 2].copy_from_slice(&half::bf16::NAN.to_le_bytes());
        }
        Ok(())
    }
}

/// The tokens of three texts, of which the second is not finite, and the same without it.
fn fails_alone<M: Machine>(open: impl Fn() -> M, config: &Config, placement: Placement) {
    let weights = Spoiled(Synthetic::new(config, DType::BF16, 7).expect("weights"));
    let load = || {
        let mut progress = |_| Ok(());
        let load =
            Engine::load_placed(open(), config, &weights, TOGETHER, placement, &mut progress);
        block_on(load).expect("loads")
    };
    let (mut engine, mut other) = (load(), load());
    let (mut all, mut few) = (texts::<3>(), texts::<3>());
    let prompts = [[5, 6, 7], [8, BAD, 9], [1, 2, 3]];
    let inputs = prompts.each_ref().map(|ids| Input::prompt(ids, TOP));
    let fails = |outputs: &[Result<StepOutput>], want: &[StepOutput], what: &str| {
        assert_eq!(
            outputs[1].as_ref().map_err(grok_wgpu::Error::code),
            Err("non_finite"),
            "{what}"
        );
        assert_eq!(outputs[0].as_ref().ok(), Some(&want[0]), "{what}");
        assert_eq!(outputs[2].as_ref().ok(), Some(&want[2]), "{what}");
    };
    let good_ids = [8, 9, 10];
    let fine = [inputs[0], Input::prompt(&good_ids, TOP), inputs[2]];
    let want = good(step(&mut other, &mut few, &fine));
    let outputs = step(&mut engine, &mut all, &inputs);
    fails(&outputs, &want, "prompts");
    assert_eq!(all.each_ref().map(|text| text.tokens().len()), [3, 0, 3]);
    // The text is as it was, and may go on with other tokens.
    let second = good(step(&mut engine, &mut all[1..2], &fine[1..2]));
    assert_eq!(second[0], want[1]);

    let ids = [20, BAD, 30];
    let inputs = ids.each_ref().map(|id| Input::generated(id, TOP));
    let fine = [inputs[0], Input::generated(&40, TOP), inputs[2]];
    let want = good(step(&mut other, &mut few, &fine));
    let outputs = step(&mut engine, &mut all, &inputs);
    fails(&outputs, &want, "generated tokens");
    assert_eq!(all.each_ref().map(|text| text.tokens().len()), [4, 3, 4]);
    let second = good(step(&mut engine, &mut all[1..2], &fine[1..2]));
    assert_eq!(second[0], want[1]);
}

#[test]
fn a_text_that_is_not_finite_fails_alone() {
    // Its head has weights of its own: the table of the other small model would spoil all logits.
    fails_alone(Host::default, &tiny("tiny", 1), Placement::WHOLE);
    let open = || common::open(LimitProfile::Baseline);
    for placement in [Placement::WHOLE, Placement::least(Slots::Shared(2))] {
        fails_alone(open, &tiny("tiny", 2), placement);
    }
}
