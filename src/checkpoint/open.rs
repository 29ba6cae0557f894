//! Opens a model from its files, wherever they are: in a folder, a page, or on a server.

use std::path::{Path, PathBuf};

use crate::{
    base::{
        error::{Error, Result},
        json,
    },
    checkpoint::{
        Checked, Checkpoint, Gguf, ModelFiles, Release, gguf, is_part, magic, release,
        scan::unfinished,
        usual::{self, Usual, is_usual},
    },
    files::{Source, read_all, read_text},
    model::config::{Compat, Config},
    text::{
        chat::Template,
        sampler::Sampling,
        tokenizer::{
            AroundConfig, MAX_FILE, SENTENCE_PIECE, TOKENIZER_JSON, Tokenizer, check_size,
        },
    },
};

/// File name of the configuration.
pub const CONFIG: &str = "config.json";

/// Bytes of the longest `config.json` that is read: the parser refuses longer ones.
const MAX_CONFIG: u64 = 5 << 20;

/// A model whose configuration and headers have been read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened<S> {
    /// The configuration, with the arithmetic that was asked for.
    pub config: Config,
    /// The weights, of which those that are not finite are refused.
    pub weights: Checked<S>,
    /// Warnings: oddities that do not prevent loading.
    pub warnings: Vec<String>,
    /// How tokens are sampled where nobody says: [`Sampling::USUAL`], changed by a
    /// `generation_config.json`.
    pub sampling: Sampling,
    path: PathBuf,
    /// Files that may hold a tokenizer.
    tokenizers: Vec<S>,
    /// Ids that end a text, and tokens that do as they are spelt.
    end_ids: Vec<u32>,
    end_texts: Vec<String>,
    around: AroundConfig,
    template: Option<Template>,
}

/// Whether the file of this name may be part of a model: its configuration, weights, tokenizer, or
/// defaults of its texts.
pub fn is_model_file(name: &str) -> bool {
    name == CONFIG || is_part(name) || is_gguf(name) || is_tokenizer(name) || is_usual(name)
}

/// The names of files beside a `config.json` that say how its texts begin and end, how tokens are
/// sampled, and how conversations are written. None is needed.
pub fn usual_files() -> [&'static str; 5] {
    usual::FILES
}

/// Whether the file of this name is in llama.cpp's format. Names that begin with a dot are other
/// programs' temporary files.
pub fn is_gguf(name: &str) -> bool {
    let end = name.len().checked_sub(gguf::EXTENSION.len()).and_then(|at| name.get(at..));
    !name.starts_with('.') && end.is_some_and(|end| end.eq_ignore_ascii_case(gguf::EXTENSION))
}

/// Whether the file of this name is a tokenizer.
pub(super) fn is_tokenizer(name: &str) -> bool {
    Tokenizer::FILES.contains(&name)
}

/// Opens the model that these files hold. `path` is its name in messages.
///
/// Files of Grok-1's first release are read as such; without a `config.json` they have Grok-1's
/// configuration. Else, with a `config.json` the weights are safetensors; without one, GGUF.
/// Other files are ignored.
///
/// # Errors
///
/// [`Error::Format`] if there is no configuration or there are no weights, and those of
/// [`Config::from_json`], [`Checkpoint::open`], [`Release::open`] and [`Gguf::open`].
pub async fn open<S: Source>(path: &Path, files: Vec<S>, compat: Compat) -> Result<Opened<S>> {
    let (tokenizers, files): (Vec<S>, Vec<S>) =
        files.into_iter().partition(|file| is_tokenizer(file.name()));
    let (defaults, files): (Vec<S>, Vec<S>) =
        files.into_iter().partition(|file| is_usual(file.name()));
    let has_config = files.iter().find(|file| file.name() == CONFIG);
    let is_release = files.iter().any(|file| release::is_tensor(file.name()))
        && !files.iter().any(|file| file.name().ends_with(".safetensors"));
    let mut said = Usual::default();
    let (config, weights, mut warnings) = if has_config.is_some() || is_release {
        let (mut config, text, mut warnings) = match has_config {
            Some(file) => {
                let text = read_text(file, MAX_CONFIG).await?;
                let (config, warnings) = Config::from_json(&file.path(), &text)?;
                (config, text, warnings)
            }
            None => (Config::grok_1(), "{}".to_owned(), Vec::new()),
        };
        said = Usual::read(&text, &defaults, config.vocab_size).await?;
        let weights = if is_release {
            let has_config = has_config.is_some();
            let tensors =
                files.into_iter().filter(|file| release::is_tensor(file.name())).collect();
            let release = Release::open(path, tensors, &config).await;
            let release = release.map_err(|error| match error {
                Error::Checkpoint { path, mut problems } if !has_config => {
                    problems
                        .push("there is no config.json, so Grok-1's own sizes are wanted".into());
                    Error::Checkpoint { path, problems }
                }
                error => error,
            })?;
            ModelFiles::Release(Box::new(release))
        } else {
            let parts = files.into_iter().filter(|file| is_part(file.name())).collect();
            let checkpoint = Checkpoint::open(path, in_order(path, parts)?, &config).await?;
            warnings.extend_from_slice(checkpoint.warnings());
            ModelFiles::Safetensors(Box::new(checkpoint))
        };
        if compat == Compat::LlamaCpp {
            config = config.as_llama_cpp();
        }
        (config, weights, warnings)
    } else {
        let mut parts = Vec::new();
        for file in files {
            if is_gguf(file.name()) || begins_as_gguf(&file).await? {
                parts.push(file);
            }
        }
        parts.sort_by(|a, b| a.name().cmp(b.name()));
        let first = parts
            .first()
            .ok_or_else(|| Error::format(CONFIG, "the file is missing, and there is no *.gguf"))?;
        let gguf = Gguf::open(&first.path(), parts, compat).await?;
        let (config, warnings) = (gguf.config().clone(), gguf.warnings().to_vec());
        (config, ModelFiles::Gguf(Box::new(gguf)), warnings)
    };
    warnings.append(&mut said.warnings);
    warnings.extend(unfinished(&weights).await?);
    let Usual { sampling, end_ids, end_texts, around, mut template, .. } = said;
    if let ModelFiles::Gguf(gguf) = &weights {
        let source = || gguf::CHAT_TEMPLATE.to_owned();
        template =
            gguf.chat_template().map(|text| Template { source: source(), text: text.into() });
    }
    let path = path.into();
    Ok(Opened {
        config,
        weights: Checked::new(weights),
        warnings,
        sampling,
        path,
        tokenizers,
        end_ids,
        end_texts,
        around,
        template,
    })
}

