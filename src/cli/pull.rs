//! `pull`: downloads a model of the Hugging Face hub into the cache that other programs share.

use std::{io, time::Instant};

use clap::Args;
use grok_wgpu::lab::{
    base::{
        error::{Error, Result},
        num::size,
    },
    files::hub::{Fetched, Hub, Name, Remote},
};
use serde_json::{Value, json};

use super::{
    globals::Globals,
    hub::{commit, described, download, hub, in_cache, lacking, listed},
    terminal::{out, out_json},
};

/// Download a model of the Hugging Face hub
///
/// Files go to the cache that other programs share, and each has its name only when its hash is
/// right. What is there is not downloaded again, and a download that was stopped goes on. After
/// that, `hf://OWNER/NAME` is the model's name in every command. The folder is printed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  grok-wgpu pull hf://xai-org/grok-2
  grok-wgpu pull hf://xai-org/grok-2@main --json
  grok-wgpu pull hf://OWNER/NAME@v1.0/FOLDER
  grok-wgpu pull hf://OWNER/NAME/FILE.gguf
  grok-wgpu inspect hf://xai-org/grok-2

Environment:
  HF_TOKEN        a token of the hub, for models that are private or have terms; else what
                  `hf auth login` stored in $HF_HOME/token. It is sent to the hub alone
  HF_HUB_CACHE    the cache; else $HF_HOME/hub, else ~/.cache/huggingface/hub
  HF_ENDPOINT     another address than https://huggingface.co
  HF_HUB_OFFLINE  1: use no network
  HTTPS_PROXY     a proxy, with NO_PROXY for what needs none")]
pub(super) struct Options {
    /// `hf://OWNER/NAME`; @REVISION (a branch, a tag or a commit) and /FOLDER or /FILE may follow
    #[arg(value_name = "NAME")]
    name: String,
}

/// Runs the command.
pub(super) async fn run(globals: &Globals, options: &Options) -> Result<()> {
    let name = Name::of_words(&options.name)?;
    let terminal = globals.terminal();
    let start = Instant::now();
    let hub = hub().await?;
    let commit = commit(&hub, &name, terminal)?;
    let folder = hub.folder(&name, &commit);
    let (files, fetched) = if hub.is_offline() {
        // What opens is whole, unless a listing in the cache says otherwise.
        in_cache(&hub, &name, &commit, globals).await?;
        whole(&hub, &name, &commit)?;
        (Vec::new(), Fetched::default())
    } else {
        let (listing, files) = listed(&hub, &name, &commit, terminal)?;
        terminal.note(described(&name, &files));
        let fetched = download(&hub, &listing, &files, terminal)?;
        (files, fetched)
    };
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    let seconds = start.elapsed().as_secs_f64();
    if globals.json {
        let files: Vec<Value> = files.iter().map(as_json).collect();
        return out_json(&json!({
            "name": name.to_string(),
            "commit": commit,
            "folder": folder.display().to_string(),
            "files": files,
            "bytes": bytes,
            "downloaded_files": fetched.files,
            "downloaded_bytes": fetched.bytes,
            "present_files": fetched.present,
            "seconds": seconds,
        }));
    }
    out(&format!("{}\n", folder.display()))?;
    let came = match fetched.files {
        0 => "all of it was there".to_owned(),
        files => {
            let rate = fetched.bytes as f64 / 1e6 / seconds.max(1e-9);
            format!(
                "{files} files came, {} in {seconds:.1} s ({rate:.0} MB/s)",
                size(fetched.bytes)
            )
        }
    };
    terminal.note(format!("{came}\nnext: grok-wgpu chat {name}"));
    Ok(())
}

/// An error if the cache lacks files that are wanted, as far as it knows.
fn whole(hub: &Hub, name: &Name, commit: &str) -> Result<()> {
    let lacking = lacking(hub, name, commit);
    if lacking.is_empty() {
        return Ok(());
    }
    let what = format!("HF_HUB_OFFLINE is set, and the cache lacks {}", lacking.join(", "));
    let error = io::Error::new(io::ErrorKind::NotFound, what);
    Err(Error::io(name.to_string(), error)
        .with_hint(format!("`grok-wgpu pull {name}` without HF_HUB_OFFLINE fetches it.")))
}

fn as_json(file: &Remote) -> Value {
    let hash = if file.etag.len() == 64 { "sha256" } else { "git_sha1" };
    json!({ "path": file.path, "bytes": file.size, hash: file.etag })
}
