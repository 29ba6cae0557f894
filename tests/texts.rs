//! Several texts in one step: what a text gets has the same bits alone and among others, wherever
//! its pages lie, in whatever order the rows are, and however many positions a plan covers.

mod common;

use grok_wgpu::lab::{
    base::tensor::{DType, Tensor},
    kernels::{Attention, AttentionMerge, CACHES, RopeCache},
    machine::{
        BufferRole, Machine as _,
        gpu::{Gpu, LimitProfile},
        host::Host,
        kernel::Kernel,
        step::{self, PAGE, RowRecord},
    },
    variants::{Form, Heads, Tuning},
};
use pollster::block_on;

/// Query heads, key heads, head size.
const HEADS: [u32; 3] = [6, 2, 32];
const WIDTH: u32 = HEADS[1] * HEADS[2];

/// Rows of a text that is in the cache up to the first of them.
#[derive(Clone, Copy, Debug)]
struct Text {
    /// What its numbers follow from.
    seed: u32,
    pos: u32,
    rows: u32,
}

impl Text {
    fn end(&self) -> u32 {
        self.pos + self.rows
    }
}

/// How texts lie in a step and in the cache.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Slots of a shard of the cache, which is also the length of a text's segments.
    segment: u32,
    /// Whether texts and pages lie in reverse.
    reversed: bool,
    /// Whether the texts' rows take turns.
    by_turns: bool,
    /// Positions that the plan covers beyond those that are there.
    spare: u32,
    /// Rows that are padding.
    padding: u32,
}

/// What tokens are, shortest split, and most rows of a tile.
#[derive(Clone, Copy, Debug)]
struct Phase {
    form: Form,
    least: u32,
    tile: u32,
}

