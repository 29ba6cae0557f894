//! A loaded model that a page talks to.

use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use js_sys::Function;
use serde::Serialize;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;

use super::{
    describe,
    options::{LoadOptions, Request, parse},
    throw,
};
use crate::{
    base::error::{Error, Result},
    checkpoint::{
        Checked,
        open::{Opened, open},
    },
    engine::{
        self, SessionOptions,
        generation::generate,
        options::{Event, Generated, Token},
        resume::{Change, Rebuild, Resuming},
        sequence::Kind,
        step::Readback,
    },
    files::web::{FileSource, JsFile, pause},
    machine::{
        counting::DeviceLimits,
        gpu::{AdapterChoice, Gpu, LimitProfile},
    },
    measure::placement::{Budget, Bytes, Placed, choose as place},
    model::{
        Placement,
        config::{Compat, Config},
    },
    text::{
        chat::{Choice, Message, Role, Scaffold, Trim, choose, encode_chat},
        sampler::Sampling,
        tokenizer::Tokenizer,
    },
};

/// Milliseconds between requests for an adapter after a loss: browsers may offer none for a while.
const PATIENCE: [i32; 5] = [100, 400, 1000, 2000, 4000];

/// What devices said of variants that they refuse.
type Notices = Arc<Mutex<Vec<String>>>;

fn told(notices: &Notices) -> MutexGuard<'_, Vec<String>> {
    notices.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A model on a device.
#[wasm_bindgen]
pub struct Engine {
    /// `None` during a call that uses it.
    session: Cell<Option<Resuming<Reload>>>,
    /// The usual readback of a step, for which pipelines are compiled ahead.
    read: Readback,
    /// What devices said of variants that they refuse, since it was last told.
    notices: Notices,
    tokenizer: Tokenizer,
    /// How conversations are written where a request does not say.
    scaffold: &'static Scaffold,
    /// How tokens are sampled where a request does not say.
    sampling: Sampling,
    device: Rc<Device>,
    info: String,
}

#[wasm_bindgen]
impl Engine {
    /// Loads a model from its files. `options` is JSON. `on_event` is called with JSON events about
    /// progress and the device; a falsy answer or an exception stops the loading.
    ///
    /// # Errors
    ///
    /// A JavaScript error with a `code`: wrong options or files, no adapter, limits or memory
    /// exceeded, or interrupted by `on_event`.
    pub async fn load(
        files: Vec<JsFile>,
        options: String,
        on_event: Function,
    ) -> Result<Engine, JsValue> {
        load(files, &options, Listener(on_event)).await.map_err(|error| throw(&error))
    }

    /// The model's properties, as JSON.
    pub fn info(&self) -> String {
        self.info.clone()
    }

    /// Limits and features of the current device, as JSON.
    pub fn caps(&self) -> String {
        self.device.caps.borrow().to_string()
    }

    /// Generates a text. `request` is JSON. `on_event` is called with JSON events: progress of the
    /// prompt, then pieces of the text, and the bytes of a matrix that are there so far while
    /// weights are read for a token; a falsy answer or an exception ends the text. The result is
    /// JSON.
    ///
    /// # Errors
    ///
    /// A JavaScript error with a `code`: a wrong request, a prompt that the context cannot hold,
    /// another call in progress, or a lost device that could not be replaced.
    pub async fn generate(&self, request: String, on_event: Function) -> Result<String, JsValue> {
        let mut session = self.take()?;
        WRITING.set(Some(Listener(on_event.clone())));
        let result = self.write(&mut session, &request, &Listener(on_event)).await;
        WRITING.set(None);
        self.session.set(Some(session));
        result.map_err(|error| throw(&error))
    }

    /// Compiles the pipelines that the first token does not need, one by one. `on_event` is called
    /// with JSON events: progress after each; a falsy answer or an exception ends the work. The
    /// result is JSON: whether all are there, and warnings.
    ///
    /// # Errors
    ///
    /// A JavaScript error with a `code`: the device refuses a pipeline, another call is in
    /// progress, or a lost device could not be replaced.
    #[wasm_bindgen(js_name = compileRest)]
    pub async fn compile_rest(&self, on_event: Function) -> Result<String, JsValue> {
        const ALL: [Kind; 2] = [Kind::Prompt, Kind::Generated];
        let mut session = self.take()?;
        let listener = Listener(on_event);
        let mut progress = |done, total| listener.progress("pipelines", done, total);
        let result = session.compile_each(&ALL, self.read, &mut progress).await;
        self.session.set(Some(session));
        let done = match result {
            Ok(()) => true,
            Err(Error::Interrupted) => false,
            Err(error) => return Err(throw(&error)),
        };
        let warnings = std::mem::take(&mut *told(&self.notices));
        Ok(json!({ "done": done, "warnings": warnings }).to_string())
    }

