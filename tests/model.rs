//! Whole models on the adapter under test: limits, shards, counters, consistency between
//! configurations.

mod common;

use grok_wgpu::lab::{
    base::{
        error::Result,
        tensor::{DType, Shape},
    },
    checkpoint::Synthetic,
    engine::{SessionOptions, session::Session, step::Readback},
    kernels::{CACHES, RopeCache},
    machine::{
        BufferRole, Machine as _,
        gpu::{AdapterChoice, Gpu, LimitProfile, Refusal},
        host::Host,
        step::{self, RECORDS, STEP_LEN},
    },
    model::config::Config,
    variants::Tuning,
};
use pollster::block_on;

/// A prompt longer than `attn_temperature_len` and than a chunk.
const IDS: [u32; 44] = [
    11, 48, 85, 122, 159, 196, 233, 14, 51, 88, 125, 162, 199, 236, 17, 54, 91, 128, 165, 202, 239,
    20, 57, 94, 131, 168, 205, 242, 23, 60, 97, 134, 171, 208, 245, 26, 63, 100, 137, 174, 211,
    248, 29, 66,
];

fn session(gpu: Gpu, config: &Config, sizes: SessionOptions) -> Session<Gpu> {
    let weights = Synthetic::new(config, DType::BF16, 7).expect("weights");
    block_on(Session::load(gpu, config, &weights, sizes, &mut |_| Ok(()))).expect("loads")
}

fn tiny(name: &str) -> Config {
    Config::preset(name).expect("the preset is there")
}

/// Logits after a prompt, and after one more token.
fn logits(session: &mut Session<Gpu>) -> Result<Vec<f32>> {
    let mut all = block_on(session.prefill(&IDS, Readback::Logits))?.candidates;
    all.extend(block_on(session.decode(3, Readback::Logits))?.candidates);
    Ok(all.iter().map(|c| c.logit).collect())
}

fn greedy(session: &mut Session<Gpu>, count: usize) -> Result<Vec<(u32, f32)>> {
    let mut reply = block_on(session.prefill(&IDS[..7], Readback::Top(2)))?;
    let mut chosen = Vec::new();
    for _ in 0..count {
        let [best, second] = reply.candidates[..] else { panic!("two candidates were asked for") };
        chosen.push((best.id, best.logit - second.logit));
        reply = block_on(session.decode(best.id, Readback::Top(2)))?;
    }
    Ok(chosen)
}

#[test]
fn baseline_limits_give_the_same_logits_as_all_limits() -> Result<()> {
    for name in ["tiny", "tiny-grok-1"] {
        let config = tiny(name);
        let sizes = SessionOptions::new(64, 256, DType::F32);
        let full = logits(&mut session(common::open(LimitProfile::Full), &config, sizes))?;
        let baseline = common::open(LimitProfile::Baseline);
        assert_eq!(baseline.caps().max_binding_bytes(), 128 << 20);
        let base = logits(&mut session(baseline, &config, sizes))?;
        for (a, b) in full.iter().zip(&base) {
            assert!((a - b).abs() <= 1e-5, "{name}: {a} with all limits, {b} with the defaults");
        }
    }
    Ok(())
}

#[test]
fn sharded_weights_and_caches_give_the_same_bits() -> Result<()> {
    for name in ["tiny", "tiny-grok-1"] {
        let config = tiny(name);
        // Longer than one split of attention, so that the cache can be cut into shards.
        let sizes = SessionOptions::new(300, 64, DType::F32);
        let mut whole = session(common::open(LimitProfile::Baseline), &config, sizes);
        let mut gpu = common::open(LimitProfile::Baseline);
        gpu.limit_bindings(16 << 10);
        let mut cut = session(gpu, &config, sizes);
        assert_eq!(whole.model().cuts(), 0);
        assert!(cut.model().cuts() > 20, "{} cuts", cut.model().cuts());
        let prompt: Vec<u32> = IDS.iter().copied().cycle().take(250).collect();
        for session in [&mut whole, &mut cut] {
            block_on(session.prefill(&prompt, Readback::Nothing))?;
        }
        let a = logits_of(&mut whole)?;
        let b = logits_of(&mut cut)?;
        // Products of rows are the same wherever a matrix is cut. Attention's splits differ in
        // prefill.
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 2e-5, "{name}: {a} whole, {b} in shards");
        }
    }
    Ok(())
}

