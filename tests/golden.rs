//! Whole models against logits of an independent `PyTorch` program in f64 (`data/make_golden.py`).

mod common;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use grok_wgpu::{
    Config, DType, Gpu, Host, Machine, Synthetic,
    gpu::Profile,
    session::{Read, Session, Sizes},
};
use libtest_mimic::{Arguments, Failed, Trial};
use pollster::block_on;
use safetensors::SafeTensors;

/// Largest absolute difference of a logit that f32 arithmetic may make.
const MOST: f64 = 1e-4;

/// One golden file.
struct Golden {
    config: Config,
    ids: Vec<u32>,
    positions: Vec<usize>,
    logits: Vec<Vec<f64>>,
    /// `[layer][row][chosen]`
    experts: Vec<Vec<Vec<u32>>>,
    /// `[layer][row]`
    margin: Vec<Vec<f64>>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
        let path = folder.join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).expect("the config is there");
        let (config, _) = Config::from_json(&path, &text).expect("the config is good");
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).expect("golden file");
        let file = SafeTensors::deserialize(&bytes).expect("golden files are safetensors");
        let ints = |name: &str| -> Vec<u32> {
            let data = file.tensor(name).expect("golden tensor").data();
            data.chunks_exact(4)
                .map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")))
                .collect()
        };
        let floats = |name: &str| -> Vec<f64> {
            let data = file.tensor(name).expect("golden tensor").data();
            data.chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes")))
                .collect()
        };
        let shape = |name: &str| file.tensor(name).expect("golden tensor").shape().to_vec();
        let [layers, rows, chosen] = shape("experts")[..] else { panic!("experts has three axes") };
        let positions = ints("positions").iter().map(|&p| p as usize).collect();
        let per_layer = rows * chosen;
        Self {
            logits: floats("logits")
                .chunks_exact(config.vocab_size as usize)
                .map(<[f64]>::to_vec)
                .collect(),
            experts: ints("experts")
                .chunks_exact(per_layer)
                .map(|layer| layer.chunks_exact(chosen).map(<[u32]>::to_vec).collect())
                .collect(),
            margin: floats("margin").chunks_exact(rows).map(<[f64]>::to_vec).take(layers).collect(),
            ids: ints("ids"),
            positions,
            config,
        }
    }

    fn names() -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .expect("the golden folder is there")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".safetensors").map(str::to_owned))
            .collect();
        names.sort();
        assert!(names.len() >= 18, "golden files are missing: {names:?}");
        names
    }

    async fn session<M: Machine>(&self, machine: M, dtype: DType, prefill: u32) -> Session<M> {
        let weights = Synthetic::new(&self.config, dtype, 0).expect("weights");
        let context = u32::try_from(self.ids.len()).expect("short").max(16);
        let sizes = Sizes { context, prefill };
        Session::load(machine, &self.config, &weights, sizes, &mut |_| Ok(())).await.expect("loads")
    }

    /// The rows of the golden among logits of all positions.
    fn compare(&self, rows: &[(usize, Vec<f32>)]) -> Result<f64, Failed> {
        let mut worst: f64 = 0.0;
        let mut seen = 0;
        for (position, got) in rows {
            let Some(at) = self.positions.iter().position(|p| p == position) else { continue };
            seen += 1;
            for (id, (&got, &want)) in got.iter().zip(&self.logits[at]).enumerate() {
                let error = (f64::from(got) - want).abs();
                let within = error <= MOST; // false for NaN
                if !within {
                    return Err(format!(
                        "position {position}, token {id}: {got} against {want}, off by {error:e}"
                    )
                    .into());
                }
                worst = worst.max(error);
            }
        }
        if seen == 0 { Err("no golden position was compared".into()) } else { Ok(worst) }
    }

    /// Compares the choices of a step that began at `first`, outside near ties.
    fn compare_routes(&self, first: usize, routes: &[(Vec<u32>, Vec<f32>)]) -> Result<(), Failed> {
        let chosen = self.config.num_experts_per_tok as usize;
        for (layer, (ids, _)) in routes.iter().enumerate() {
            for (row, ids) in ids.chunks_exact(chosen).enumerate() {
                let position = first + row;
                // Long cases keep only some rows.
                let at = if self.experts[layer].len() == self.ids.len() {
                    position
                } else if let Some(at) = self.positions.iter().position(|&p| p == position) {
                    at
                } else {
                    continue;
                };
                let mut want = self.experts[layer][at].clone();
                let mut got = ids.to_vec();
                want.sort_unstable();
                got.sort_unstable();
                if got != want && self.margin[layer][at] > 1e-5 {
                    return Err(format!(
                        "layer {layer}, position {position}: experts {got:?}, expected {want:?}"
                    )
                    .into());
                }
            }
        }
        Ok(())
    }
}

