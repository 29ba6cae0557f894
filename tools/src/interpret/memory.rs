//! Shadowed memory: records the accesses to each word, and words that were never written.

/// An access: the phase, invocation and source line. Phase 0 means no access.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamp {
    pub(crate) phase: u32,
    pub(crate) who: u32,
    pub(crate) line: u32,
}

/// In place of an invocation: several of them read the word in one phase.
const SEVERAL: u32 = u32::MAX;

/// A fault of an access.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Conflict {
    /// A race: another invocation accessed the word in this phase, and one of the two wrote.
    Race { other: Stamp, other_wrote: bool },
    /// The word was never written.
    Unwritten,
}

#[derive(Clone, Copy, Default)]
struct Shadow {
    write: Stamp,
    read: Stamp,
    written: bool,
}

/// The words of a variable, with shadows if invocations may write them.
pub struct Memory {
    words: Vec<u32>,
    shadows: Vec<Shadow>,
}

impl Memory {
    /// Read-only memory.
    pub fn constant(words: Vec<u32>) -> Self {
        Self { words, shadows: Vec::new() }
    }

    /// Writable memory; words that equal `unwritten` count as never written.
    pub fn shadowed(words: Vec<u32>, unwritten: u32) -> Self {
        let shadow = |&word| Shadow { written: word != unwritten, ..Shadow::default() };
        Self { shadows: words.iter().map(shadow).collect(), words }
    }

    /// Workgroup memory, not written yet.
    pub(crate) fn workgroup(len: usize) -> Self {
        Self { words: vec![0; len], shadows: vec![Shadow::default(); len] }
    }

    /// The contents.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    pub(crate) fn read(&mut self, at: usize, by: Stamp) -> (u32, Option<Conflict>) {
        let word = self.words[at];
        let Some(shadow) = self.shadows.get_mut(at) else { return (word, None) };
        let write = shadow.write;
        let conflict = if !shadow.written {
            Some(Conflict::Unwritten)
        } else if write.phase == by.phase && write.who != by.who {
            Some(Conflict::Race { other: write, other_wrote: true })
        } else {
            None
        };
        let several = shadow.read.phase == by.phase && shadow.read.who != by.who;
        shadow.read = Stamp { who: if several { SEVERAL } else { by.who }, ..by };
        (word, conflict)
    }

    pub(crate) fn write(&mut self, at: usize, word: u32, by: Stamp) -> Option<Conflict> {
        self.words[at] = word;
        let shadow = &mut self.shadows[at];
        let race = |other: Stamp, other_wrote| {
            let same = other.phase == by.phase && other.who != by.who;
            same.then_some(Conflict::Race { other, other_wrote })
        };
        let conflict = race(shadow.write, true).or_else(|| race(shadow.read, false));
        shadow.write = by;
        shadow.written = true;
        conflict
    }
}

/// From here on, in place of an invocation: a matrix that a subgroup stores.
const MATRIX: u32 = 1 << 31;

impl Stamp {
    /// The same access by any invocations of a subgroup.
    pub(crate) fn several(self) -> Self {
        Self { who: SEVERAL, ..self }
    }

    /// In place of an invocation: the store of a matrix with this number.
    pub(crate) fn matrix(number: u32) -> u32 {
        MATRIX + number
    }

    /// The invocation, for messages.
    pub(crate) fn name(self) -> String {
        if self.who == SEVERAL {
            "several invocations".into()
        } else if self.who >= MATRIX {
            "a subgroup".into()
        } else {
            format!("invocation {}", self.who)
        }
    }
}