/// Reads a `config.json`. Also returns warnings, as [`Config::from_json`] does.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is too long or not UTF-8, and those
/// of [`Config::from_json`].
pub async fn read_config(file: &impl Source) -> Result<(Config, Vec<String>)> {
    Config::from_json(&file.path(), &read_text(file, MAX_CONFIG).await?)
}

/// Reads the tokenizer from the first of [`Tokenizer::FILES`] that is among `files`. `path` is
/// their folder in messages.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be read, [`Error::Tokenizer`] if there is none or it is invalid.
pub async fn read_tokenizer<S: Source>(path: &Path, files: &[S]) -> Result<Tokenizer> {
    let named = |name: &str| files.iter().find(|file| file.name() == name);
    let file = Tokenizer::FILES.into_iter().find_map(named);
    let file = file.ok_or_else(|| Tokenizer::missing(path))?;
    check_size(file.len()).map_err(|what| Error::Tokenizer { path: file.path(), what })?;
    let bytes = read_all(file, MAX_FILE).await?;
    Tokenizer::from_file(file.path(), &bytes).map_err(|error| {
        // What takes the place of a binary file: a pointer to it, a page that says it is missing.
        let start = &bytes[..bytes.len().min(magic::LOOK)];
        match magic::recognize(start).filter(|_| file.name() == SENTENCE_PIECE) {
            Some(what) => Error::Tokenizer {
                path: file.path(),
                what: what.replace("safetensors files are", "a SentencePiece model is"),
            },
            None => error,
        }
    })
}

/// Sorts the files of weights by name; an error if there are none.
pub(super) fn in_order<S: Source>(path: &Path, mut parts: Vec<S>) -> Result<Vec<S>> {
    // An index without its files says itself what is wrong.
    let told = |name: &str| is_part(name) && !name.ends_with(".bin.index.json");
    if !parts.iter().any(|file| told(file.name())) {
        return Err(Error::format(path, "the folder holds no *.safetensors file"));
    }
    parts.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(parts)
}

impl<S: Source> Opened<S> {
    /// Reads the tokenizer from the file of the weights or from one beside it. It must not have
    /// more tokens than the model. Its [`Tokenizer::stop_ids`] and [`Tokenizer::begin_ids`] are
    /// those of all the model's files.
    ///
    /// # Errors
    ///
    /// Those of [`read_tokenizer`] and [`Gguf::tokenizer`]; [`Error::Tokenizer`] if it has more
    /// tokens than the model.
    pub async fn tokenizer(&self) -> Result<Tokenizer> {
        // A GGUF without a supported tokenizer may have one in a file beside it.
        let within = match &*self.weights {
            ModelFiles::Gguf(gguf) => gguf.tokenizer()?,
            ModelFiles::Safetensors(_) | ModelFiles::Release(_) => None,
        };
        let tokenizer = match within {
            Some(tokenizer) => tokenizer,
            None if self.tokenizers.is_empty() => return Err(self.no_tokenizer()),
            None => read_tokenizer(&self.path, &self.tokenizers).await?,
        };
        tokenizer.check_vocab(self.config.vocab_size)?;
        let tokenizer = tokenizer.ending_with(&self.end_ids, &self.end_texts);
        Ok(tokenizer.with_around_config(&self.around))
    }

