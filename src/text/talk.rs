//! A conversation that may be longer than a context: the model sees the system text and the latest
//! exchanges.

use serde_json::{Map, Value, json};

use crate::{
    base::{
        error::{Error, Result},
        json::{clipped, parse_object},
    },
    text::{
        chat::{Message, Role, Scaffold, encode_chat},
        tokenizer::Tokenizer,
    },
};

/// A conversation. An exchange is a message of the person and the answer to it.
///
/// The oldest exchanges can be left out of what the model sees. They stay in the conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Talk {
    /// Empty for none.
    system: String,
    /// Messages of the person and of the model, the oldest first.
    turns: Vec<Message>,
    /// The first of the turns that the model sees: the beginning of an exchange.
    from: usize,
}

impl Talk {
    /// The instructions for the whole conversation; empty if there are none.
    pub fn system(&self) -> &str {
        &self.system
    }

    /// Sets the instructions; empty for none.
    pub fn set_system(&mut self, text: impl Into<String>) {
        self.system = text.into();
    }

    /// All messages but the system text.
    pub fn turns(&self) -> &[Message] {
        &self.turns
    }

    /// Adds a message.
    pub fn push(&mut self, role: Role, content: impl Into<String>) {
        self.turns.push(Message::new(role, content));
    }

    /// Removes the last message if it is of this role.
    pub fn pop(&mut self, role: Role) -> Option<Message> {
        let last = self.turns.pop_if(|message| message.role == role);
        self.from = self.from.min(self.turns.len());
        last
    }

    /// Removes the last exchange, and returns its messages; none if there is no exchange. What was
    /// left out may have room again, so nothing is left out until the next [`Talk::fit`].
    pub fn undo(&mut self) -> Vec<Message> {
        self.from = 0;
        let start = self.starts().last();
        self.turns.split_off(start.unwrap_or_default())
    }

    /// Removes all messages but the system text.
    pub fn clear(&mut self) {
        self.turns.clear();
        self.from = 0;
    }

    /// How many exchanges there are.
    pub fn exchanges(&self) -> usize {
        self.starts().count()
    }

    /// How many of the exchanges, the oldest, the model does not see.
    pub fn left_out(&self) -> usize {
        self.starts().filter(|&start| start < self.from).count()
    }

    /// Where exchanges begin. What is before the first message of the person is one too.
    fn starts(&self) -> impl Iterator<Item = usize> {
        let begins = |&at: &usize| at == 0 || self.turns[at].role == Role::User;
        (0..self.turns.len()).filter(begins)
    }

    /// What the model sees, with the turns from the `from`th on.
    fn view(&self, from: usize) -> Vec<Message> {
        let system = (!self.system.is_empty()).then(|| Message::new(Role::System, &*self.system));
        system.into_iter().chain(self.turns[from..].iter().cloned()).collect()
    }

    /// The token ids of what the model sees, up to where it answers; none if it sees nothing.
    ///
    /// # Errors
    ///
    /// Those of [`encode_chat`].
    pub fn ids(&self, tokenizer: &Tokenizer, scaffold: &Scaffold) -> Result<Vec<u32>> {
        self.ids_from(self.from, tokenizer, scaffold)
    }

    fn ids_from(&self, from: usize, tokenizer: &Tokenizer, to: &Scaffold) -> Result<Vec<u32>> {
        let view = self.view(from);
        if view.is_empty() { Ok(Vec::new()) } else { encode_chat(tokenizer, to, &view) }
    }