/// In a cache of F16 or Q8, tiny differences between splits become whole rounding steps. In decode,
/// all splits have one length wherever the cache is cut, so the bits must be equal.
#[test]
fn sharded_caches_of_fewer_bits_give_the_same_bits() -> Result<()> {
    let config = tiny("tiny");
    for cache in [DType::F16, DType::Q8] {
        let sizes = SessionOptions::new(300, 4, cache);
        // A matrix that is cut runs other programs than a whole one. With one lane for each row,
        // compilers cannot choose an order of sums.
        let [mut small, mut large] = [0, 1].map(|_| common::open(LimitProfile::Baseline));
        small.limit_bindings(8 << 10);
        small.set_tuning(Tuning::cpu());
        large.set_tuning(Tuning::cpu());
        let mut cut = session(small, &config, sizes);
        let mut whole = session(large, &config, sizes);
        for at in 0..140 {
            for session in [&mut whole, &mut cut] {
                block_on(session.decode(IDS[at % IDS.len()], Readback::Nothing))?;
            }
        }
        assert_eq!(logits_of(&mut whole)?, logits_of(&mut cut)?, "a cache of {cache}");
    }
    Ok(())
}

fn logits_of(session: &mut Session<Gpu>) -> Result<Vec<f32>> {
    Ok(block_on(session.decode(5, Readback::Logits))?.candidates.iter().map(|c| c.logit).collect())
}

#[test]
fn chunks_of_any_size_give_the_same_bits() -> Result<()> {
    let config = tiny("tiny");
    for cache in CACHES {
        let mut first: Option<Vec<f32>> = None;
        // 300 has plans of 32, 256 and 300 rows.
        for prefill in [1, 5, 32, 33, 256, 300] {
            let sizes = SessionOptions::new(64, prefill, cache);
            let now = logits(&mut session(common::open(LimitProfile::Baseline), &config, sizes))?;
            match &first {
                None => first = Some(now),
                Some(first) => assert_eq!(*first, now, "chunks of {prefill}, a cache of {cache}"),
            }
        }
    }
    Ok(())
}

/// Prompts of several lengths take plans of several lengths, which share buffers: what longer ones
/// leave in them must not matter.
#[test]
fn plans_of_any_length_give_the_same_bits() -> Result<()> {
    let config = tiny("tiny");
    let prompt: Vec<u32> = IDS.iter().copied().cycle().take(290).collect();
    let after = |session: &mut Session<Gpu>, length: usize| -> Result<Vec<f32>> {
        session.rewind(0);
        let reply = block_on(session.prefill(&prompt[..length], Readback::Logits))?;
        Ok(reply.candidates.iter().map(|candidate| candidate.logit).collect())
    };
    let open = |prefill| {
        let sizes = SessionOptions::new(300, prefill, DType::F32);
        session(common::open(LimitProfile::Baseline), &config, sizes)
    };
    let (mut short, mut long) = (open(32), open(300));
    let mut dispatches = Vec::new();
    for length in [290, 3, 200, 290, 40] {
        assert_eq!(after(&mut short, length)?, after(&mut long, length)?, "{length} tokens");
        dispatches.push(long.machine().counters().bytes_bound);
    }
    // A short prompt does not bind what a long one does.
    let each: Vec<u64> = dispatches.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(each[0] < each[1] && each[1] < each[2], "{each:?}");
    // The buffers of all lengths are those of the longest.
    let sizes = [32, 256, 300].map(|prefill| open(prefill).machine().allocated_bytes());
    let per_row = (sizes[1] - sizes[0]) as f64 / 224.0;
    let more = (sizes[2] - sizes[1]) as f64 / 44.0;
    assert!((more / per_row - 1.0).abs() < 0.1, "{sizes:?}");
    Ok(())
}

/// What is true of short chunks is of long ones.
#[test]
fn a_long_chunk_is_several_submissions_where_it_would_take_too_long() -> Result<()> {
    let config = tiny("tiny").with_layers(1);
    let prompt: Vec<u32> = IDS.iter().copied().cycle().take(1024).collect();
    let run = |seconds| -> Result<(Vec<f32>, u64)> {
        let mut gpu = common::open(LimitProfile::Baseline);
        gpu.limit_submissions(seconds);
        let mut session = session(gpu, &config, SessionOptions::new(1024, 1024, DType::F32));
        let reply = block_on(session.prefill(&prompt, Readback::Logits))?;
        let logits = reply.candidates.iter().map(|candidate| candidate.logit).collect();
        Ok((logits, session.machine().counters().submissions))
    };
    let (whole, one) = run(None)?;
    // A device that was not measured is taken to be slow.
    let (divided, several) = run(Some(0.01))?;
    assert_eq!((one, divided), (1, whole));
    assert!(several > 4, "{several}");
    Ok(())
}