/// A number between -1 and 1 that is always the same.
fn number(text: u32, position: u32, which: u32) -> f64 {
    let mut z = (u64::from(text) << 48) ^ (u64::from(position) << 20) ^ u64::from(which);
    for _ in 0..2 {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 29;
    }
    (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// What the kernels give a text: keys and values of its positions, and for each row the rotated
/// queries, maxima, sums and weighted sums of its splits, and the result.
type Bits = Vec<Vec<u32>>;

struct Run<'a> {
    gpu: &'a mut Gpu,
    host: Host,
}

impl Run<'_> {
    fn upload(&mut self, role: BufferRole, tensor: Tensor) -> Tensor {
        let there = self.gpu.alloc(role, tensor.dtype, tensor.shape).expect("it is small");
        self.gpu.write(there, 0, &self.host.bytes(tensor)).expect("it fits");
        there
    }

    fn floats(&mut self, shape: &[u32], values: Vec<f64>, dtype: DType) -> Tensor {
        let tensor = match *shape {
            [a] => self.host.floats_from(dtype, [a], values),
            [a, b] => self.host.floats_from(dtype, [a, b], values),
            _ => panic!("one or two extents"),
        };
        self.upload(BufferRole::Storage, tensor)
    }

    fn empty<const N: usize>(&mut self, shape: [u32; N]) -> Tensor {
        self.gpu.alloc(BufferRole::Storage, DType::F32, shape.into()).expect("it is small")
    }

    /// Runs rotation, attention and merge for these texts.
    fn texts(&mut self, texts: &[Text], layout: Layout, phase: Phase, cache: DType) -> Vec<Bits> {
        let [n_heads, _, dim] = HEADS;
        let placed = place(texts, layout);
        let order = rows(texts, &placed.first, layout);
        let tokens = u32::try_from(order.len()).expect("few rows") + layout.padding;
        let shards = self.cached(texts, &placed, layout, cache);
        let inputs = self.inputs(texts, &placed, &order, layout, phase);
        let Inputs { step, rows, tiles, table, qkv, cos_sin, temperature } = inputs;

        let end = texts.iter().map(Text::end).max().expect("there are texts");
        let positions = end + layout.spare;
        let splits = step::most_splits(positions, phase.least);
        let q = self.empty([tokens, n_heads, dim]);
        let acc = self.empty([tokens, n_heads, splits, dim]);
        let stats = self.empty([tokens, n_heads, splits, 2]);
        let out = self.empty([tokens, n_heads * dim]);
        let least = phase.least;
        let real_texts = u32::try_from(texts.len()).expect("few texts");
        let side_by_side = if layout.by_turns { tokens } else { real_texts };
        let mut kernels: Vec<Box<dyn Kernel>> = Vec::new();
        for (slot0, &[k, v]) in (0..).step_by(layout.segment as usize).zip(&shards) {
            kernels.push(Box::new(RopeCache { step, rows, table, qkv, cos_sin, q, k, v, slot0 }));
        }
        for (slot0, &[k, v]) in (0..).step_by(layout.segment as usize).zip(&shards) {
            kernels.push(Box::new(Attention {
                form: phase.form,
                step,
                tiles,
                table,
                q,
                k,
                v,
                temperature,
                tile: phase.tile,
                texts: side_by_side,
                positions,
                slot0,
                least,
                scale: 0.5,
                cap: 30.0,
                acc,
                stats,
            }));
        }
        kernels.push(Box::new(AttentionMerge { step, rows, acc, stats, least, out }));
        let plan = self
            .gpu
            .record(&mut |exec| kernels.iter().try_for_each(|kernel| exec.run(kernel.as_ref())))
            .expect("shapes agree");
        let mut read = vec![q, acc, stats, out];
        read.extend(shards.iter().flatten());
        let bytes = block_on(self.gpu.run_plan(&plan, &read)).expect("the device lives");
        self.gpu.truncate(0);
        let part = |text: usize| {
            let mut bits = cached_bits(&bytes[4..], &texts[text], text, &placed, layout, cache);
            bits.extend(row_bits(&bytes[..4], text, &order, splits, least));
            bits
        };
        (0..texts.len()).map(part).collect()
    }

    /// What the cache holds before, with NaN where nobody has written: keys and values of each
    /// shard.
    fn cached(
        &mut self,
        texts: &[Text],
        placed: &Placed,
        layout: Layout,
        cache: DType,
    ) -> Vec<[Tensor; 2]> {
        let slots = layout.segment as usize;
        let row_bytes = row_bytes(cache);
        let mut before = [0, 1].map(|_| {
            let nothing = self.host.floats_from(cache, [1, WIDTH], vec![f64::NAN; WIDTH as usize]);
            self.host.bytes(nothing).repeat(placed.shards as usize * slots)
        });
        for (i, text) in texts.iter().enumerate().filter(|(_, text)| text.pos > 0) {
            for (which, half) in (1..).zip(&mut before) {
                let value = |at: u32| number(text.seed, at / WIDTH, 1000 * which + at % WIDTH);
                let values = (0..text.pos * WIDTH).map(value).collect();
                let rows = self.host.floats_from(cache, [text.pos, WIDTH], values);
                for (position, row) in (0..).zip(self.host.bytes(rows).chunks(row_bytes)) {
                    let slot = placed.slot(i, position) as usize;
                    half[slot * row_bytes..][..row_bytes].copy_from_slice(row);
                }
            }
        }
        let shard = |i: usize| {
            [0, 1].map(|which: usize| {
                let shape = [layout.segment, WIDTH].into();
                let there = self.gpu.alloc(BufferRole::Storage, cache, shape);
                let there = there.expect("it is small");
                let bytes = &before[which][i * slots * row_bytes..][..slots * row_bytes];
                self.gpu.write(there, 0, bytes).expect("it fits");
                there
            })
        };
        (0..placed.shards as usize).map(shard).collect()
    }

    /// What the kernels read beside the cache.
    fn inputs(
        &mut self,
        texts: &[Text],
        placed: &Placed,
        order: &[RowRecord],
        layout: Layout,
        phase: Phase,
    ) -> Inputs {
        let [n_heads, n_kv, dim] = HEADS;
        let tokens = u32::try_from(order.len()).expect("few rows") + layout.padding;
        let qkv_width = (n_heads + 2 * n_kv) * dim;
        let of_rows = |width: u32, value: &dyn Fn(&Text, u32, u32) -> f64| -> Vec<f64> {
            let real = order.iter().flat_map(|row| {
                let text = &texts[row.sequence as usize];
                (0..width).map(move |i| value(text, row.position, i))
            });
            real.chain((0..layout.padding * width).map(|_| f64::NAN)).collect()
        };
        let qkv = of_rows(qkv_width, &|text, position, i| 4.0 * number(text.seed, position, i));
        let angles = of_rows(dim, &|_, position, i| {
            let angle = f64::from(position) / f64::from(1 + i / 2);
            if i % 2 == 0 { angle.cos() } else { angle.sin() }
        });
        let temperature = of_rows(1, &|_, position, _| 1.0 + f64::from(position) / 1000.0);
        let tiles = step::tiles_of(order, phase.tile);
        let header = step::header(tiles.len(), order.len());
        let header = self.host.ints_from([step::STEP_LEN], header.to_vec());
        let [rows, tiles] = [self.host.records(order), self.host.records(&tiles)];
        let pages = u32::try_from(placed.table.len()).expect("few pages");
        let table = self.host.ints_from([pages], placed.table.clone());
        Inputs {
            step: self.upload(BufferRole::Uniform, header),
            rows: self.upload(BufferRole::Uniform, rows),
            tiles: self.upload(BufferRole::Uniform, tiles),
            table: self.upload(BufferRole::Storage, table),
            qkv: self.floats(&[tokens, qkv_width], qkv, DType::F32),
            cos_sin: self.floats(&[tokens, dim], angles, DType::F32),
            temperature: self.floats(&[tokens], temperature, DType::F32),
        }
    }
}

