//! What drivers want of the environment on Linux.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    process::Command,
};

/// Where programs of a session keep their sockets.
const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";

/// A folder that is not there, so that nobody can have put a socket into it.
const NOWHERE: &str = "/nonexistent";

/// Begins the program again with [`RUNTIME_DIR`] set, if it is not. Does not return then.
///
/// Mesa's layer that sorts devices asks Wayland for its display. Without the variable, as over ssh,
/// under sudo and in containers, Wayland's library prints an error of its own for each try,
/// whatever the program is asked for. It prints nothing if the display is not in the folder.
///
/// The layer can be turned off too, but then `MESA_VK_DEVICE_SELECT` and `DRI_PRIME` would do
/// nothing. A variable of the own process can be set only by an `unsafe` function. `exec` is none:
/// the process stays the same, and with it the parent's view of signals and exit codes. It costs
/// the time of loading the program, a few milliseconds. If it fails, the messages stay.
pub(super) fn quiet_drivers(args: &[OsString]) {
    if !is_missing(std::env::var_os(RUNTIME_DIR).as_deref()) {
        return;
    }
    let Some((name, args)) = args.split_first() else { return };
    let Ok(program) = std::env::current_exe() else { return };
    let _error = Command::new(program).arg0(name).args(args).env(RUNTIME_DIR, NOWHERE).exec();
}

/// Whether Wayland's library would complain: it wants an absolute path.
fn is_missing(value: Option<&OsStr>) -> bool {
    value.is_none_or(|value| !value.as_encoded_bytes().starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_to_a_path_stays() {
        assert!(!is_missing(Some(OsStr::new("/run/user/1000"))));
        assert!(!is_missing(Some(OsStr::new(NOWHERE))), "or the program would begin for ever");
        for value in [None, Some(""), Some("run")] {
            assert!(is_missing(value.map(OsStr::new)), "{value:?}");
        }
    }
}