#[test]
fn the_adapter_decides_how_long_chunks_are_and_the_context_ends_them() {
    let gpu = common::open(LimitProfile::Baseline);
    assert!(gpu.caps().is_cpu && !gpu.caps().is_discrete(), "{}", gpu.caps().describe());
    let chunk = |context| SessionOptions::new(context, 1, DType::Q8).on(&gpu);
    assert_eq!(chunk(4096), SessionOptions::new(4096, SessionOptions::PREFILL, DType::Q8));
    assert_eq!(chunk(100).prefill, 100);
}

#[test]
fn an_engine_takes_other_sizes_and_keeps_its_weights() -> Result<()> {
    let config = tiny("tiny");
    let sizes = SessionOptions::new(64, 40, DType::F32);
    let mut session = session(common::open(LimitProfile::Baseline), &config, sizes);
    let before = logits(&mut session)?;
    let bytes = session.machine().allocated_bytes();
    session.resize(SessionOptions::new(640, 512, DType::F32))?;
    assert!(session.machine().allocated_bytes() > bytes && session.tokens().is_empty());
    assert_eq!(logits(&mut session)?, before);
    // What is refused leaves the sizes from before.
    let wrong = SessionOptions::new(1 << 20, 512, DType::F32);
    assert!(session.resize(wrong).is_err());
    session.machine_mut().refuse(Some(Refusal::Buffer(9)));
    let more = SessionOptions::new(700, 512, DType::F32);
    let error = session.resize(more).expect_err("memory is out");
    session.machine_mut().refuse(None);
    assert_eq!(error.code(), "out_of_memory");
    assert_eq!(session.options().context, 640);
    assert_eq!(logits(&mut session)?, before);
    Ok(())
}

#[test]
fn a_token_is_one_submission_and_reads_back_only_its_candidates() -> Result<()> {
    let config = tiny("tiny");
    let sizes = SessionOptions::new(64, 32, DType::F32);
    let mut session = session(common::open(LimitProfile::Baseline), &config, sizes);
    block_on(session.prefill(&IDS, Readback::Nothing))?;
    let before = session.machine().counters();
    assert_eq!((before.submissions, before.read_backs), (2, 0), "a prompt of two chunks");
    for id in 0..5 {
        block_on(session.decode(id, Readback::Top(1)))?;
    }
    let after = session.machine().counters();
    assert_eq!(after.submissions - before.submissions, 5);
    assert_eq!(after.read_backs - before.read_backs, 5);
    assert_eq!(after.read_back_bytes - before.read_back_bytes, 5 * 8, "a value and an id each");
    Ok(())
}

/// Runs a token, and returns its candidates, and how many of its submissions were encoded before.
fn decoded(session: &mut Session<Gpu>, id: u32, read: Readback) -> Result<(Vec<f32>, u64, u64)> {
    let before = session.machine().counters();
    let reply = block_on(session.decode(id, read))?;
    let counted = session.machine().counters() - before;
    let logits = reply.candidates.iter().map(|candidate| candidate.logit).collect();
    Ok((logits, counted.submissions, counted.encoded_ahead))
}

#[test]
fn a_token_is_encoded_while_the_one_before_runs_and_has_the_same_bits() -> Result<()> {
    let config = tiny("tiny");
    let sizes = SessionOptions::new(64, 32, DType::F32);
    let run = |on: bool| -> Result<Vec<_>> {
        let mut gpu = common::open(LimitProfile::Baseline);
        gpu.encode_ahead(on);
        let mut session = session(gpu, &config, sizes);
        block_on(session.prefill(&IDS, Readback::Nothing))?;
        (0..6).map(|id| decoded(&mut session, 40 * id, Readback::Top(3))).collect()
    };
    let (each, ahead) = (run(false)?, run(true)?);
    let counted = |runs: &[(Vec<f32>, u64, u64)]| -> Vec<(u64, u64)> {
        runs.iter().map(|&(_, submissions, ahead)| (submissions, ahead)).collect()
    };
    assert_eq!(counted(&each), [(1, 0); 6]);
    assert_eq!(counted(&ahead), [(1, 0), (1, 0), (1, 1), (1, 1), (1, 1), (1, 1)]);
    for (at, (each, ahead)) in each.iter().zip(&ahead).enumerate() {
        assert_eq!(each.0, ahead.0, "token {at}");
    }
    Ok(())
}

