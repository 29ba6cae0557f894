//! GGUF files of llama.cpp's architecture `grok`.

pub mod blocks;
mod config;
pub mod header;
mod layout;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use self::{
    config::{ARCHITECTURES, Architecture},
    header::{Header, Info, MAX_HEADER, Metadata, Problem},
    layout::Place,
};
use super::{WINDOW, check_rows, layout::Tally, magic, resize, row_elements, tensor};
use crate::{
    base::{
        error::{Error, Result},
        json,
        tensor::DType,
    },
    files::Source,
    model::{
        config::{Compat, Config},
        schema::{self, Key, Part},
        weights::Weights,
    },
    text::tokenizer::{Around, Ggml, GgmlPieces, Tokenizer},
};

/// Bytes of the first read of a header.
const FIRST_LOOK: u64 = 1 << 20;

/// File extension of GGUF files, with the dot.
pub const EXTENSION: &str = ".gguf";

/// Key of the chat template.
pub(crate) const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Pre-tokenizers whose texts begin with the BOS token unless the file says otherwise, as in
/// llama.cpp.
const BEGIN_WITH_BOS: [&str; 1] = ["llama-bpe"];

/// Control tokens in `tokenizer.ggml.token_type`.
const CONTROL: i64 = 3;

/// The first bytes of a file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";

/// A GGUF of architecture `grok`, in one file or several, with every tensor found.
///
/// Readers get `Q8_0` and `Q4_0` as [`DType::Q8`] and [`DType::Q4`] without loss, `Q4_K` and `Q6_K`
/// as [`DType::Q8`]. Tensors that one kernel reads together but that differ in type are converted
/// to one type that can hold all of them.
#[derive(Debug)]
pub struct Gguf<S> {
    path: PathBuf,
    sources: Vec<S>,
    metadata: Metadata,
    config: Config,
    places: BTreeMap<String, Place>,
    warnings: Vec<String>,
}

impl<S: Source> Gguf<S> {
    /// Reads the headers of all files, the configuration, and finds every tensor. `path` is for
    /// messages only.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] if a file is not a valid GGUF or not of this architecture,
    /// [`Error::Config`] with all problems of the metadata, and [`Error::Checkpoint`] with every
    /// tensor or file that does not fit.
    pub async fn open(path: &Path, sources: Vec<S>, compat: Compat) -> Result<Self> {
        let headers = read_headers(path, &sources).await?;
        check_split(path, &sources, &headers)?;
        let Some(first) = headers.first() else {
            return Err(Error::format(path, "there is no GGUF file"));
        };
        let metadata = &first.metadata;
        let fail = |what| Error::format(path, what);
        let architecture = architecture(metadata).map_err(fail)?;
        let mut found: HashMap<&str, (usize, &Info)> = HashMap::new();
        let mut twice = Tally::default();
        for (source, header) in headers.iter().enumerate() {
            for info in &header.tensors {
                if let Some((other, _)) = found.insert(&info.name, (source, info)) {
                    twice.push(format!(
                        "`{}` is stored twice: in {} and in {}",
                        json::clipped(&info.name),
                        sources[other].name(),
                        sources[source].name()
                    ));
                }
            }
        }
        let mut problems = Vec::new();
        twice.finish("tensors that are stored twice", &mut problems);
        if !problems.is_empty() {
            return Err(Error::Checkpoint { path: path.into(), problems });
        }
        let find = |part| found.get(architecture.names.name(Key::new(0, part))?.as_str());
        let tensors = config::Tensors {
            vocab: find(Part::Embedding).and_then(|(_, info)| info.shape.first().copied()),
            head: find(Part::Head).is_some(),
            dense: find(Part::DenseUp).is_some(),
        };
        let (config, warnings) = config::config(architecture, metadata, tensors, compat)
            .map_err(|problems| Error::Config { path: path.into(), problems })?;
        let places =
            layout::resolve(&found, architecture.names, &config, &schema::tensors(&config))
                .map_err(|problems| Error::Checkpoint { path: path.into(), problems })?;
        // The first file has all the metadata of the model.
        let metadata = headers.into_iter().next().map(|first| first.metadata).unwrap_or_default();
        Ok(Self { path: path.into(), sources, metadata, config, places, warnings })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Warnings: values that were assumed because the file lacks them, and other oddities.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Bytes of all tensors in the element types that readers get.
    pub fn bytes(&self) -> u64 {
        self.places
            .values()
            .map(|place| {
                let rows = place.shape.first().copied().unwrap_or(1);
                rows * place.dtype.row_bytes(row_elements(&place.shape))
            })
            .sum()
    }

    /// The files, in the order of the parts of a split model.
    pub fn sources(&self) -> &[S] {
        &self.sources
    }

    /// The file that holds a tensor.
    pub fn files_of(&self, name: &str) -> Vec<&S> {
        self.places.get(name).map(|place| &self.sources[place.source]).into_iter().collect()
    }

    /// What the model is called in messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name, element type and extents of every tensor, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, DType, &[u64])> {
        self.places.iter().map(|(name, place)| (name.as_str(), place.dtype, place.shape.as_slice()))
    }

