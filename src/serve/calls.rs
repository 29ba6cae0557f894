//! Calls of functions in answers, as they come in pieces.

use serde::de::IgnoredAny;

use crate::text::grammar::CALL;

/// How a call goes on after [`CALL`]: its name follows.
const NAME: &str = "{\"name\":\"";

/// What is between its name and its arguments.
const ARGUMENTS: &str = "\",\"arguments\":";

/// An answer that may end with a call, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Calls {
    state: State,
    /// What cannot be told yet.
    held: String,
    /// The arguments so far.
    arguments: String,
    /// Whether it has ended as a call that is complete.
    whole: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Name,
    Arguments,
}

/// What is new of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Text that is no call.
    pub(super) text: String,
    /// The name of the function, once it is known.
    pub(super) name: Option<String>,
    /// JSON of its arguments.
    pub(super) arguments: String,
}

impl Calls {
    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &str) -> Said {
        self.held += piece;
        let mut said = Said::default();
        if self.state == State::Text {
            if let Some(at) = self.held.find(CALL) {
                said.text.push_str(&self.held[..at]);
                self.held.drain(..at + CALL.len());
                self.state = State::Name;
            } else {
                // What may be the beginning of a call.
                let begins = |at: &usize| CALL.starts_with(&self.held[*at..]);
                let ends = self.held.char_indices().map(|(at, _)| at);
                let at = ends.into_iter().find(begins).unwrap_or(self.held.len());
                said.text.extend(self.held.drain(..at));
            }
        }
        if self.state == State::Name
            && let Some((name, _)) =
                self.held.strip_prefix(NAME).and_then(|rest| rest.split_once(ARGUMENTS))
        {
            let name = name.to_owned();
            self.held.drain(..NAME.len() + name.len() + ARGUMENTS.len());
            said.name = Some(name);
            self.state = State::Arguments;
        }
        if self.state == State::Arguments {
            // The last brace is not one of the arguments.
            let last = self.held.char_indices().next_back().map_or(0, |(at, _)| at);
            said.arguments.extend(self.held.drain(..last));
            self.arguments += &said.arguments;
        }
        said
    }

    /// What is left at the end. `stopped` says whether the answer has come to an end of its own,
    /// which may be a stop text in the middle of a call; `forced`, whether it must be a call.
    pub(super) fn finish(&mut self, stopped: bool, forced: bool) -> Said {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Text if !forced => Said { text: held, ..Said::default() },
            State::Arguments => {
                let is_json = serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok();
                self.whole = stopped && held == "}" && is_json;
                let arguments = if self.whole { String::new() } else { held };
                Said { arguments, ..Said::default() }
            }
            // Half of a name is of no use, nor is the beginning of a call's mark.
            State::Text | State::Name => Said::default(),
        }
    }

    /// Whether it was a call, and complete.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole of an answer in pieces of so many characters.
    fn all(answer: &str, piece: usize, stopped: bool) -> (Said, bool) {
        let (mut calls, mut all) = (Calls::default(), Said::default());
        let chars: Vec<char> = answer.chars().collect();
        let pieces = chars.chunks(piece).map(|piece| piece.iter().collect::<String>());
        let mut add = |said: Said| {
            all.text += &said.text;
            all.arguments += &said.arguments;
            all.name = all.name.take().or(said.name);
        };
        for piece in pieces {
            add(calls.push(&piece));
        }
        add(calls.finish(stopped, false));
        (all, calls.is_whole())
    }

    #[test]
    fn a_call_is_found_whatever_the_pieces() {
        for piece in 1..60 {
            let (said, is_call) = all(
                "Let me see <tool <tool_call>{\"name\":\"f_1\",\"arguments\":{\"é\":\"}\"}}",
                piece,
                true,
            );
            assert_eq!(
                (said.text.as_str(), said.name.as_deref(), said.arguments.as_str()),
                ("Let me see <tool ", Some("f_1"), "{\"é\":\"}\"}"),
                "{piece}"
            );
            assert!(is_call);
            let (said, is_call) = all("1 < 2 <tool_cal", piece, true);
            assert_eq!((said.text.as_str(), is_call), ("1 < 2 <tool_cal", false));
        }
    }

    #[test]
    fn what_is_cut_off_is_told_as_far_as_it_came() {
        let (said, is_call) = all("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":{}", 5, false);
        assert_eq!((said.arguments.as_str(), is_call), ("{\"a\":{}", false));
        let (said, is_call) = all("<tool_call>{\"name\":\"f", 5, false);
        assert_eq!((said, is_call), (Said::default(), false));
        // A stop text in the middle of a call.
        for arguments in ["{\"kind\":\"cat\",\"", "{\"kind\":\"cat\",\"legs\":", "{\"a\":{}", "{}"]
        {
            let cut = format!("<tool_call>{{\"name\":\"f\",\"arguments\":{arguments}");
            let (said, is_call) = all(&cut, 7, true);
            assert_eq!((said.arguments.as_str(), is_call), (arguments, false));
        }
        // The mark of a call that must come is no text.
        let mut calls = Calls::default();
        assert_eq!(calls.push("<tool_c"), Said::default());
        assert_eq!(calls.finish(true, true), Said::default());
    }
}
