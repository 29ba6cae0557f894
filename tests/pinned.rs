//! Models of which parts lie in pinned memory of the host: equal bits wherever weights lie, no more
//! submissions for a token, and drivers that refuse such memory.

mod common;
#[path = "common/placed.rs"]
mod placed;

use grok_wgpu::lab::{
    base::tensor::DType,
    checkpoint::Synthetic,
    engine::{session::Session, step::Readback},
    machine::{
        BufferRole, Machine, Transfer,
        counting::DeviceLimits,
        gpu::{Gpu, LimitProfile, Refusal},
        host::Host,
    },
    measure::capacity::Planner,
    model::{Pinned, Placement, Slots},
};
use placed::{LAYERS, SIZES, TOKENS, bits, configs, counted, load};
use pollster::block_on;

/// The adapter under test, which need not be a discrete GPU.
fn pinning() -> Gpu {
    let choice = common::choice();
    let open = Gpu::open_pinning(&choice, LimitProfile::Baseline);
    let gpu = block_on(open).expect("tests need an adapter");
    assert!(gpu.pins(), "{} cannot read memory of the host", gpu.caps().name);
    gpu
}

/// Places in which parts or all of a model are pinned, with and without parts in the files.
fn placements() -> Vec<Placement> {
    let pinned = |attention, dense, experts| Pinned { attention, dense, experts };
    let least = |slots, pinned| Placement { pinned, ..Placement::least(slots) };
    let shared = Slots::Shared(3);
    vec![
        least(Slots::Shared(2), Pinned::REST),
        least(Slots::Each(4), Pinned::REST),
        Placement { pinned: Pinned::REST, experts: 1, slots: shared, ..Placement::WHOLE },
        Placement { pinned: Pinned::REST, dense: 1, experts: 0, slots: shared, ..Placement::WHOLE },
        // Device, pinned and file by turns.
        Placement { attention: 1, ..least(shared, pinned(1, 2, 1)) },
        least(shared, pinned(LAYERS, LAYERS, 1)),
        least(Slots::Each(2), pinned(1, 0, 2)),
        least(shared, pinned(0, 1, 0)),
    ]
}

/// With `every` of 2, half of the placements.
fn every_placement_gives_the_bits_of_the_whole(dtype: DType, every: usize, binding: Option<u64>) {
    let mut gpu = pinning();
    if let Some(bytes) = binding {
        gpu.limit_bindings(bytes);
    }
    for (name, config) in configs() {
        let weights = Synthetic::new(&config, dtype, 11).expect("weights");
        let mut whole = load(&mut gpu, &config, &weights, Placement::WHOLE);
        let cuts = whole.model().cuts();
        assert_eq!(cuts > 0, binding.is_some(), "{name} {dtype}: {cuts} cuts");
        let want = bits(&mut whole).expect("runs");
        drop(whole);
        gpu.truncate(0);
        for placement in placements().into_iter().step_by(every) {
            let here = format!("{name} {dtype} {placement:?}");
            let mut session = load(&mut gpu, &config, &weights, placement);
            assert!(session.model().pinned_bytes() > 0 || name != "beside a dense MLP");
            assert!(bits(&mut session).expect("runs") == want, "{here}: other bits or routes");
            // Once more, with whatever is in the slots by now.
            assert!(bits(&mut session).expect("runs") == want, "{here}: other bits again");
            let moved = session.moved();
            assert_eq!(moved.copied > 0, session.model().pinned_bytes() > 0, "{here}");
            if placement.pinned == Pinned::REST {
                assert_eq!((moved.bytes, moved.experts), (0, 0), "{here}");
            }
            drop(session);
            gpu.truncate(0);
        }
    }
}

#[test]
fn every_placement_gives_the_bits_of_the_whole_in_bf16() {
    every_placement_gives_the_bits_of_the_whole(DType::BF16, 1, None);
}

#[test]
fn every_placement_gives_the_bits_of_the_whole_in_q8_and_q4() {
    every_placement_gives_the_bits_of_the_whole(DType::Q8, 2, None);
    every_placement_gives_the_bits_of_the_whole(DType::Q4, 2, None);
}

#[test]
fn every_placement_gives_the_bits_of_the_whole_that_limits_cut() {
    every_placement_gives_the_bits_of_the_whole(DType::Q4, 2, Some(16 << 10));
}