/// What the kernels read beside the cache.
struct Inputs {
    step: Tensor,
    rows: Tensor,
    tiles: Tensor,
    table: Tensor,
    qkv: Tensor,
    cos_sin: Tensor,
    temperature: Tensor,
}

/// Bytes of a position's keys or values.
fn row_bytes(cache: DType) -> usize {
    usize::try_from(cache.row_bytes(WIDTH.into())).expect("short rows")
}

/// A text's keys and values, of the shards' bytes.
fn cached_bits(
    bytes: &[Vec<u8>],
    text: &Text,
    number: usize,
    placed: &Placed,
    layout: Layout,
    cache: DType,
) -> Bits {
    let row_bytes = row_bytes(cache);
    let of = |position: u32| {
        let slot = placed.slot(number, position);
        let [shard, slot] = [slot / layout.segment, slot % layout.segment].map(|at| at as usize);
        [0, 1].map(|which| words(&bytes[2 * shard + which][slot * row_bytes..][..row_bytes]))
    };
    (0..text.end()).flat_map(of).collect()
}

/// What a text's rows have in the queries, the splits' sums, maxima and totals, and the result.
fn row_bits(bytes: &[Vec<u8>], text: usize, order: &[RowRecord], splits: u32, least: u32) -> Bits {
    let [n_heads, dim] = [HEADS[0], HEADS[2]].map(|count| count as usize);
    let words: Vec<Vec<u32>> = bytes.iter().map(|bytes| words(bytes)).collect();
    let own = (0..).zip(order).filter(|(_, row)| row.sequence as usize == text);
    let mut own: Vec<(usize, &RowRecord)> = own.collect();
    own.sort_by_key(|(_, row)| row.position);
    let mut bits = Bits::new();
    for (at, row) in own {
        let used = step::splits(row.position, least) as usize;
        for head in at * n_heads..(at + 1) * n_heads {
            for words in [&words[0], &words[3]] {
                bits.push(words[head * dim..][..dim].to_vec());
            }
            for (words, cols) in [(&words[1], dim), (&words[2], 2)] {
                bits.push(words[head * splits as usize * cols..][..used * cols].to_vec());
            }
        }
    }
    bits
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|b| b.iter().rev().fold(0, |word, &b| word << 8 | u32::from(b))).collect()
}

/// The page table, where each text's pages begin in it, and the number of shards.
struct Placed {
    table: Vec<u32>,
    first: Vec<u32>,
    shards: u32,
}

impl Placed {
    /// Where the cache holds a position of a text.
    fn slot(&self, text: usize, position: u32) -> u32 {
        step::slot_of(&self.table, self.first[text], position)
    }
}

/// Gives each segment of each text a shard of its own.
fn place(texts: &[Text], layout: Layout) -> Placed {
    let pages_of = |text: &Text| text.end().div_ceil(PAGE);
    let each = layout.segment / PAGE;
    let shards = texts.iter().map(|text| pages_of(text).div_ceil(each)).sum::<u32>();
    let (mut table, mut first, mut used) = (Vec::new(), Vec::new(), 0);
    for text in texts {
        first.push(u32::try_from(table.len()).expect("few pages"));
        for page in 0..pages_of(text) {
            let (shard, page) = (used + page / each, page % each);
            table.push(if layout.reversed {
                (shards - 1 - shard) * each + (each - 1 - page)
            } else {
                shard * each + page
            });
        }
        used += pages_of(text).div_ceil(each);
    }
    Placed { table, first, shards }
}