    /// As [`Talk::ids`], after leaving out the oldest exchanges if otherwise the ids and `answer`
    /// more tokens were not fewer than `context`.
    ///
    /// As many are left out as must be, and then more, but not the exchange before the last, until
    /// an eighth of the context is free: otherwise each message would have all of the context
    /// processed anew.
    ///
    /// # Errors
    ///
    /// [`Error::ContextLength`] if not even the last exchange has room, and nothing is left out
    /// then; those of [`encode_chat`].
    pub fn fit(
        &mut self,
        tokenizer: &Tokenizer,
        scaffold: &Scaffold,
        context: usize,
        answer: usize,
    ) -> Result<Vec<u32>> {
        let ids = self.ids(tokenizer, scaffold)?;
        if ids.len() + answer < context {
            return Ok(ids);
        }
        let starts: Vec<usize> = self.starts().filter(|&start| start > self.from).collect();
        // The first of `starts` from which on there are fewer than `most` tokens. A search by
        // halves: a file may hold thousands of exchanges.
        let first_below = |most: usize| -> Result<usize> {
            let (mut low, mut high) = (0, starts.len());
            while low < high {
                let middle = low.midpoint(high);
                let ids = self.ids_from(starts[middle], tokenizer, scaffold)?;
                if ids.len() + answer < most { high = middle } else { low = middle + 1 }
            }
            Ok(low)
        };
        let needed = first_below(context)?;
        if needed == starts.len() {
            let from = starts.last().copied().unwrap_or(self.from);
            let prompt = self.ids_from(from, tokenizer, scaffold)?.len() + answer;
            return Err(Error::ContextLength { prompt, wanted: 1, context });
        }
        let spare = first_below(context - context / 8)?.min(starts.len().saturating_sub(2));
        self.from = starts[needed.max(spare)];
        self.ids(tokenizer, scaffold)
    }

    /// The conversation as chat interfaces have it: `{"messages": [{"role": …, "content": …}]}`,
    /// with the system text first and with what the model does not see.
    pub fn to_json(&self) -> Value {
        let messages: Vec<Value> = self
            .view(0)
            .iter()
            .map(|message| json!({"role": message.role.name(), "content": message.content}))
            .collect();
        json!({ "messages": messages })
    }

    /// The conversation of which [`Talk::to_json`] made this text. Other fields are ignored.
    ///
    /// # Errors
    ///
    /// A sentence that names the message and the field.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let object = parse_object(text)?;
        let wanted = "expected {\"messages\": [{\"role\": …, \"content\": …}]}";
        let messages = object.get("messages").and_then(Value::as_array);
        let messages = messages.ok_or_else(|| format!("there is no list `messages`, {wanted}"))?;
        let mut talk = Self::default();
        for (i, message) in messages.iter().enumerate() {
            let at = |what: String| format!("messages[{i}]: {what}");
            let message = message.as_object().ok_or_else(|| at("it is no object".to_owned()))?;
            let role = text_of(message, "role").map_err(at)?;
            let role: Role = role.parse().map_err(|error: Error| at(error.to_string()))?;
            let content = text_of(message, "content").map_err(at)?.to_owned();
            match role {
                Role::System if i == 0 => talk.system = content,
                Role::System => return Err(at("only the first message has role system".into())),
                Role::User | Role::Assistant => talk.turns.push(Message { role, content }),
            }
        }
        Ok(talk)
    }
}