    /// The kind of the vocabulary in the file, if it has one: `tokenizer.ggml.model`.
    pub fn vocabulary(&self) -> Option<&str> {
        self.metadata.text("tokenizer.ggml.model").ok().flatten()
    }

    /// The tokenizer in the file, if it has a supported one. By `tokenizer.ggml.model`: byte-pair
    /// encoding with merges (`gpt2`), or SentencePiece (`llama`, `t5`).
    ///
    /// A text begins with the file's BOS token as `tokenizer.ggml.add_bos_token` says. Without that
    /// key it does with `llama` and with `gpt2`'s pre-tokenizer `llama-bpe`, as in llama.cpp.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if it is invalid.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        let fail = |what| Error::Tokenizer { path: self.path.clone(), what };
        let kind = self.metadata.text("tokenizer.ggml.model").map_err(fail)?;
        match kind {
            Some("gpt2") => {
                let vocabulary = self.merges().map_err(fail)?;
                let begins = vocabulary.pre.is_some_and(|pre| BEGIN_WITH_BOS.contains(&pre));
                let around = self.around(begins, None).map_err(fail)?;
                Tokenizer::from_ggml(&self.path, &vocabulary)?.with_around(around).map(Some)
            }
            Some(kind @ ("llama" | "t5")) => {
                let unigram = kind == "t5";
                let vocabulary = self.pieces(unigram).map_err(fail)?;
                // llama.cpp takes token 1 for BOS whatever it is; here it must be a mark.
                let bos = (vocabulary.types.get(1) == Some(&CONTROL)).then_some(1);
                let around = self.around(!unigram, bos.filter(|_| !unigram)).map_err(fail)?;
                let tokenizer = Tokenizer::from_ggml_pieces(&self.path, &vocabulary)?;
                tokenizer.with_around(around).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The vocabulary with merges.
    fn merges(&self) -> Result<Ggml<'_>, String> {
        let texts = |key: &str| self.metadata.texts(key)?.ok_or_else(|| missing(key));
        let types = self.metadata.integers("tokenizer.ggml.token_type")?;
        Ok(Ggml {
            tokens: texts("tokenizer.ggml.tokens")?,
            merges: texts("tokenizer.ggml.merges")?,
            types: types.unwrap_or_default(),
            pre: self.metadata.text("tokenizer.ggml.pre")?,
            ends: self.ends()?,
        })
    }

    /// The vocabulary of SentencePiece. What the file does not say is as llama.cpp has it.
    fn pieces(&self, unigram: bool) -> Result<GgmlPieces<'_>, String> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let need = |name: &str| missing(&key(name));
        let flag = |name: &str| self.metadata.truth(&key(name));
        let texts = self.metadata.texts(&key("tokens"))?;
        let scores = self.metadata.floats(&key("scores"))?;
        let unknown = self.metadata.unsigned(&key("unknown_token_id"))?;
        Ok(GgmlPieces {
            unigram,
            tokens: texts.ok_or_else(|| need("tokens"))?,
            scores: scores.ok_or_else(|| need("scores"))?,
            types: self.metadata.integers(&key("token_type"))?.unwrap_or_default(),
            unknown: unknown.unwrap_or(if unigram { 2 } else { 0 }),
            space_prefix: flag("add_space_prefix")?.unwrap_or(!unigram),
            remove_extra: flag("remove_extra_whitespaces")?.unwrap_or(false),
            charsmap: self.metadata.bytes(&key("precompiled_charsmap"))?.unwrap_or_default(),
            ends: self.ends()?,
        })
    }

