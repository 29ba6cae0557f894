//! Signals: what Ctrl-C, `kill` and a terminal that is closed do to a command.
//!
//! A first signal asks the command to end, which keeps what it has. A second one ends the program
//! at once, or a third where the first only ends an answer. A command that has nothing to lose and
//! does not answer, because a file or a driver is slow, is ended after [`PATIENCE`].

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, AtomicU8, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use grok_wgpu::lab::base::error::{Error, Result};

use super::terminal::line;

/// How long a command that keeps nothing may take to end after a signal.
const PATIENCE: Duration = Duration::from_secs(1);

/// Signals that came, since Ctrl-C was forgotten.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// The signal that ends the program whatever it does; 0 if none came.
static LAST: AtomicI32 = AtomicI32::new(0);
/// A [`State`].
static STATE: AtomicU8 = AtomicU8::new(State::Free as u8);
/// What runs before the program ends at once.
static LAST_WORDS: Mutex<Option<Box<dyn Fn() + Send>>> = Mutex::new(None);

/// What the main thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Nothing is lost if the program ends here.
    Free,
    /// It has something that is kept if it ends by itself.
    Kept,
    /// It has that, and Ctrl-C ends only the answer that comes.
    Answers,
    /// It waits for a line.
    Waits,
    /// It waits for a line in the line editor, which has the terminal in raw mode and handles
    /// Ctrl-C.
    Edits,
}

/// Restores what was before, when dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Guard(u8);

impl Drop for Guard {
    fn drop(&mut self) {
        STATE.store(self.0, Ordering::SeqCst);
    }
}

/// While the guard lives, the command has something that is kept if it ends by itself.
pub(super) fn keep() -> Guard {
    Guard(STATE.swap(State::Kept as u8, Ordering::SeqCst))
}

/// While the guard lives, an answer comes, which Ctrl-C ends.
pub(super) fn answer() -> Guard {
    Guard(STATE.swap(State::Answers as u8, Ordering::SeqCst))
}

/// While the guard lives, the command waits for a line; `editor` says whether in the line editor.
pub(super) fn wait_for_line(editor: bool) -> Guard {
    let state = if editor { State::Edits } else { State::Waits };
    Guard(STATE.swap(state as u8, Ordering::SeqCst))
}

/// `words` run before a signal ends the program at once.
pub(super) fn before_the_end(words: impl Fn() + Send + 'static) {
    *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(words));
}

/// Ends the program at once.
fn end(code: u8) {
    system::restore_keys();
    if let Some(words) = &*LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) {
        words();
    }
    system::exit(code);
}

/// While the guard lives, what is typed is not shown, and is kept for the line editor to read,
/// whatever signals the keys send. Without a terminal, nothing happens.
#[derive(Debug)]
pub(super) struct Keys(());

impl Keys {
    pub(super) fn hold() -> Self {
        system::hold_keys();
        Self(())
    }

    /// The same once more, whatever changed the terminal meanwhile.
    #[expect(clippy::unused_self, reason = "only while the guard lives")]
    pub(super) fn hold_again(&self) {
        system::hold_keys();
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        system::restore_keys();
    }
}

/// Whether Ctrl-C was pressed, or the program must end.
pub(super) fn interrupted() -> bool {
    COUNT.load(Ordering::SeqCst) > 0 || ended_by().is_some()
}

/// Forgets that Ctrl-C was pressed.
pub(super) fn forget_interrupts() {
    COUNT.store(0, Ordering::SeqCst);
}

/// Forgets all signals: what they asked for was done, and is no failure.
pub(super) fn settle() {
    forget_interrupts();
    LAST.store(0, Ordering::SeqCst);
}

/// An error if Ctrl-C was pressed or the program must end.
pub(super) fn check_interrupt() -> Result<()> {
    if interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

/// The exit code, if a signal other than Ctrl-C came.
pub(super) fn ended_by() -> Option<u8> {
    let signal = LAST.load(Ordering::SeqCst);
    (signal != 0).then(|| exit_code(signal))
}

/// What shells give for a program that a signal ended.
fn exit_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// The main thread looks at it.
    Ask,
    /// The same, and the program ends if that takes too long.
    AskSoon,
    /// The person is told that the main thread will look at it.
    Tell,
    /// The program ends.
    End,
}

/// The effect of the `count`th signal in a state; `ctrl_c` says whether it is that.
fn effect(state: u8, count: usize, ctrl_c: bool) -> Effect {
    let is = |of: State| state == of as u8;
    match count {
        2 if is(State::Answers) && ctrl_c => Effect::Tell,
        2.. => Effect::End,
        _ if is(State::Waits) || (is(State::Edits) && !ctrl_c) => Effect::End,
        _ if is(State::Free) => Effect::AskSoon,
        _ => Effect::Ask,
    }
}

