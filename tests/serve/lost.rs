//! A device that is lost while many texts are made: all go on, on another one.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    checkpoint::Synthetic,
    engine::{
        Engine, SessionOptions,
        resume::{Change, Rebuild},
        texts::{Sharing, Texts},
    },
    machine::gpu::{Gpu, LimitProfile},
    model::config::Config,
    serve::driver,
};
use pollster::block_on;
use serde_json::{Value, json};

use crate::{
    common,
    harness::{CONTEXT, Served, settings},
};

/// Destroys the device of the engine.
type Destroy = Box<dyn Fn() + Send>;

/// Makes engines of a small model, and gives away what destroys their devices.
struct Maker {
    devices: mpsc::Sender<Destroy>,
    told: Arc<Mutex<Vec<&'static str>>>,
}

impl Rebuild for Maker {
    type Machine = Gpu;

    async fn build(&mut self) -> Result<Engine<Gpu>> {
        let gpu = common::open(LimitProfile::Baseline);
        self.devices.send(Box::new(gpu.destroyer())).expect("the test listens");
        let mut config = Config::preset("small").expect("a preset").with_layers(1);
        config.vocab_size = 2048;
        config.max_position_embeddings = u32::try_from(CONTEXT).expect("small");
        let weights = Synthetic::new(&config, DType::F32, 3)?;
        let sizes = SessionOptions::new(config.max_position_embeddings, 64, DType::F32)
            .with_rows(5)
            .with_cache_positions(1024);
        Engine::load(gpu, &config, &weights, sizes, &mut |_| Ok(())).await
    }

    fn on_change(&mut self, change: Change<'_>) {
        let what = match change {
            Change::Lost(_) => "lost",
            Change::Restored { .. } => "restored",
            Change::Failed(_) => "failed",
        };
        self.told.lock().expect("nobody panics").push(what);
    }
}

fn server(keep: bool) -> (Served, mpsc::Receiver<Destroy>, Arc<Mutex<Vec<&'static str>>>) {
    let (devices, destroyers) = mpsc::channel();
    let told = Arc::<Mutex<_>>::default();
    let mut maker = Maker { devices, told: Arc::clone(&told) };
    let patience = Duration::from_secs(10);
    let served = Served::before(settings(), 16, patience, move |mut jobs, tokenizer, _| {
        let engine = block_on(maker.build()).expect("an engine");
        let sharing = Sharing::default().keeping(Some(keep));
        let texts = Texts::new(engine, tokenizer, sharing).expect("texts");
        block_on(driver::run(texts, &mut maker, &mut jobs, false)).expect("it runs to its end");
    });
    served.ready();
    (served, destroyers, told)
}

fn body(i: usize) -> Value {
    json!({
        "prompt": vec![200 + i; 20 + 13 * i], "max_tokens": 60 + 10 * i, "temperature": 0.9,
        "seed": i, "ignore_eos": true, "logprobs": 2, "return_token_ids": true,
    })
}

/// With finished pages on the host, and without.
#[test]
fn after_a_lost_device_all_texts_go_on() {
    for keep in [true, false] {
        let (served, destroyers, told) = server(keep);
        let first = destroyers.recv().expect("the first device");
        let ask = |i: usize| served.post("/v1/completions", &body(i)).json()["choices"].clone();
        let alone: Vec<Value> = (0..5).map(ask).collect();
        let steps = |served: &Served| -> u64 {
            let text = served.get("/metrics").body;
            let line = text.lines().find_map(|line| line.strip_prefix("grok_wgpu_steps_total "));
            line.and_then(|steps| steps.parse().ok()).expect("a number")
        };
        let before = steps(&served);
        let together: Vec<Value> = thread::scope(|scope| {
            let ask = &ask;
            let asked: Vec<_> = (0..5).map(|i| scope.spawn(move || ask(i))).collect();
            served.until("they are under way", |served| steps(served) > before + 20);
            first();
            asked.into_iter().map(|answer| answer.join().expect("an answer")).collect()
        });
        assert_eq!(together, alone, "keep: {keep}");
        let metrics = served.get("/metrics").body;
        assert!(metrics.contains("\ngrok_wgpu_device_losses_total 1\n"), "{metrics}");
        assert_eq!(*told.lock().expect("nobody panics"), ["lost", "restored"]);
        assert_eq!(served.get("/health").status, 200);
    }
}