#[test]
fn what_was_encoded_ahead_is_dropped_where_it_does_not_fit() -> Result<()> {
    const READ: Readback = Readback::Top(1);
    type Between = fn(&mut Session<Gpu>) -> Result<()>;
    let config = tiny("tiny");
    let sizes = SessionOptions::new(200, 32, DType::F32);
    let cases: [(&str, Between, u64); 7] = [
        ("nothing", |_| Ok(()), 1),
        ("a prompt", |s| block_on(s.prefill(&[5], Readback::Nothing)).map(drop), 0),
        ("another readback", |s| block_on(s.decode(5, Readback::Logits)).map(drop), 0),
        (
            "routes as well",
            |s| {
                s.report_routes(true);
                Ok(())
            },
            0,
        ),
        (
            "memory that is freed",
            |s| {
                let gpu = s.machine_mut();
                let keep = gpu.tensor_count();
                gpu.alloc(BufferRole::Storage, DType::F32, [1].into())?;
                gpu.truncate(keep);
                Ok(())
            },
            0,
        ),
        (
            "a larger result",
            |s| {
                let gpu = s.machine_mut();
                let large = gpu.alloc(BufferRole::Storage, DType::F32, [1 << 12].into())?;
                block_on(gpu.read_buffers(&[large])).map(drop)
            },
            0,
        ),
        (
            "shorter submissions",
            |s| {
                s.machine_mut().limit_submissions(Some(0.0));
                Ok(())
            },
            0,
        ),
    ];
    for (what, between, used) in cases {
        let [mut with, mut without] = [true, false].map(|on| {
            let mut gpu = common::open(LimitProfile::Baseline);
            gpu.encode_ahead(on);
            session(gpu, &config, sizes)
        });
        for session in [&mut with, &mut without] {
            block_on(session.prefill(&IDS, Readback::Nothing))?;
            for id in [3, 77, 201] {
                decoded(session, id, READ)?;
            }
            between(session)?;
        }
        let (logits, submissions, ahead) = decoded(&mut with, 9, READ)?;
        assert_eq!(ahead, used, "{what}");
        assert_eq!((logits, submissions, 0), decoded(&mut without, 9, READ)?, "{what}");
        // After two tokens it is used again, whatever the submissions are.
        decoded(&mut with, 10, READ)?;
        let (_, submissions, ahead) = decoded(&mut with, 11, READ)?;
        assert_eq!(ahead, submissions, "{what}");
        assert!(what != "shorter submissions" || submissions > 10, "{submissions}");
    }
    Ok(())
}

#[test]
fn a_device_that_is_lost_with_commands_encoded_ahead_is_lost() -> Result<()> {
    let config = tiny("tiny");
    let sizes = SessionOptions::new(64, 32, DType::F32);
    let mut session = session(common::open(LimitProfile::Baseline), &config, sizes);
    for id in 0..3 {
        block_on(session.decode(id, Readback::Top(1)))?;
    }
    session.machine().destroyer()();
    for id in 0..2 {
        let error = block_on(session.decode(id, Readback::Top(1))).expect_err("it is destroyed");
        assert_eq!(error.code(), "device_lost", "{error}");
    }
    Ok(())
}

#[test]
fn a_layer_takes_twelve_dispatches() -> Result<()> {
    // Grok-1 has experts only, and no dense MLP beside them.
    for (name, decode, prefill) in [("tiny", 12, 12), ("tiny-grok-1", 10, 10)] {
        let mut per_model = Vec::new();
        for layers in [1, 2] {
            let config = tiny(name).with_layers(layers);
            let sizes = SessionOptions::new(64, 32, DType::F32);
            let mut session = session(common::open(LimitProfile::Baseline), &config, sizes);
            per_model.push([
                session.decode_plan(Readback::Top(1))?.dispatches(),
                session.prefill_plan(Readback::Top(1))?.dispatches(),
            ]);
        }
        let layer = [0, 1].map(|phase| per_model[1][phase] - per_model[0][phase]);
        assert_eq!(layer, [decode, prefill], "{name}: dispatches a layer");
    }
    Ok(())
}