fn on_signal(signal: i32, ctrl_c: bool) {
    if !ctrl_c {
        LAST.store(signal, Ordering::SeqCst);
    }
    let count = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
    match effect(STATE.load(Ordering::SeqCst), count, ctrl_c) {
        Effect::Ask => {}
        Effect::Tell => {
            line("\nthe answer ends with the next token; Ctrl-C again ends the program");
        }
        Effect::End => end(exit_code(signal)),
        Effect::AskSoon => {
            // Another thread: this one takes the next signal.
            let _ = thread::Builder::new().spawn(move || {
                thread::sleep(PATIENCE);
                if interrupted() && STATE.load(Ordering::SeqCst) == State::Free as u8 {
                    end(exit_code(signal));
                }
            });
        }
    }
}

/// Takes signals from now on.
///
/// # Errors
///
/// [`Error::Usage`] if the system refuses.
pub(super) fn catch() -> Result<()> {
    system::catch().map_err(|error| Error::Usage(format!("signals cannot be caught: {error}")))
}

#[cfg(unix)]
mod system {
    use std::{
        io::{self, IsTerminal as _, Write as _},
        sync::{
            OnceLock,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use rustix::termios::{
        InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
    };
    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ},
        iterator::Signals,
        low_level,
    };

    use super::{STATE, State, end, exit_code, on_signal};

    /// How the terminal was before the program changed it.
    static TERMINAL: OnceLock<Termios> = OnceLock::new();
    /// Whether it is changed while the line editor does not run.
    static HELD: AtomicBool = AtomicBool::new(false);

    pub(super) fn catch() -> io::Result<()> {
        if let Ok(mode) = tcgetattr(io::stdin()) {
            TERMINAL.get_or_init(|| mode);
        }
        // A write beyond the limit of file sizes is an error then, and does not end the program.
        let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGXFSZ])?;
        // `nohup` has the signal of a closed terminal ignored, and both outputs elsewhere.
        if io::stdout().is_terminal() || io::stderr().is_terminal() {
            signals.add_signal(SIGHUP)?;
        }
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGXFSZ => {}
                    SIGQUIT => end(exit_code(signal)),
                    _ => on_signal(signal, signal == SIGINT),
                }
            }
        })?;
        Ok(())
    }

    /// Has the terminal keep what is typed, as keys, and not show it. Keys that send signals do so,
    /// but do not discard what was typed before them.
    pub(super) fn hold_keys() {
        let Some(mut mode) = TERMINAL.get().cloned() else { return };
        mode.local_modes -=
            LocalModes::ICANON | LocalModes::ECHO | LocalModes::ECHONL | LocalModes::IEXTEN;
        mode.local_modes |= LocalModes::ISIG | LocalModes::NOFLSH;
        // The editor tells the key Enter from Ctrl-J by that.
        mode.input_modes -= InputModes::ICRNL | InputModes::INLCR | InputModes::IGNCR;
        mode.special_codes[SpecialCodeIndex::VMIN] = 1;
        mode.special_codes[SpecialCodeIndex::VTIME] = 0;
        HELD.store(true, Ordering::SeqCst);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &mode);
        write("\x1b[?2004h");
    }

    /// Makes the terminal as it was, if that is needed.
    pub(super) fn restore_keys() {
        let edits = STATE.load(Ordering::SeqCst) == State::Edits as u8;
        if (HELD.swap(false, Ordering::SeqCst) || edits)
            && let Some(mode) = TERMINAL.get()
        {
            // The terminal may be gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, mode);
            write(if edits { "\x1b[?2004l\n" } else { "\x1b[?2004l" });
        }
    }

    /// Turns on or off that a terminal marks pasted text, as the editor does.
    fn write(sequence: &str) {
        let mut stdout = io::stdout();
        if stdout.is_terminal() {
            let _ = stdout.write_all(sequence.as_bytes());
            let _ = stdout.flush();
        }
    }

    /// Ends the program.
    pub(super) fn exit(code: u8) {
        // Without the exit handlers of drivers, which other threads still run.
        low_level::exit(code.into());
    }
}

#[cfg(windows)]
mod system {
    use std::io;

    use super::on_signal;

    pub(super) fn catch() -> io::Result<()> {
        // The number of Ctrl-C on Unix.
        ctrlc::set_handler(|| on_signal(2, true)).map_err(io::Error::other)
    }

    pub(super) fn hold_keys() {}

    pub(super) fn restore_keys() {}

    pub(super) fn exit(code: u8) {
        std::process::exit(code.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_effect_of_their_state() {
        use Effect::{Ask, AskSoon, End, Tell};
        for (state, ctrl_c, other) in [
            (State::Free, AskSoon, AskSoon),
            (State::Kept, Ask, Ask),
            (State::Answers, Ask, Ask),
            (State::Waits, End, End),
            (State::Edits, Ask, End),
        ] {
            let of = |count, is_ctrl_c| effect(state as u8, count, is_ctrl_c);
            assert_eq!((of(1, true), of(1, false)), (ctrl_c, other), "{state:?}");
            let second = if state == State::Answers { Tell } else { End };
            assert_eq!((of(2, true), of(2, false)), (second, End), "{state:?}");
            assert_eq!((of(3, true), of(3, false)), (End, End), "{state:?}");
        }
        assert_eq!((exit_code(2), exit_code(15), exit_code(1)), (130, 143, 129));
    }
}
