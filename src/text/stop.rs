//! Stop texts (stop strings): finds them across the pieces of a streamed text, and holds back what
//! could be their beginning.

use crate::base::error::{Error, Result};

/// Looks for stop texts in a streamed text.
#[derive(Clone, Debug, Default)]
pub struct StopTexts {
    stops: Vec<String>,
    /// Text that could be the beginning of a stop text.
    held: String,
}

impl StopTexts {
    /// A search for these texts.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if one is empty: it would match everywhere.
    pub fn new(stops: &[String]) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::Usage("a stop text is empty, expected at least a character".into()));
        }
        Ok(Self { stops: stops.to_vec(), held: String::new() })
    }

    /// Adds a piece. Returns the text that can be shown now, and whether a stop text was found; if
    /// so, the text ends before it.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.held.truncate(at);
            return (self.rest(), true);
        }
        // The first position from which the held text could continue as a stop text.
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        let at = self.held.char_indices().map(|(at, _)| at).find(|&at| begins(at));
        let kept = self.held.split_off(at.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, kept), false)
    }

    /// The text held back, to be shown when no more pieces come.
    pub fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of pieces, and whether they were stopped.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut texts = StopTexts::new(&stops).expect("not empty");
        let mut shown = String::new();
        for piece in pieces {
            let (text, stopped) = texts.push(piece);
            shown += &text;
            if stopped {
                return (shown, true);
            }
        }
        (shown + &texts.rest(), false)
    }

    #[test]
    fn stops_are_found_across_pieces() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), ("a ".to_owned(), true));
        assert_eq!(run(&["END"], &["a E", "N", "x END"]), ("a ENx ".to_owned(), true));
        assert_eq!(run(&["END"], &["EEN", "DD"]), ("E".to_owned(), true));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".to_owned(), true));
        assert_eq!(run(&["END"], &["a EN"]), ("a EN".to_owned(), false));
        assert_eq!(run(&[], &["a", "b"]), ("ab".to_owned(), false));
    }

    #[test]
    fn the_first_of_several_counts() {
        assert_eq!(run(&["two", "one"], &["zero one two"]), ("zero ".to_owned(), true));
        assert_eq!(run(&["äö", "ö"], &["xä", "ö"]), ("x".to_owned(), true));
    }

    #[test]
    fn only_what_could_be_a_stop_is_held() {
        let mut texts = StopTexts::new(&["\n\nHuman".into()]).expect("not empty");
        assert_eq!(texts.push("hello \n"), ("hello ".to_owned(), false));
        assert_eq!(texts.push("world"), ("\nworld".to_owned(), false));
        assert_eq!(texts.rest(), "");
    }

    #[test]
    fn an_empty_stop_is_refused() {
        assert_eq!(StopTexts::new(&[String::new()]).expect_err("empty").code(), "usage");
    }
}
