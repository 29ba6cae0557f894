//! `serve`: an OpenAI-compatible server.

use std::{
    fmt::Write as _,
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::{Args, builder::NonEmptyStringValueParser};
use grok_wgpu::lab::{
    base::error::{Error, Result},
    checkpoint::open::Opened,
    engine::{
        Engine, SessionOptions, options,
        resume::{Change, Rebuild},
        texts::{Sharing, Texts},
    },
    files::native::{FileSource, read_text},
    machine::gpu::Gpu,
    serve::{Key, Model, Ready, Server, Settings, Times, driver, engine::channel},
    text::{
        chat::{Choice, Message, Role, Scaffold, choose, encode_chat},
        sampler::{Sampler, Sampling},
    },
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    chat::template_names,
    globals::Globals,
    memory::KeepOption,
    model::{Located, Reload, locate, open, tokenizer},
    signals,
    sizes::SizeOptions,
    terminal::{line, out_json},
};

/// Longest file of keys, in bytes, and shortest key, in characters.
const KEYS: (u64, usize) = (1 << 20, 8);

/// Bytes of the longest body of a request.
const BODY: usize = 4 << 20;
/// Most connections.
const CONNECTIONS: usize = 512;

/// Answer programs that speak OpenAI's protocol
///
/// Texts are generated together, --rows at a time; others wait in a queue. No bit of a text depends
/// on those beside it. A page to talk with the model is at the server's address. Each request
/// leaves a line of JSON on the standard error, which has numbers and nothing of the texts.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu serve models/demo
  grok-wgpu serve models/demo --port 9000 --alias demo --max-tokens 512
  grok-wgpu serve models/demo --rows 16 --cache q8
  grok-wgpu serve hf://xai-org/grok-2 --host 0.0.0.0 --api-key-file keys.txt

Then, from any program that speaks OpenAI's protocol:
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Tell me a story.\"}]}'
  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none your-program

Endpoints: /v1/chat/completions, /v1/completions, /v1/models, /tokenize, /detokenize,
/apply-template, /health, /ready, /props, /slots, /metrics, /openapi.json, and / with the page.

Environment:
  GROK_WGPU_API_KEY   a key that each request must have, as `Authorization: Bearer KEY`

Ctrl-C or SIGTERM ends it: texts that are being made have --grace seconds.")]
pub(super) struct Options {
    /// Folder or file of the model, or `hf://OWNER/NAME`; the demo model if none is given
    model: Option<PathBuf>,
    /// Address to listen on; another one than this computer's own needs a key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Texts that are generated at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    rows: u32,
    /// Tokens for which the key-value cache has room, those of all texts together, in multiples of
    /// the context; texts wait, and the last of them are put aside for a while, if it is full. Not
    /// more than --rows
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    contexts: u32,
    /// How long the tokens of texts may wait for prompts of others, in milliseconds, where a step
    /// with 32 tokens of a prompt does not take longer
    #[arg(long, value_name = "MS", default_value_t = 250)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_stall: u32,
    /// Let texts of all keys share what their prompts begin with. Otherwise those of one key do,
    /// since the time to the first token tells whether somebody has sent the same beginning
    #[arg(long)]
    share_prefixes: bool,
    /// Requests' texts that may wait; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    queue: u16,
    /// File with keys, one a line; each request must have one of them
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Take requests of other computers without a key
    #[arg(long)]
    insecure_no_auth: bool,
    /// Origin of a web page that may ask, such as `https://example.org`; may be given several times
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    cors_origin: Vec<String>,
    /// The model's name in requests and answers; that of its file or folder if not given
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    alias: Option<String>,
    /// Take requests for any model's name
    #[arg(long)]
    any_model: bool,
    /// Most tokens of an answer, where a request does not say
    #[arg(long, short = 'n', value_name = "N", default_value_t = 4096)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// How conversations are written for the model, instead of as its files say
    #[arg(long, value_name = "NAME", value_parser = template_names())]
    template: Option<String>,
    /// Longest time of a request, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
    /// Time for texts that are being made when the server ends, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u32,
    #[command(flatten)]
    usual: Usual,
    #[command(flatten)]
    sizes: SizeOptions,
    #[command(flatten)]
    keep: KeepOption,
}

/// How tokens are chosen, where a request does not say. The defaults are the protocol's.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Sampling where a request does not say")]
struct Usual {
    /// Divides the logits: 0 takes the likeliest token, up to 2
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: u32,
    /// Keep the likeliest tokens that have this probability together
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Keep tokens with at least this fraction of the likeliest one's probability
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Divides positive logits of tokens that were there before; 1 is off
    #[arg(long, value_name = "F", default_value_t = 1.0)]
    repetition_penalty: f32,
}

impl Usual {
    fn sampling(self) -> Result<Sampling> {
        let Self { temperature, top_k, top_p, min_p, repetition_penalty } = self;
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed: 0 };
        Ok(*Sampler::new(sampling)?.sampling())
    }
}