    /// Replaces a lost device; does nothing if the device is not lost.
    ///
    /// # Errors
    ///
    /// A JavaScript error with a `code` if another call is in progress or no device can be had.
    pub async fn heal(&self) -> Result<(), JsValue> {
        let mut session = self.take()?;
        let result = session.heal().await;
        self.session.set(Some(session));
        result.map_err(|error| throw(&error))
    }

    /// Destroys the device and frees its memory, to test what happens after a loss.
    #[wasm_bindgen(js_name = loseDevice)]
    pub fn lose_device(&self) {
        if let Some(destroy) = &*self.device.destroy.borrow() {
            destroy();
        }
    }
}

impl Engine {
    fn take(&self) -> Result<Resuming<Reload>, JsValue> {
        let busy = || throw(&Error::Usage("the engine is at work on another text".into()));
        self.session.take().ok_or_else(busy)
    }

    async fn write(
        &self,
        session: &mut Resuming<Reload>,
        request: &str,
        listener: &Listener,
    ) -> Result<String> {
        let request: Request = parse(request)?;
        let ids = request.ids(&self.tokenizer, self.scaffold)?;
        let mut sampler = request.sampler(self.sampling)?;
        let settings = request.settings(&self.tokenizer);
        let mut trim = request.is_chat().then(Trim::default);
        let mut shown = |text: &str| match &mut trim {
            Some(trim) => trim.next(text).to_owned(),
            None => text.to_owned(),
        };
        let mut text = String::new();
        let mut before = ids.clone();
        let mut on_event = |event: Event<'_>| {
            Ok(listener.emit(&match event {
                Event::Prompt { done, total } => json!({ "prompt": [done, total] }),
                // Nobody asks for them here.
                Event::Scored(_) => return Ok(ControlFlow::Continue(())),
                Event::Token(token) => {
                    let piece = shown(&token.text);
                    text.push_str(&piece);
                    let piece = self.piece(&before, token, &piece);
                    before.push(token.id);
                    json!({ "piece": piece })
                }
                Event::Rest(rest) => {
                    let piece = shown(rest);
                    text.push_str(&piece);
                    json!({ "piece": { "id": -1, "text": piece } })
                }
            }))
        };
        let made: Generated =
            generate(session, &self.tokenizer, &mut sampler, &ids, &settings, &mut on_event)
                .await?;
        Ok(json!({
            "reason": made.finish.name(),
            "text": text,
            "promptTokens": ids.len(),
            "reusedTokens": made.reused,
            "completionTokens": made.tokens.len(),
        })
        .to_string())
    }

    /// A token after those `before`, as the page gets it.
    fn piece(&self, before: &[u32], token: &Token, text: &str) -> Value {
        let mut piece = json!({ "id": token.id, "text": text });
        if let (Some(trace), Some(logprobs)) = (&token.trace, &token.logprobs) {
            let routes = trace
                .routes
                .iter()
                .map(|route| json!({ "experts": route.experts, "probabilities": route.probs }));
            let top = logprobs.top.iter().map(|&(id, logprob)| {
                // An id that the tokenizer lacks is never chosen, and is shown without a text.
                json!({
                    "id": id,
                    "text": self.tokenizer.token_text(before, id).unwrap_or_default(),
                    "probability": logprob.exp(),
                    "logit": logprob + logprobs.norm,
                })
            });
            piece["inside"] = json!({
                "position": trace.position,
                "attentionTemperature": trace.attention_temperature,
                "routes": routes.collect::<Value>(),
                "top": top.collect::<Value>(),
            });
        }
        piece
    }
}