/// The rows of a step.
fn rows(texts: &[Text], first: &[u32], layout: Layout) -> Vec<RowRecord> {
    let rows_of = |i: usize| {
        let sequence = u32::try_from(i).expect("few texts");
        step::rows_of(sequence, first[i], texts[i].pos..texts[i].end())
    };
    let mut order: Vec<usize> = (0..texts.len()).collect();
    if layout.reversed {
        order.reverse();
    }
    let mut rows: Vec<(usize, RowRecord)> =
        order.into_iter().flat_map(|i| rows_of(i).enumerate()).collect();
    if layout.by_turns {
        rows.sort_by_key(|(turn, _)| *turn);
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Runs `check` for every way in which the adapter may divide attention.
fn with_each_tuning(mut check: impl FnMut(&mut Gpu, &str)) {
    let mut gpu = common::open(LimitProfile::Baseline);
    let mut seen = Vec::new();
    for (name, tuning) in Tuning::all(&gpu.caps().capabilities()) {
        let heads = Heads { head_dim: HEADS[2], cache: DType::F32, form: Form::Matrix };
        let variant = tuning.attention(heads).variant;
        if !seen.contains(&variant) {
            seen.push(variant);
            gpu.set_tuning(Tuning { strict: true, ..tuning });
            check(&mut gpu, &format!("{variant} ({name})"));
        }
    }
    assert!(!seen.is_empty());
}

/// Compares each text alone with the same text among others, in several layouts.
fn neighbours_change_no_bit(texts: &[Text], phase: Phase, segments: [u32; 2]) {
    let [whole, cut] = segments;
    let plain = Layout { segment: whole, reversed: false, by_turns: false, spare: 0, padding: 0 };
    let layouts = [
        Layout { reversed: true, ..plain },
        Layout { by_turns: true, padding: 3, ..plain },
        Layout { segment: cut, spare: 2000, ..plain },
        Layout { segment: cut, reversed: true, by_turns: true, spare: 77, padding: 1 },
    ];
    with_each_tuning(|gpu, variant| {
        for cache in CACHES {
            let mut run = Run { gpu: &mut *gpu, host: Host::default() };
            let alone: Vec<Bits> =
                texts.iter().flat_map(|&text| run.texts(&[text], plain, phase, cache)).collect();
            let flat = || alone.iter().flatten().flatten();
            assert!(flat().any(|&word| word != 0) && alone.len() == texts.len());
            // No NaN of a page that is not the text's own.
            if cache == DType::F32 {
                assert!(flat().all(|&word| f32::from_bits(word).is_finite()), "{variant}");
            }
            // Types of caches differ in how an element is read, which the last layout shows.
            let first = if cache == DType::F32 { 0 } else { layouts.len() - 1 };
            for layout in layouts.into_iter().skip(first) {
                let among = run.texts(texts, layout, phase, cache);
                for (i, text) in texts.iter().enumerate() {
                    let same = alone[i] == among[i];
                    assert!(same, "{variant}, a cache of {cache}, {text:?} in {layout:?}");
                }
            }
        }
    });
}

#[test]
fn a_generated_token_has_the_same_bits_among_others() {
    let texts = [(5, 1), (31, 1), (300, 1), (0, 1), (1030, 1), (32, 1)];
    let texts: Vec<Text> =
        (0..).zip(texts).map(|(seed, (pos, rows))| Text { seed, pos, rows }).collect();
    neighbours_change_no_bit(&texts, Phase { form: Form::Vector, least: 32, tile: 1 }, [2048, 256]);
}

#[test]
fn a_prompt_has_the_same_bits_among_others() {
    let texts = [(0, 9), (100, 7), (31, 2), (64, 1), (60, 12)];
    let texts: Vec<Text> =
        (0..).zip(texts).map(|(seed, (pos, rows))| Text { seed, pos, rows }).collect();
    // Segments as long as the texts, and shorter ones.
    neighbours_change_no_bit(&texts, Phase { form: Form::Matrix, least: 64, tile: 8 }, [128, 64]);
}

/// How rows are cut into tiles changes no bit either.
#[test]
fn tiles_change_no_bit() {
    let layout = Layout { segment: 64, reversed: true, by_turns: false, spare: 0, padding: 0 };
    with_each_tuning(|gpu, variant| {
        for (cache, form) in CACHES.into_iter().flat_map(|c| Form::ALL.map(|form| (c, form))) {
            let mut run = Run { gpu: &mut *gpu, host: Host::default() };
            let text = [Text { seed: 9, pos: 25, rows: 20 }];
            let whole = run.texts(&text, layout, Phase { form, least: 64, tile: 32 }, cache);
            for tile in [1, 3, 7, 64] {
                let phase = Phase { form, least: 64, tile };
                let other = run.texts(&text, layout, phase, cache);
                assert!(whole == other, "{variant}, a cache of {cache}, {form:?}, tiles of {tile}");
            }
        }
    });
}