/// An origin, as browsers write it.
fn origin(text: &str) -> Result<String, String> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    match rest {
        Some(rest) if !rest.is_empty() && rest.chars().all(plain) => Ok(text.to_lowercase()),
        _ => Err("wanted a scheme, a host and perhaps a port, such as https://example.org".into()),
    }
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let terminal = globals.terminal();
    let sampling = options.usual.sampling()?;
    let keys = options.keys().await?;
    let listener = options.listen(!keys.is_empty())?;
    let place = locate(options.model.as_deref());
    let opened = open(&place, globals).await?;
    let tokenizer = Arc::new(tokenizer(globals, &opened).await?);
    let asked = options.template.as_deref().map(Scaffold::named).transpose()?;
    let Choice { scaffold, warning } = choose(&tokenizer, opened.template(), asked);
    if let Some(warning) = warning {
        terminal.warn(warning);
    }
    // Fails before the weights are read if the tokenizer has no separator token for chats.
    encode_chat(&tokenizer, scaffold, &[Message::new(Role::User, "")])?;
    let enough = SessionOptions::of(&opened.config).context;
    let sizes = options.sizes.sizes(&opened.config, enough.into());
    let sizes = sizes.for_texts(options.rows, options.contexts.min(options.rows));

    let alias = options.alias.clone().unwrap_or_else(|| name(&place));
    let mut times = Times::default();
    times.request = Duration::from_secs(options.timeout.into());
    times.grace = Duration::from_secs(options.grace.into());
    let quiet = globals.quiet;
    let settings = Settings {
        alias: alias.clone(),
        any_model: options.any_model,
        max_tokens: options.max_tokens,
        sampling,
        keys,
        origins: options.cors_origin.clone(),
        body: BODY,
        connections: CONNECTIONS,
        times,
        log: Arc::new(move |entry| {
            if !quiet {
                line(entry);
            }
        }),
    };
    let model = Model {
        tokenizer: Arc::clone(&tokenizer),
        scaffold,
        vocab: opened.config.vocab_size,
        meta: json!({
            "vocab_size": opened.config.vocab_size,
            "layers": opened.config.num_hidden_layers(),
            "weights_bytes": opened.weights.bytes(),
        }),
    };
    let (submit, mut jobs) = channel(options.queue.into(), times.write);
    let _kept = signals::keep();
    let over = Arc::new(AtomicBool::new(false));
    let stop = {
        let over = Arc::clone(&over);
        move || signals::interrupted() || over.load(Ordering::SeqCst)
    };
    let server = Server::start(listener, settings, model, submit, stop)
        .map_err(|error| Error::io("the server", error))?;

    let read = options::Options::until_end(&tokenizer).read(&opened.config, &tokenizer, &sampling);
    let facts = Arc::default();
    let mut serving = Serving {
        reload: Reload { globals, opened: &opened, sizes, prompt: 1, read },
        facts: Arc::clone(&facts),
    };
    let engine = serving.build().await?;
    let facts = facts.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
    let (context, rows) = (engine.options().context, options.rows);
    let texts = Texts::new(engine, &tokenizer, options.sharing())?;
    server.ready(Ready {
        context,
        rows,
        fingerprint: fingerprint(globals, &opened, &facts),
        facts,
    });
    let url = format!("http://{}", server.address());
    if globals.json {
        out_json(&json!({ "url": url, "model": alias, "context": context, "rows": rows }))?;
    }
    terminal.note(format!(
        "serving {alias} at {url}, where a page to talk with it is; or try:\n  \
         curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n    \
         -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'"
    ));
    let ended = Box::pin(driver::run(texts, &mut serving, &mut jobs, options.share_prefixes)).await;
    // What waits has nobody to answer it.
    drop(jobs);
    over.store(true, Ordering::SeqCst);
    server.join();
    if ended.is_ok() {
        // That was asked for, and it was done.
        signals::settle();
    }
    ended
}

impl Options {
    fn sharing(&self) -> Sharing {
        let mut sharing = Sharing::default().keeping(self.keep.wanted());
        sharing.queue = self.queue.into();
        sharing.stall = u64::from(self.max_stall) * 1000;
        sharing
    }