async fn load(files: Vec<JsFile>, options: &str, listener: Listener) -> Result<Engine> {
    let options: LoadOptions = parse(options)?;
    let files: Vec<FileSource> = files.into_iter().map(FileSource::new).collect();
    let opened = open(Path::new("the model"), files, Compat::Reference).await?;
    let tokenizer = opened.tokenizer().await?;
    let Choice { scaffold, warning } = choose(&tokenizer, opened.template(), None);
    let Opened { config, mut weights, mut warnings, sampling, .. } = opened;
    warnings.extend(tokenizer.warnings().into_iter().chain(warning));
    if options.allow_non_finite {
        weights.allow_non_finite();
    }
    let bytes = weights.bytes();
    let sizes = options.sizes(&config);
    let device = Rc::new(Device { listener, destroy: None.into(), caps: Value::Null.into() });
    let all = tokenizer.vocab_size() < config.vocab_size as usize;
    let read = if all {
        Readback::Logits
    } else {
        match Readback::from(sampling.needs()) {
            Readback::Top(count) => Readback::Top(count.min(config.vocab_size)),
            read => read,
        }
    };
    let notices = Notices::default();
    let placed = Rc::new(Cell::new(None));
    let reload = Reload {
        config: config.clone(),
        weights,
        sizes,
        device: device.clone(),
        told: Rc::default(),
        before: false,
        notices: notices.clone(),
        longest_submission: options.longest_submission(),
        memory: options.device_memory,
        placed: placed.clone(),
    };
    let mut session = Resuming::new(reload).await?.keeping_cache(options.keep_cache);
    // A prompt and its first token need no more; `Engine::compile_rest` has the rest.
    let mut progress = |done, total| device.listener.progress("pipelines", done, total);
    session.compile_each(&[Kind::Prompt], read, &mut progress).await?;

    warnings.append(&mut told(&notices));
    let question = [Message::new(Role::User, "")];
    let info = json!({
        "parameters": config.parameters().total,
        "bytes": bytes,
        "context": sizes.context,
        "chat": encode_chat(&tokenizer, scaffold, &question).is_ok(),
        "template": scaffold.name,
        "config": config_fields(&config),
        "warnings": warnings,
        "sampling": sampling.to_json(),
        "placement": placed.get().map(|bytes| json!({
            "deviceBytes": bytes.device,
            "fileBytes": bytes.files,
            "tokenFileBytes": bytes.token_files,
        })),
    });
    let info = info.to_string();
    let session = Cell::new(Some(session));
    Ok(Engine { session, read, notices, tokenizer, scaffold, sampling, device, info })
}

fn config_fields(c: &Config) -> Value {
    let rope = &c.ropes[0];
    json!({
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_hidden_layers(),
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "num_local_experts": c.num_local_experts(),
        "num_experts_per_tok": c.num_experts_per_tok(),
        "rope_theta": rope.rope_theta,
        "scaling_factor": rope.scaling_factor,
        "attn_temperature_len": c.attention.temperature_len,
        "attn_logit_softcapping": c.attention.softcap,
        "router_logit_softcapping": c.experts.map_or(0.0, |experts| experts.softcap),
        "final_logit_softcapping": c.ends.softcap,
        "residual_moe": c.dense_width().is_some(),
        "max_position_embeddings": c.max_position_embeddings,
    })
}

/// A callback of the page that receives events as JSON.
struct Listener(Function);