#[test]
fn both_adapters_choose_the_same_64_tokens() -> Result<()> {
    // A difference at a near tie is printed and ends the comparison, as texts diverge after it.
    const NEAR: f32 = 1e-3;
    let adapters = block_on(grok_wgpu::lab::machine::gpu::adapters());
    assert!(!adapters.is_empty(), "tests need an adapter");
    let config = tiny("tiny");
    let sizes = SessionOptions::new(128, 32, DType::F32);
    let mut texts = Vec::new();
    for (index, adapter) in adapters.iter().enumerate() {
        let choice = AdapterChoice::Named(index.to_string());
        let gpu = block_on(Gpu::open(&choice, LimitProfile::Baseline))?;
        texts.push((&adapter.description, greedy(&mut session(gpu, &config, sizes), 64)?));
    }
    let (first_name, first) = &texts[0];
    for (name, text) in &texts[1..] {
        for (at, (a, b)) in first.iter().zip(text).enumerate() {
            if a.0 == b.0 {
                continue;
            }
            let tie = a.1.min(b.1);
            assert!(
                tie < NEAR,
                "token {at}: {first_name} chose {}, {name} chose {}, \
                 and the best two are {tie} apart",
                a.0,
                b.0
            );
            eprintln!("{first_name} and {name} part at token {at}, a near tie ({tie:e})");
            break;
        }
    }
    Ok(())
}