    /// The keys of the file and of the environment.
    async fn keys(&self) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        if let Some(file) = &self.api_key_file {
            let text = read_text(file, KEYS.0).await?;
            keys.extend(
                text.lines().map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned),
            );
            if keys.is_empty() {
                return Err(Error::format(file, "there is no key in it, expected one a line"));
            }
        }
        keys.extend(std::env::var("GROK_WGPU_API_KEY").ok().filter(|key| !key.trim().is_empty()));
        let good = |key: &String| {
            key.trim().chars().count() >= KEYS.1 && key.trim().chars().all(|c| c.is_ascii_graphic())
        };
        if !keys.iter().all(good) {
            let what = format!("a key has less than {} characters, or others than ASCII's", KEYS.1);
            return Err(Error::Usage(what).with_hint("`openssl rand -hex 32` makes a good one."));
        }
        Ok(keys.iter().map(|key| Key::new(key.trim())).collect())
    }

    /// Listens. Without a key, only on this computer's own address.
    fn listen(&self, has_key: bool) -> Result<TcpListener> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let listener = TcpListener::bind((host, self.port)).map_err(|error| {
            Error::Usage(format!("{host} port {} cannot be listened on: {error}", self.port))
                .with_hint("Take another one with `--port`, or a free one with `--port 0`.")
        })?;
        let local = listener.local_addr().is_ok_and(|address| IpAddr::is_loopback(&address.ip()));
        if local || has_key || self.insecure_no_auth {
            return Ok(listener);
        }
        let what = format!("other computers could connect to {host}, and no key is asked for");
        Err(Error::Usage(what).with_hint(
            "Give keys with `--api-key-file FILE` or the environment's GROK_WGPU_API_KEY, or say \
             `--insecure-no-auth`.",
        ))
    }
}

/// The name of a model, of where it is.
fn name(place: &Located) -> String {
    let stem = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        name.map(|name| name.to_string_lossy().into_owned())
    };
    match place {
        Located::Path(path) => stem(path).unwrap_or_else(|| "model".to_owned()),
        Located::Hub(name) => name.to_string().trim_start_matches("hf://").to_owned(),
        Located::BuiltIn => "demo".to_owned(),
    }
}

/// What decides the bits of an answer, apart from the request: the model, the device, and how work
/// is divided on it.
fn fingerprint(globals: &Globals, opened: &Opened<FileSource>, facts: &Value) -> String {
    let all = format!(
        "{} {:?} {:?} {} {facts}",
        env!("CARGO_PKG_VERSION"),
        globals.compat,
        opened.config,
        opened.weights.bytes(),
    );
    format!("fp_{}", digest(&all))
}

/// The first digits of a text's SHA-256.
fn digest(text: &str) -> String {
    let mut digits = String::new();
    for byte in Sha256::digest(text.as_bytes()).iter().take(6) {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// Loads the model as other commands do, and notes what it runs on.
struct Serving<'a> {
    reload: Reload<'a>,
    facts: Arc<Mutex<Option<Value>>>,
}

impl Rebuild for Serving<'_> {
    type Machine = Gpu;

    async fn build(&mut self) -> Result<Engine<Gpu>> {
        let mut engine = self.reload.build().await?;
        // A signal ends the server in its own way.
        engine.while_bringing(None);
        let gpu = engine.machine();
        let options = engine.options();
        let facts = json!({
            "adapter": gpu.caps().describe(),
            "cache": options.cache.name(),
            "split": options.split,
            "host_compute": options.host_compute.is_some(),
            "tuning": digest(&format!("{:?}", gpu.tuning())),
        });
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
        Ok(engine)
    }

    fn on_change(&mut self, change: Change<'_>) {
        self.reload.on_change(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_that_browsers_send() {
        for fine in ["https://example.org", "http://localhost:3000", "http://[::1]:80"] {
            assert_eq!(origin(fine), Ok(fine.to_owned()));
        }
        for bad in ["*", "null", "example.org", "https://", "https://a/b", "https://a b", ""] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_model_is_called_as_its_file_or_folder() {
        let of = |path: &str| name(&Located::Path(PathBuf::from(path)));
        assert_eq!(of("models/demo"), "demo");
        assert_eq!(of("models/demo/"), "demo");
        assert_eq!(of("some/grok-2.gguf"), "grok-2");
        assert_eq!(name(&Located::BuiltIn), "demo");
    }
}