impl Listener {
    /// Sends an event; the answer says whether to go on. An exception counts as no.
    fn emit(&self, news: &Value) -> ControlFlow<()> {
        match self.0.call1(&JsValue::NULL, &news.to_string().into()) {
            Ok(answer) if answer.is_truthy() => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    /// Reports progress of loading; an error if the page wants to stop.
    fn progress(&self, phase: &str, done: impl Serialize, total: impl Serialize) -> Result<()> {
        match self.emit(&json!({ "progress": [phase, done, total] })) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }

    fn emit_device(&self, kind: &str, message: &str) {
        // A message about the device cannot be refused.
        let _ = self.emit(&json!({ "device": { "kind": kind, "message": message } }));
    }
}

/// The current device, replaced after a loss. Shared with parts that cannot reach the session.
struct Device {
    listener: Listener,
    destroy: RefCell<Option<Box<dyn Fn()>>>,
    caps: RefCell<Value>,
}

thread_local! {
    /// Who hears of the text that is being written. A worker has one engine; what is not `Send`
    /// cannot be in what an engine calls.
    static WRITING: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// An error if the text that is being written is not wanted any more, of which `read` bytes of a
/// matrix are there.
fn go_on(read: u64) -> Result<()> {
    let news = json!({ "read": read });
    WRITING.with_borrow(|writing| match writing.as_ref().map(|listener| listener.emit(&news)) {
        Some(ControlFlow::Break(())) => Err(Error::Interrupted),
        _ => Ok(()),
    })
}

/// Builds the engine, and builds it again after the device was lost.
struct Reload {
    config: Config,
    weights: Checked<FileSource>,
    sizes: SessionOptions,
    device: Rc<Device>,
    /// Whether the page was told that the current device is lost.
    told: Rc<Cell<bool>>,
    /// Whether this is not the first device.
    before: bool,
    notices: Notices,
    /// Seconds of the longest submission.
    longest_submission: Option<f64>,
    /// Bytes of the device's memory that the model may take.
    memory: Option<u64>,
    /// What is where, if `memory` is less than all of it.
    placed: Rc<Cell<Option<Bytes>>>,
}

impl Reload {
    async fn open(&self) -> Result<Gpu> {
        let mut patience = PATIENCE.iter().filter(|_| self.before);
        loop {
            match Gpu::open(&AdapterChoice::Best, LimitProfile::Baseline).await {
                Err(Error::Adapter(why)) => match patience.next() {
                    Some(&milliseconds) => pause(milliseconds).await,
                    None => return Err(Error::Adapter(why)),
                },
                result => return result,
            }
        }
    }

    /// Tells the page of a loss at once, even if no call is running.
    fn watch(&mut self, gpu: &Gpu) {
        self.told = Rc::default();
        let (told, device) = (self.told.clone(), self.device.clone());
        let loss = gpu.loss();
        spawn_local(async move {
            if let Some(why) = loss.await {
                emit_once(&told, &device, &why);
            }
        });
    }
}

fn emit_once(told: &Cell<bool>, device: &Device, why: &str) {
    if !told.replace(true) {
        device.listener.emit_device("lost", why);
    }
}

impl Rebuild for Reload {
    type Machine = Gpu;

    async fn build(&mut self) -> Result<engine::Engine<Gpu>> {
        if self.before {
            self.device.listener.emit_device("rebuilding", "the weights go to a new device");
        }
        let (first, total) = (!self.before, self.weights.bytes());
        if first {
            // The files are in order. Now the page may free the memory of an earlier model.
            self.device.listener.progress("weights", 0, total)?;
        }
        let mut gpu = self.open().await?;
        gpu.limit_submissions(self.longest_submission);
        let notices = self.notices.clone();
        gpu.on_notice(move |notice| {
            told(&notices).push(notice.to_owned());
        });
        self.watch(&gpu);
        *self.device.destroy.borrow_mut() = Some(Box::new(gpu.destroyer()));
        *self.device.caps.borrow_mut() = describe(gpu.caps());
        self.before = true;
        let listener = &self.device.listener;
        let mut progress = |done: u64| {
            // After a loss, the page gets no progress and cannot stop the loading.
            if first { listener.progress("weights", done, total) } else { Ok(()) }
        };
        let (config, weights, sizes) = (&self.config, &self.weights, self.sizes);
        let placement = match self.memory {
            None => Placement::WHOLE,
            Some(memory) => {
                let limits = DeviceLimits::of(gpu.caps());
                let Placed { placement, bytes, .. } =
                    place(config, weights, limits, sizes, Budget::of_device(memory))?;
                self.placed.set(bytes.moves().then_some(bytes));
                placement
            }
        };
        let load =
            engine::Engine::load_placed(gpu, config, weights, sizes, placement, &mut progress);
        let mut engine = load.await?;
        engine.while_bringing(Some(Box::new(go_on)));
        Ok(engine)
    }

    fn on_change(&mut self, change: Change<'_>) {
        let listener = &self.device.listener;
        match change {
            Change::Lost(error) => emit_once(&self.told, &self.device, &error.to_string()),
            Change::Restored { replayed: 0 } => {
                listener.emit_device("restored", "everything is as it was");
            }
            Change::Restored { replayed } => {
                let what =
                    format!("everything is as it was; {replayed} tokens were computed again");
                listener.emit_device("restored", &what);
            }
            Change::Failed(error) => listener.emit_device("failed", &error.to_string()),
        }
    }
}