#[test]
fn a_text_can_be_taken_back_and_told_again() -> Result<()> {
    let config = tiny("tiny");
    let sizes = SessionOptions::new(64, 32, DType::F32);
    let mut session = session(common::open(LimitProfile::Baseline), &config, sizes);
    let first = logits(&mut session)?;
    session.rewind(0);
    assert_eq!(first, logits(&mut session)?);
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_before_it_runs() {
    let config = tiny("tiny");
    let sizes = SessionOptions::new(16, 32, DType::F32);
    let mut session = session(common::open(LimitProfile::Baseline), &config, sizes);
    let error =
        block_on(session.prefill(&IDS, Readback::Nothing)).expect_err("44 do not fit in 16");
    assert_eq!(error.code(), "context_length_exceeded");
    let error = block_on(session.prefill(&[256], Readback::Nothing)).expect_err("no such id");
    assert!(error.to_string().contains("256"), "{error}");
    let error = block_on(session.prefill(&[], Readback::Nothing)).expect_err("nothing to run");
    assert_eq!(error.exit_code(), 2);
    assert!(block_on(session.prefill(&IDS[..16], Readback::Nothing)).is_ok(), "still usable");
}

#[test]
fn a_cache_that_heads_do_not_fit_is_refused() {
    for (head_dim, cache, what) in [
        (12, DType::F16, "a multiple of 8"),
        (24, DType::Q8, "a multiple of 16"),
        (16, DType::BF16, "expected one of [F32, F16, Q8]"),
    ] {
        let config = tiny("tiny").with_head_dim(head_dim);
        let weights = Synthetic::new(&config, DType::F32, 0).expect("weights");
        let sizes = SessionOptions::new(16, 32, cache);
        let gpu = common::open(LimitProfile::Baseline);
        let loaded = block_on(Session::load(gpu, &config, &weights, sizes, &mut |_| Ok(())));
        let error = loaded.expect_err("it does not fit");
        assert!(error.exit_code() == 2 && error.to_string().contains(what), "{error}");
    }
}

/// NaN and infinity must stay non-finite in the cache: finite values would hide the fault.
#[test]
fn a_cache_shows_what_is_not_finite() -> Result<()> {
    const DIM: usize = 32;
    for (cache, seen) in [
        // Rotary embeddings combine a key's element with the one half a head away.
        (DType::F32, [&[3, 19][..], &[5]]),
        (DType::F16, [&[3, 19], &[5]]),
        // The elements of a block share a scale.
        (DType::Q8, [&[3, 19, 31], &[5, 31]]),
    ] {
        let mut gpu = common::open(LimitProfile::Baseline);
        let mut host = Host::default();
        let mut qkv = vec![0.5f32; 3 * DIM];
        qkv[DIM + 3] = f32::NAN;
        qkv[2 * DIM + 5] = f32::INFINITY;
        let angles = [[0.6f32, 0.8]; DIM / 2];
        let mut make = |role, dtype, shape: Shape| gpu.alloc(role, dtype, shape);
        let kernel = RopeCache {
            step: make(BufferRole::Uniform, DType::U32, [STEP_LEN].into())?,
            rows: make(BufferRole::Uniform, DType::U32, [RECORDS, 4].into())?,
            table: make(BufferRole::Storage, DType::U32, [1].into())?,
            qkv: make(BufferRole::Storage, DType::F32, [1, 96].into())?,
            cos_sin: make(BufferRole::Storage, DType::F32, [1, 32].into())?,
            q: make(BufferRole::Storage, DType::F32, [1, 1, 32].into())?,
            k: make(BufferRole::Storage, cache, [1, 32].into())?,
            v: make(BufferRole::Storage, cache, [1, 32].into())?,
            slot0: 0,
        };
        // All zeros: position 0, and page 0.
        gpu.write(kernel.step, 0, bytemuck::cast_slice(&step::header(1, 1)))?;
        gpu.write(kernel.qkv, 0, bytemuck::cast_slice(&qkv))?;
        gpu.write(kernel.cos_sin, 0, bytemuck::cast_slice(&angles))?;
        let plan = gpu.record(&mut |exec| exec.run(&kernel))?;
        let stored = [kernel.k, kernel.v];
        let bytes = block_on(gpu.run_plan(&plan, &stored))?;
        for ((tensor, bytes), seen) in stored.into_iter().zip(bytes).zip(seen) {
            host.place(tensor, &bytes);
            let values = host.floats(tensor);
            for &at in seen {
                assert!(!values[at].is_finite(), "{cache}: {at} is {}", values[at]);
            }
            let shown = values.iter().filter(|value| !value.is_finite()).count();
            let wanted = if cache == DType::Q8 { DIM } else { seen.len() };
            assert_eq!(shown, wanted, "{cache}: {values:?}");
        }
    }
    Ok(())
}

#[test]
fn a_cancelled_load_stops() {
    let config = tiny("tiny");
    let weights = Synthetic::new(&config, DType::F32, 0).expect("weights");
    let sizes = SessionOptions::new(16, 32, DType::F32);
    let gpu = common::open(LimitProfile::Baseline);
    let mut heard = 0;
    let result = block_on(Session::load(gpu, &config, &weights, sizes, &mut |_| {
        heard += 1;
        if heard == 3 { Err(grok_wgpu::lab::base::error::Error::Interrupted) } else { Ok(()) }
    }));
    assert!(matches!(result, Err(grok_wgpu::lab::base::error::Error::Interrupted)));
    assert_eq!(heard, 3);
}

#[test]
fn weights_that_are_not_numbers_are_reported() {
    #[derive(Clone)]
    struct Broken(Synthetic);
    impl grok_wgpu::lab::model::weights::Weights for Broken {
        fn dtype(&self, name: &str) -> Result<DType> {
            self.0.dtype(name)
        }
        async fn read_rows(
            &self,
            name: &str,
            row0: u64,
            rows: u64,
            into: &mut Vec<u8>,
        ) -> Result<()> {
            self.0.read_rows(name, row0, rows, into).await?;
            if name == "lm_head.weight" {
                into[..2].copy_from_slice(&half::bf16::NAN.to_le_bytes());
            }
            Ok(())
        }
    }
    let config = tiny("tiny");
    let weights = Broken(Synthetic::new(&config, DType::BF16, 0).expect("weights"));
    let sizes = SessionOptions::new(16, 32, DType::F32);
    let gpu = common::open(LimitProfile::Baseline);
    let mut session =
        block_on(Session::load(gpu, &config, &weights, sizes, &mut |_| Ok(()))).expect("loads");
    for read in [Readback::Top(1), Readback::Logits, Readback::AllLogits] {
        let error = block_on(session.prefill(&[1, 2], read)).expect_err("NaN is not a logit");
        assert_eq!(error.code(), "non_finite", "{read:?}");
    }
    assert!(session.machine_mut().max_binding_bytes() > 0);
}