fn text_of<'m>(message: &'m Map<String, Value>, field: &str) -> Result<&'m str, String> {
    let value = message.get(field).ok_or_else(|| format!("`{field}` is missing"))?;
    let got = || format!("`{field}` is {}, expected a text", clipped(&value.to_string()));
    value.as_str().ok_or_else(got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::synthetic_tok_json;

    fn tokenizer() -> Tokenizer {
        let json = synthetic_tok_json(2048).expect("in range");
        Tokenizer::from_tok_json("synthetic", json.as_bytes()).expect("valid")
    }

    /// A system text, and exchanges that are told apart by their numbers.
    fn talk(exchanges: std::ops::Range<usize>) -> Talk {
        let mut talk = Talk::default();
        talk.set_system("Be brief.");
        for i in exchanges {
            talk.push(Role::User, format!("What is the number {i:03}?"));
            talk.push(Role::Assistant, format!("It is {i:03}, as you said."));
        }
        talk
    }

    fn len(talk: &Talk) -> usize {
        talk.ids(&tokenizer(), &Scaffold::GROK_2).expect("a conversation").len()
    }

    #[test]
    fn what_has_room_stays() {
        let mut whole = talk(0..3);
        whole.push(Role::User, "And now?");
        let (tokenizer, scaffold) = (tokenizer(), &Scaffold::GROK_2);
        let ids = whole.ids(&tokenizer, scaffold).expect("a conversation");
        let fitted = whole.fit(&tokenizer, scaffold, ids.len() + 8, 7).expect("it has room");
        assert_eq!((fitted, whole.left_out()), (ids, 0));
    }

    /// The ids are those of a conversation that has nothing but the exchanges that are left.
    #[test]
    fn the_oldest_exchanges_are_left_out_whole() {
        let (tokenizer, scaffold) = (tokenizer(), &Scaffold::GROK_2);
        for (context, answer) in [(8, 0), (8, 3), (64, 0), (100, 0), (100, 20), (300, 0)] {
            let mut long = talk(0..40);
            long.push(Role::User, "And now?");
            let fitted = match long.fit(&tokenizer, scaffold, context, answer) {
                Ok(ids) => ids,
                Err(error) => {
                    assert!(matches!(error, Error::ContextLength { .. }), "{error}");
                    assert_eq!((context, long.left_out()), (8, 0));
                    continue;
                }
            };
            assert!(fitted.len() + answer < context);
            let mut fresh = talk(long.left_out()..40);
            fresh.push(Role::User, "And now?");
            assert_eq!(fresh.ids(&tokenizer, scaffold).expect("a conversation"), fitted);
            assert_eq!((long.exchanges(), fresh.left_out()), (41, 0));
            // One exchange more would leave less than the eighth.
            let mut more = talk(long.left_out() - 1..40);
            more.push(Role::User, "And now?");
            assert!(len(&more) + answer >= context - context / 8, "{context}, {answer}");
        }
    }

    #[test]
    fn the_exchange_before_the_last_is_left_out_only_if_it_must_be() {
        let (tokenizer, scaffold) = (tokenizer(), &Scaffold::GROK_2);
        let mut two = talk(1..2);
        two.push(Role::User, "And now?");
        let context = len(&two) + 1;
        let mut three = talk(0..2);
        three.push(Role::User, "And now?");
        three.fit(&tokenizer, scaffold, context, 0).expect("two have room");
        assert_eq!(three.left_out(), 1);
        three.fit(&tokenizer, scaffold, context, 1).expect("one has room");
        assert_eq!((three.left_out(), three.exchanges()), (2, 3));
    }

    #[test]
    fn the_last_exchange_can_be_taken_back() {
        let mut talk = talk(0..3);
        talk.fit(&tokenizer(), &Scaffold::GROK_2, 80, 0).expect("some have room");
        assert!(talk.left_out() > 0);
        assert_eq!(talk.undo().len(), 2);
        assert_eq!((talk.exchanges(), talk.left_out()), (2, 0));
        assert_eq!(talk.pop(Role::User), None);
        let answer = talk.pop(Role::Assistant).expect("the last is an answer");
        assert_eq!(answer.content, "It is 001, as you said.");
        assert_eq!((talk.undo().len(), talk.undo().len(), talk.undo().len()), (1, 2, 0));
        assert_eq!(talk.system(), "Be brief.");
    }

    #[test]
    fn json_gives_the_conversation_back() {
        let mut talk = talk(0..3);
        talk.turns[1].content = "  two blanks first".to_owned();
        talk.fit(&tokenizer(), &Scaffold::GROK_2, 80, 0).expect("some have room");
        assert!(talk.left_out() > 0);
        let read = Talk::from_json(&talk.to_json().to_string()).expect("as it was written");
        talk.from = 0;
        assert_eq!(read, talk);
        let none = Talk::from_json("{\"messages\": [], \"model\": 1}").expect("no messages");
        assert_eq!(none, Talk::default());
    }

    #[test]
    fn json_that_is_no_conversation_is_told() {
        for (text, told) in [
            ("[]", "not the expected JSON"),
            ("{}", "there is no list `messages`, expected {\"messages\""),
            (r#"{"messages": 1}"#, "there is no list `messages`"),
            (r#"{"messages": ["hello"]}"#, "messages[0]: it is no object"),
            (r#"{"messages": [{"content": "x"}]}"#, "messages[0]: `role` is missing"),
            (r#"{"messages": [{"role": "tool", "content": ""}]}"#, "role is \"tool\", expected"),
            (r#"{"messages": [{"role": "user", "content": 7}]}"#, "`content` is 7, expected a te"),
            (
                r#"{"messages": [{"role": "user", "content": "x"},
                    {"role": "system", "content": "y"}]}"#,
                "messages[1]: only the first message has role system",
            ),
        ] {
            let error = Talk::from_json(text).expect_err(text);
            assert!(error.contains(told), "{error:?} has no {told:?}");
        }
    }
}
