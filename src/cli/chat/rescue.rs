//! A conversation that nobody saved is written to a file when the chat ends unasked, or another
//! conversation takes its place.

use std::{
    path::PathBuf,
    process,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use grok_wgpu::lab::{
    files::replace::{make_parent, replace_file},
    text::talk::Talk,
};

use super::super::{globals::own_folder, signals::before_the_end, terminal::line};

/// The conversation so far, as it would be saved; `None` if there is nothing to lose. By default
/// nothing is noted: who sends lines from a program has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Rescue(Option<Arc<Mutex<Option<String>>>>);

impl Rescue {
    /// Nothing yet. What is noted from now on is written if a signal ends the program.
    pub(super) fn armed() -> Self {
        let rescue = Self(Some(Arc::default()));
        let noted = rescue.clone();
        before_the_end(move || noted.write());
        rescue
    }

    /// Notes the conversation.
    pub(super) fn note(&self, talk: &Talk) {
        self.set((!talk.turns().is_empty()).then(|| text_of(talk)));
    }

    /// Notes that nothing would be lost.
    pub(super) fn forget(&self) {
        self.set(None);
    }

    fn set(&self, text: Option<String>) {
        if let Some(noted) = &self.0 {
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
    }

    /// Writes what was noted, and says where it is.
    pub(super) fn write(&self) {
        let take = |noted: &Arc<Mutex<Option<String>>>| {
            noted.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let Some(text) = self.0.as_ref().and_then(take) else { return };
        let Some(path) = file() else {
            return line("the conversation is lost: there is no folder of the user's to keep it");
        };
        match make_parent(&path).and_then(|()| replace_file(&path, text.as_bytes())) {
            Ok(()) => {
                line(format!("the conversation is kept: /load {} goes on with it", path.display()));
            }
            Err(error) => line(format!("the conversation is lost: {error}")),
        }
    }
}

/// What `/save` writes.
pub(super) fn text_of(talk: &Talk) -> String {
    format!("{:#}\n", talk.to_json())
}

/// A new file in the user's own folder, named by the time and the process.
fn file() -> Option<PathBuf> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let name = format!("chat-{}-{}.json", now.replace(':', "-"), process::id());
    Some(own_folder()?.join("unsaved").join(name))
}