#[test]
fn the_host_pins_like_a_device() {
    let (_, config) = &configs()[0];
    let weights = Synthetic::new(config, DType::Q8, 11).expect("weights");
    let want = bits(&mut load(Host::default(), config, &weights, Placement::WHOLE));
    let pinned = Placement { pinned: Pinned::REST, ..Placement::least(Slots::Shared(2)) };
    let got = bits(&mut load(Host::default(), config, &weights, pinned));
    assert!(got.expect("runs") == want.expect("runs"));
}

/// A generated token reads pinned weights in place: nothing is copied, and what is pinned takes
/// neither a submission nor a readback.
#[test]
fn a_token_is_one_submission_whatever_is_pinned() {
    let (_, config) = &configs()[0];
    let weights = Synthetic::new(config, DType::Q4, 11).expect("weights");
    let layers = u64::from(LAYERS);
    let rest = Placement { pinned: Pinned::REST, ..Placement::least(Slots::Shared(2)) };
    let some = Pinned { experts: 1, ..Pinned::REST };
    for (placement, partial) in [
        (rest, 0),
        (Placement { dense: 1, attention: 2, ..rest }, 0),
        (Placement { pinned: some, ..rest }, layers - 1),
    ] {
        let mut session = load(pinning(), config, &weights, placement);
        let prompt: Vec<u32> = (0..24).map(|i| i * 7 % 256).collect();
        block_on(session.prefill(&prompt, Readback::Top(1))).expect("runs");
        block_on(session.decode(9, Readback::Top(1))).expect("runs");
        let copied = session.moved().copied;
        for id in TOKENS {
            let (counts, [experts, found, matrices, _]) = counted(&mut session, |session| {
                block_on(session.decode(id, Readback::Top(1))).expect("runs");
            });
            assert_eq!(counts, [partial + 1, partial + 1], "{placement:?}");
            let chosen = u64::from(config.num_experts_per_tok());
            assert_eq!((experts + found, matrices), (partial * chosen, 0), "{placement:?}");
        }
        assert_eq!(session.moved().copied, copied, "{placement:?}: a token copied");
        let made = session.machine().made();
        block_on(session.decode(1, Readback::Top(1))).expect("runs");
        assert_eq!(session.machine().made(), made, "{placement:?}: something was made");
    }
}

/// A chunk of a prompt copies each matrix once, and each expert at most once.
#[test]
fn a_prompt_copies_each_weight_once() {
    let (_, config) = &configs()[0];
    let weights = Synthetic::new(config, DType::BF16, 11).expect("weights");
    let placement = Placement { pinned: Pinned::REST, ..Placement::least(Slots::Shared(3)) };
    let mut session = load(pinning(), config, &weights, placement);
    let all = session.model().pinned_bytes();
    let mut before = 0;
    for chunk in 0..3 {
        let prompt: Vec<u32> = (0..24).map(|i| (chunk * 31 + i * 7) % 256).collect();
        block_on(session.prefill(&prompt, Readback::Nothing)).expect("runs");
        let copied = session.moved().copied - before;
        assert!(copied <= all && copied * 10 > all * 7, "{copied} of {all} bytes");
        before += copied;
    }
}

#[test]
fn a_plan_of_a_placement_is_what_is_allocated() {
    for (name, config) in configs() {
        let weights = Synthetic::new(&config, DType::Q8, 11).expect("weights");
        for placement in placements() {
            let gpu = pinning();
            let limits = DeviceLimits::of(gpu.caps());
            let planner = Planner::placed(&config, &weights, limits, placement).expect("fits");
            let plan = planner.plan(SIZES).expect("fits");
            let mut session = load(gpu, &config, &weights, placement);
            let here = format!("{name} {placement:?}");
            assert_eq!(session.model().bytes(), plan.weights, "{here}");
            assert_eq!(session.model().pinned_bytes(), plan.pinned, "{here}");
            block_on(session.prepare(1, Readback::Top(40))).expect("compiles");
            let machine = session.machine();
            let got = [machine.allocated_bytes(), machine.pinned_bytes()];
            assert!(got[0] <= plan.total(), "{here}: {got:?}, {}", plan.total());
            assert_eq!(got[1], plan.pinned, "{here}");
        }
    }
}