    /// The tokens that end an answer.
    fn ends(&self) -> Result<Vec<u64>, String> {
        let mut ends = Vec::new();
        for key in ["eos", "eot", "eom"] {
            ends.extend(self.metadata.unsigned(&format!("tokenizer.ggml.{key}_token_id"))?);
        }
        Ok(ends)
    }

    /// The tokens that the file puts around each text. `begins` says whether one begins it where
    /// the file does not say, and `bos` which one that is where the file does not say.
    fn around(&self, begins: bool, bos: Option<u32>) -> Result<Around, String> {
        let token = |kind: &str, usual: bool, usual_id: Option<u32>| {
            let (add, id) = (
                format!("tokenizer.ggml.add_{kind}_token"),
                format!("tokenizer.ggml.{kind}_token_id"),
            );
            let said = self.metadata.truth(&add)?;
            if !said.unwrap_or(usual) {
                return Ok(None);
            }
            match (self.metadata.unsigned(&id)?, usual_id) {
                (Some(value), _) => u32::try_from(value)
                    .map(Some)
                    .map_err(|_| format!("{id} is {value}, wanted a token")),
                (None, None) if said.is_some() => {
                    Err(format!("{add} is true, but {id} is missing"))
                }
                (None, usual_id) => Ok(usual_id),
            }
        };
        Ok(Around {
            before: token("bos", begins, bos)?.into_iter().collect(),
            after: token("eos", false, None)?.into_iter().collect(),
        })
    }

    /// The chat template in the file, if it has one: `tokenizer.chat_template`.
    pub fn chat_template(&self) -> Option<&str> {
        self.metadata.text(CHAT_TEMPLATE).ok().flatten()
    }

    fn place(&self, name: &str) -> Result<&Place> {
        tensor(&self.places, &self.path, name)
    }

    async fn read_converted(
        &self,
        name: &str,
        place: &Place,
        row0: u64,
        rows: u64,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let stored = place.format.row_bytes(row_elements(&place.shape));
        let window = (WINDOW / stored.max(1)).max(1);
        let row_len = usize::try_from(stored).unwrap_or(usize::MAX).max(1);
        let mut bytes = Vec::new();
        let mut row = row0;
        while row < row0 + rows {
            let count = window.min(row0 + rows - row);
            resize(name, &mut bytes, count * stored)?;
            self.sources[place.source].read(place.offset + row * stored, &mut bytes).await?;
            for row in bytes.chunks_exact(row_len) {
                blocks::convert_row(place.format, row, place.dtype, into);
            }
            row += count;
        }
        Ok(())
    }
}

impl<S: Source> Weights for Gguf<S> {
    fn dtype(&self, name: &str) -> Result<DType> {
        self.place(name).map(|place| place.dtype)
    }

    async fn read_rows(&self, name: &str, row0: u64, rows: u64, into: &mut Vec<u8>) -> Result<()> {
        let place = self.place(name)?;
        check_rows(name, &place.shape, row0, rows)?;
        into.clear();
        let read = self.read_converted(name, place, row0, rows, into).await;
        // After an error no partly read rows are left in `into`.
        if read.is_err() {
            into.clear();
        }
        read
    }
}