    /// The chat template that the model brings.
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// The error for a model without a tokenizer that is read.
    fn no_tokenizer(&self) -> Error {
        let kind = match &*self.weights {
            ModelFiles::Gguf(gguf) => gguf.vocabulary(),
            ModelFiles::Safetensors(_) | ModelFiles::Release(_) => None,
        };
        let Some(kind) = kind else { return Tokenizer::missing(&self.path) };
        let kind = json::clipped(kind);
        let what = format!(
            "the vocabulary in the file is of the kind \"{kind}\", which is not read; put the \
             model's {TOKENIZER_JSON} or {SENTENCE_PIECE} beside it"
        );
        Error::Tokenizer { path: self.path.clone(), what }
    }
}

/// Whether the file has the first bytes of a GGUF, whatever its name: other programs keep files by
/// their hash.
async fn begins_as_gguf(file: &impl Source) -> Result<bool> {
    let mut start = [0; gguf::MAGIC.len()];
    if file.len() < start.len() as u64 {
        return Ok(false);
    }
    file.read(0, &mut start).await?;
    Ok(start == gguf::MAGIC)
}

/// The whole file's name, if this is one of its pieces, such as `x.gguf.part2of5`.
fn piece(name: &str) -> Option<&str> {
    let (whole, end) = name.rsplit_once(".part")?;
    let (number, count) = end.split_once("of")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_gguf(whole) && digits(number) && digits(count)).then_some(whole)
}

/// Selects the files of the model in a folder, in the order in which they are opened. `named` is
/// the file that the user named, if it was not the folder. `folder` is for messages. `begins` says
/// of a name that does not tell whether that file begins as a GGUF.
///
/// Unless the model is GGUF, `config.json` is always selected, so that a missing one is reported by
/// name.
///
/// # Errors
///
/// [`Error::Format`] if the folder holds several models, [`Error::Checkpoint`] with all missing
/// parts of a split model.
pub fn choose(
    folder: &Path,
    names: &[String],
    named: Option<&str>,
    begins: &dyn Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let beside = names.iter().filter(|name| is_tokenizer(name)).cloned();
    let has_config = names.iter().any(|name| name == CONFIG);
    let told = |name: &str| is_model_file(name) || name.starts_with('.');
    let is_gguf = |name: &str| is_gguf(name) || (!told(name) && begins(name));
    let ggufs: Vec<&str> = match named {
        Some(name) if is_gguf(name) => vec![name],
        None if !has_config => {
            // The first part of a split model stands for all of them.
            let first = |name: &str| gguf::part(name).is_none_or(|(_, number, _)| number == 1);
            let all = || names.iter().map(String::as_str).filter(|name| is_gguf(name));
            let firsts: Vec<&str> = all().filter(|name| first(name)).collect();
            // Without its first part, the others say which one is missing.
            if firsts.is_empty() { all().take(1).collect() } else { firsts }
        }
        _ => Vec::new(),
    };
    let given = named.into_iter().chain(names.iter().map(String::as_str));
    let mut pieces = given.filter(|_| !has_config).filter_map(|name| Some((name, piece(name)?)));
    if let Some((name, whole)) = pieces.next()
        && ggufs.iter().all(|&gguf| gguf == name || piece(gguf).is_some())
    {
        let what = format!("this is a piece of {whole}");
        let hint = "Join all of them in order, as `cat` does, and name what comes of it.";
        return Err(Error::format(folder.join(name), what).with_hint(hint));
    }
    let usual = names.iter().filter(|name| is_usual(name)).cloned();
    let mut chosen = match ggufs[..] {
        [one] => parts_of(folder, names, one)?,
        [] => {
            let weights = names.iter().filter(|name| is_part(name)).cloned();
            let weights = named.map_or_else(|| weights.collect(), |name| vec![name.to_owned()]);
            [vec![CONFIG.to_owned()], weights, usual.collect()].concat()
        }
        [one, ..] => {
            let what = format!("the folder holds {} GGUF models", ggufs.len());
            let hint = format!("Name one of the files, such as {}.", folder.join(one).display());
            return Err(Error::format(folder, what).with_hint(hint));
        }
    };
    chosen.extend(beside);
    Ok(chosen)
}

/// The names of all parts of the split model that the file `name` belongs to; only `name` if it is
/// not split.
pub fn gguf_parts(name: &str) -> impl Iterator<Item = String> {
    let split = gguf::part(name).map(|(stem, _, count)| (stem.to_owned(), count));
    let whole = split.is_none().then(|| name.to_owned());
    let parts = split.into_iter().flat_map(|(stem, count)| {
        (1..=count)
            .map(move |number| format!("{stem}-{number:05}-of-{count:05}{}", gguf::EXTENSION))
    });
    whole.into_iter().chain(parts)
}

/// The same; an error that lists the parts that are missing.
fn parts_of(folder: &Path, names: &[String], name: &str) -> Result<Vec<String>> {
    /// The number of parts comes from a file name, so the length of the message is bounded.
    const LISTED: usize = 100;
    let missing: Vec<String> = gguf_parts(name)
        .filter(|part| gguf::part(part).is_some() && !names.contains(part))
        .take(LISTED)
        .map(|part| format!("{} is missing", folder.join(part).display()))
        .collect();
    if missing.is_empty() {
        return Ok(gguf_parts(name).collect());
    }
    Err(Error::Checkpoint { path: folder.join(name), problems: missing })
}