/// All logits by chunks, with the routers' choices. Gives the machine back.
async fn by_chunks<M: Machine>(
    golden: &Golden,
    machine: M,
    dtype: DType,
) -> Result<(f64, M), Failed> {
    let mut session = golden.session(machine, dtype, 32).await;
    let mut rows = Vec::new();
    for ids in golden.ids.chunks(32) {
        let first = session.tokens().len();
        let reply = session.prefill(ids, Read::AllLogits).await?;
        let routes = session.routes(false, ids.len()).await?;
        golden.compare_routes(first, &routes)?;
        rows.extend((first..).zip(reply.rows));
    }
    Ok((golden.compare(&rows)?, session.into_machine()))
}

/// Logits of the last position, by chunks of `prefill`; then of the others by decoding.
async fn by_prefill_and_decode<M: Machine>(
    golden: &Golden,
    machine: M,
    prefill: u32,
    prompt: usize,
) -> Result<(f64, M), Failed> {
    let mut session = golden.session(machine, DType::F32, prefill).await;
    let logits =
        |reply: grok_wgpu::session::Reply| reply.candidates.iter().map(|c| c.logit).collect();
    let reply = session.prefill(&golden.ids[..prompt], Read::Logits).await?;
    let mut rows = vec![(prompt - 1, logits(reply))];
    for (position, &id) in golden.ids.iter().enumerate().skip(prompt) {
        let reply = session.decode(id, Read::Logits).await?;
        golden.compare_routes(position, &session.routes(true, 1).await?)?;
        rows.push((position, logits(reply)));
    }
    Ok((golden.compare(&rows)?, session.into_machine()))
}

/// Compares a model with its golden file; gives the largest difference.
type Run = Box<dyn Fn(&Golden) -> Result<f64, Failed> + Send + Sync>;

fn main() {
    let args = Arguments::from_args();
    let mut trials = Vec::new();
    let mut add = |name: String, run: Run| {
        let golden = name.split(' ').next().expect("a name has words").to_owned();
        trials.push(Trial::test(name.clone(), move || {
            let worst = run(&Golden::read(&golden))?;
            eprintln!("{name}: largest difference {worst:.1e}");
            Ok(())
        }));
    };
    for name in Golden::names() {
        let long = name.ends_with("1100");
        if !long {
            add(
                format!("{name} oracle"),
                Box::new(|g| Ok(block_on(by_chunks(g, Host::default(), DType::F32))?.0)),
            );
        }
        // Long prompts are slow on a software adapter, and the stored type matters no more there.
        let dtypes = [DType::F32, DType::F16, DType::BF16];
        for &dtype in if long { &dtypes[..1] } else { &dtypes[..] } {
            add(
                format!("{name} prefill {dtype}"),
                Box::new(move |g| on_gpu(|gpu| block_on(by_chunks(g, gpu, dtype)))),
            );
        }
        add(
            format!("{name} one whole prefill"),
            Box::new(move |g| {
                on_gpu(|gpu| block_on(by_prefill_and_decode(g, gpu, 2048, g.ids.len())))
            }),
        );
        if !long {
            add(
                format!("{name} prefill by 7"),
                Box::new(move |g| {
                    on_gpu(|gpu| block_on(by_prefill_and_decode(g, gpu, 7, g.ids.len())))
                }),
            );
        }
        add(
            format!("{name} decode"),
            Box::new(move |g| {
                // Long prompts are decoded only at their end.
                let prompt = if long { g.ids.len() - 6 } else { 3 };
                on_gpu(|gpu| block_on(by_prefill_and_decode(g, gpu, 256, prompt)))
            }),
        );
    }
    libtest_mimic::run(&args, trials).exit();
}

/// Runs a test on the one device of this program: pipelines take long to make on some adapters. A
/// test that fails leaves no device behind, and the next opens another.
fn on_gpu(run: impl FnOnce(Gpu) -> Result<(f64, Gpu), Failed>) -> Result<f64, Failed> {
    static GPU: Mutex<Option<Gpu>> = Mutex::new(None);
    let mut kept = GPU.lock().unwrap_or_else(PoisonError::into_inner);
    let gpu = kept.take().unwrap_or_else(|| common::open(Profile::Baseline));
    let (worst, mut gpu) = run(gpu)?;
    gpu.truncate(0);
    *kept = Some(gpu);
    Ok(worst)
}