/// The complaint about a key that is not there.
fn missing(key: &str) -> String {
    format!("{key} is missing")
}

/// The architecture named in the metadata.
fn architecture(metadata: &Metadata) -> Result<&'static Architecture, String> {
    const KEY: &str = "general.architecture";
    let wanted: Vec<String> =
        ARCHITECTURES.iter().map(|known| format!("\"{}\"", known.name)).collect();
    let wanted = wanted.join(" or ");
    let name = metadata.text(KEY)?.ok_or_else(|| format!("{KEY} is missing, wanted {wanted}"))?;
    ARCHITECTURES
        .iter()
        .find(|known| known.name == name)
        .ok_or_else(|| format!("{KEY} is \"{}\", wanted {wanted}", json::clipped(name)))
}

/// Reads the headers of all files; the error lists every broken file.
async fn read_headers<S: Source>(path: &Path, sources: &[S]) -> Result<Vec<Header>> {
    let mut headers = Vec::new();
    let mut broken = Vec::new();
    for source in sources {
        match read_header(source).await? {
            Ok(header) => headers.push(header),
            // The path may be that of the file.
            Err(what) if path.ends_with(source.name()) => broken.push(what),
            Err(what) => broken.push(format!("{}: {what}", source.name())),
        }
    }
    match &broken[..] {
        [] => Ok(headers),
        [one] => Err(Error::format(path, one)),
        _ => Err(Error::Checkpoint { path: path.into(), problems: broken }),
    }
}

/// The outer error is of reading, the inner one of parsing. Each attempt reads four times as many
/// bytes as the one before.
async fn read_header<S: Source>(source: &S) -> Result<Result<Header, String>> {
    let mut look = FIRST_LOOK;
    let mut bytes = Vec::new();
    loop {
        let len = source.len().min(look);
        bytes.clear();
        resize(source.name(), &mut bytes, len)?;
        source.read(0, &mut bytes).await?;
        if !bytes.starts_with(&MAGIC)
            && let Some(what) = magic::recognize(&bytes[..bytes.len().min(magic::LOOK)])
        {
            return Ok(Err(what.replace("safetensors files are", "a GGUF file is")));
        }
        match header::parse(&bytes, source.len()) {
            Ok(header) => return Ok(Ok(header)),
            Err(Problem::Bad(what)) => return Ok(Err(what)),
            Err(Problem::Short) if look >= MAX_HEADER => {
                return Ok(Err(format!(
                    "the header is longer than the {MAX_HEADER} bytes allowed"
                )));
            }
            Err(Problem::Short) => look *= 4,
        }
    }
}

/// Checks that all parts of a split model are there, in order.
fn check_split<S: Source>(path: &Path, sources: &[S], headers: &[Header]) -> Result<()> {
    let mut problems = Vec::new();
    for (i, (source, header)) in sources.iter().zip(headers).enumerate() {
        for (key, wanted) in [("split.no", i), ("split.count", sources.len())] {
            let absent = u64::from(key != "split.no");
            match header.metadata.unsigned(key) {
                Ok(got) if got.unwrap_or(absent) == wanted as u64 => {}
                Ok(got) => problems.push(format!(
                    "{}: {key} is {}, wanted {wanted}, as there {} and this is number {}",
                    source.name(),
                    got.map_or_else(|| "missing".into(), |got| got.to_string()),
                    if sources.len() == 1 {
                        "is one file".into()
                    } else {
                        format!("are {} files", sources.len())
                    },
                    i + 1
                )),
                Err(what) => problems.push(format!("{}: {what}", source.name())),
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Checkpoint { path: path.into(), problems })
    }
}

/// Stem, number and count of a part of a split model, such as `name-00002-of-00005.gguf`.
pub fn part(name: &str) -> Option<(&str, u32, u32)> {
    let rest = name.strip_suffix(EXTENSION)?;
    let (rest, count) = rest.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let parse = |digits: &str| {
        (digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse::<u32>().ok())?
    };
    Some((stem, parse(number)?, parse(count)?))
}