/// Whichever buffer of pinned memory is refused, what was pinned before stays, and the rest is
/// brought from the files.
#[test]
fn what_a_driver_refuses_to_pin_stays_in_the_files() {
    let (_, config) = &configs()[0];
    let weights = Synthetic::new(config, DType::Q4, 11).expect("weights");
    let placement = Placement { pinned: Pinned::REST, ..Placement::least(Slots::Shared(2)) };
    let mut gpu = pinning();
    let want = bits(&mut load(&mut gpu, config, &weights, Placement::WHOLE)).expect("runs");
    gpu.truncate(0);
    // The buffers of the device come first: all but those of what is pinned.
    let least = Placement::least(Slots::Shared(2));
    let limits = DeviceLimits::of(gpu.caps());
    let tensors = |placement| {
        let planner = Planner::placed(config, &weights, limits, placement).expect("fits");
        planner.plan(SIZES).expect("fits").tensors as u64
    };
    let pinned = tensors(placement) - tensors(least);
    let load_of = |gpu: &mut Gpu| -> Pinned {
        let mut session = load(gpu, config, &weights, placement);
        assert!(bits(&mut session).expect("runs") == want);
        let (model, moved) = (session.model().clone(), session.moved());
        assert_eq!(model.refused.is_some(), moved.bytes > 0);
        model.placement.pinned
    };
    let all = load_of(&mut gpu);
    assert_eq!(all, Pinned { attention: LAYERS, dense: LAYERS, experts: LAYERS });
    gpu.truncate(0);
    gpu.refuse(None);
    let model = grok_wgpu::lab::model::Model::placed(&mut gpu, config, &weights, placement);
    model.expect("fits");
    let [buffers, ..] = gpu.made();
    gpu.truncate(0);
    let mut seen = Vec::new();
    for n in buffers - pinned..buffers {
        gpu.refuse(Some(Refusal::Buffer(n)));
        seen.push(load_of(&mut gpu));
        gpu.refuse(None);
        gpu.truncate(0);
    }
    assert_eq!(seen.first(), Some(&Pinned::NOTHING));
    let sum = |of: &Pinned| of.attention + of.dense + of.experts;
    assert!(seen.is_sorted_by_key(sum) && seen.iter().all(|of| sum(of) < sum(&all)), "{seen:?}");
    seen.dedup();
    assert_eq!(seen.len(), 3 * LAYERS as usize, "{seen:?}");
}

#[test]
fn a_device_that_pins_nothing_says_so() {
    let (_, config) = &configs()[0];
    let weights = Synthetic::new(config, DType::Q4, 11).expect("weights");
    let placement = Placement { pinned: Pinned::REST, ..Placement::least(Slots::Shared(2)) };
    let mut gpu = common::open(LimitProfile::Baseline);
    if gpu.is_discrete() {
        assert!(gpu.pins());
        return;
    }
    assert!(!gpu.pins());
    let mut progress = |_| Ok(());
    let load = Session::load_placed(&mut gpu, config, &weights, SIZES, placement, &mut progress);
    let error = block_on(load).expect_err("it was not opened so");
    assert!(error.to_string().contains("was not opened to read memory of the host"), "{error}");
    assert_eq!((gpu.tensor_count(), gpu.pinned_bytes()), (0, 0));
}

/// Copies come after what was written before them, and before what comes later.
#[test]
fn copies_are_in_the_order_of_the_calls() {
    let mut gpu = pinning();
    let shape = [4, 64];
    let mut alloc = |role| gpu.alloc(role, DType::U32, shape.into()).expect("fits");
    let [from, to] = [alloc(BufferRole::Host), alloc(BufferRole::Storage)];
    let write = |gpu: &mut Gpu, tensor, word: u32| {
        gpu.write(tensor, 0, bytemuck::cast_slice(&[word; 256])).expect("written");
    };
    write(&mut gpu, to, 1);
    write(&mut gpu, from, 2);
    let row = |index: u64| (from, index * 256);
    let copies = [Transfer { from: row(1), to: (to, 256), bytes: 512 }];
    gpu.copy(&copies).expect("copied");
    write(&mut gpu, from, 3);
    let nothing = gpu.record(&mut |_| Ok(())).expect("recorded");
    let bytes = block_on(gpu.run_plan(&nothing, &[from, to])).expect("read");
    let words = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, u32>(bytes);
    assert_eq!(words(&bytes[0]), [3; 256]);
    assert_eq!(words(&bytes[1]), [[1; 64], [2; 64], [2; 64], [1; 64]].concat());
    // What is outside is refused.
    for (from, to, bytes) in [((from, 768), (to, 0), 512), ((from, 0), (to, 1024), 4)] {
        let error = gpu.copy(&[Transfer { from, to, bytes }]).expect_err("outside");
        assert_eq!(error.code(), "limit", "{error}");
    }
}
