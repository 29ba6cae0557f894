//! Answers of a prescribed form, and calls of functions.

use serde_json::{Value, json};

use crate::harness::Served;

const CHAT: &str = "/v1/chat/completions";

fn tools() -> Value {
    let parameters = json!({ "type": "object", "properties": { "a": {}, "b": {} } });
    let get = json!({ "name": "get_it", "description": "Gets it.", "parameters": parameters });
    json!([
        { "type": "function", "function": get },
        { "type": "function", "function": { "name": "stop", "strict": true } },
    ])
}

/// The data of a stream, but for its end.
fn events(body: &str) -> Vec<Value> {
    let events = body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let events = events.filter(|data| *data != "[DONE]");
    events.map(|data| serde_json::from_str(data).expect("JSON")).collect()
}

#[test]
fn forms_reach_the_engine() {
    let server = Served::new();
    let schema = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
    let json_schema = json!({ "name": "x", "schema": schema, "strict": false });
    let named = json!({ "type": "function", "function": { "name": "stop" } });
    for (more, constrained) in [
        (json!({ "response_format": { "type": "text" } }), false),
        (json!({ "response_format": { "type": "json_object" } }), true),
        (json!({ "response_format": { "type": "json_schema", "json_schema": json_schema } }), true),
        (json!({ "tools": tools() }), true),
        (json!({ "tools": tools(), "tool_choice": "auto" }), true),
        (json!({ "tools": tools(), "tool_choice": "required" }), true),
        (json!({ "tools": tools(), "tool_choice": named }), true),
        (json!({ "tools": tools(), "tool_choice": "none" }), false),
        (json!({ "tool_choice": "auto", "tools": [] }), false),
    ] {
        let answer = server.chat("hello", &more);
        assert_eq!((answer.status, answer.header("x-ignored-fields")), (200, None), "{answer:?}");
        assert_eq!(server.asked().last().map(|begun| begun.constrained), Some(constrained));
        // Text is an answer where a call was possible.
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "Hi there", "{more}");
    }
}

#[test]
fn schemas_that_cannot_be_obeyed_are_refused_with_the_place() {
    let server = Served::new();
    let bad = json!({ "properties": { "a": { "type": "string", "if": {} } } });
    let format = json!({ "type": "json_schema", "json_schema": { "schema": bad } });
    let answer = server.chat("hello", &json!({ "response_format": format }));
    let wanted = (400, "invalid_schema".to_owned(), Some("response_format".to_owned()));
    assert_eq!(answer.error(), wanted);
    assert!(answer.body.contains("at /properties/a: "), "{answer:?}");
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": bad } });
    let answer = server.chat("hello", &json!({ "tools": [tool] }));
    assert_eq!(answer.error().1, "invalid_schema");
    assert!(answer.body.contains("parameters of `f` at /properties/a: "), "{answer:?}");
    for (more, param) in [
        (json!({ "response_format": { "type": "xml" } }), "response_format.type"),
        (json!({ "response_format": { "type": "json_schema" } }), "response_format.json_schema"),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x" } } }),
            "response_format.json_schema.schema",
        ),
        (json!({ "tools": [{ "type": "custom" }] }), "tools[0].type"),
        (json!({ "tools": [{ "type": "function" }] }), "tools[0].function"),
        (
            json!({ "tools": [{ "type": "function", "function": { "name": "a b" } }] }),
            "tools[0].function.name",
        ),
        (
            json!({ "tools": [
                { "type": "function", "function": { "name": "a", "parameters": 1 } },
            ] }),
            "tools[0].function.parameters",
        ),
    ] {
        let error = server.chat("hello", &more).error();
        assert_eq!((error.0, error.2.as_deref()), (400, Some(param)), "{more}");
    }
    assert!(server.asked().is_empty(), "nothing of it reached the engine");
}

#[test]
fn calls_are_told_apart_from_text() {
    let server = Served::new();
    let answer = server.chat("@call", &json!({ "tools": tools(), "n": 2 })).json();
    for (index, choice) in answer["choices"].as_array().expect("choices").iter().enumerate() {
        assert_eq!(
            (&choice["index"], &choice["finish_reason"]),
            (&json!(index), &json!("tool_calls"))
        );
        let message = &choice["message"];
        assert_eq!(message["content"], "Well ");
        let calls = message["tool_calls"].as_array().expect("calls");
        assert_eq!(calls.len(), 1);
        assert_eq!((&calls[0]["type"], calls[0].get("index")), (&json!("function"), None));
        let function = &calls[0]["function"];
        assert_eq!(function, &json!({ "name": "get_it", "arguments": "{\"a\":{},\"b\":1}" }));
    }
    let id = |index: usize| answer["choices"][index]["message"]["tool_calls"][0]["id"].clone();
    assert!(id(0).as_str().is_some_and(|id| id.starts_with("call_")) && id(0) != id(1));

    // Without functions it is text like any other.
    let text = server.chat("@call", &json!({})).json();
    assert_eq!(text["choices"][0]["finish_reason"], "stop");
    let content = text["choices"][0]["message"]["content"].as_str().expect("text");
    assert!(content.contains("<tool_call>{\"name\""), "{content}");

    // Cut off in the arguments, and before the name is known.
    let cut = server.chat("@cut:5", &json!({ "tools": tools() })).json();
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    let calls = &cut["choices"][0]["message"]["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"], "{\"a\":{},\"b\":1}");
    let cut = server.chat("@cut:2", &json!({ "tools": tools() })).json();
    assert_eq!(cut["choices"][0]["message"].get("tool_calls"), None, "{cut}");
}

#[test]
fn streams_of_calls_have_all_that_clients_put_together() {
    let server = Served::new();
    let more = json!({ "tools": tools(), "stream": true });
    let answer = server.chat("@call", &more);
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    let (mut text, mut arguments, mut names) = (String::new(), String::new(), Vec::new());
    let (mut ids, mut finish) = (Vec::new(), Vec::new());
    for event in events(&answer.body) {
        let choice = &event["choices"][0];
        text += choice["delta"]["content"].as_str().unwrap_or_default();
        finish.extend(choice["finish_reason"].as_str().map(str::to_owned));
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            assert_eq!((&call["index"], &call["type"]), (&json!(0), &json!("function")));
            ids.extend(call["id"].as_str().map(str::to_owned));
            names.extend(call["function"]["name"].as_str().map(str::to_owned));
            arguments += call["function"]["arguments"].as_str().expect("a string");
        }
    }
    assert_eq!((text.as_str(), arguments.as_str()), ("Well ", "{\"a\":{},\"b\":1}"));
    assert_eq!((names, finish), (vec!["get_it".to_owned()], vec!["tool_calls".to_owned()]));
    // Clients put ids together as they do arguments.
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn conversations_with_calls_are_told_to_the_model() {
    let server = Served::new();
    let call = |id: &str| {
        let function = json!({ "name": "get_it", "arguments": "{\"a\": 1}" });
        json!({ "id": id, "type": "function", "function": function })
    };
    let messages = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "Get it." },
        { "role": "assistant", "content": null, "tool_calls": [call("x"), call("y")] },
        { "role": "tool", "tool_call_id": "x", "content": "one" },
        { "role": "tool", "tool_call_id": "y", "content": [{ "type": "text", "text": "two" }] },
    ]);
    let made = server.post("/apply-template", &json!({ "messages": messages })).json();
    assert_eq!(
        made["prompt"],
        "System: Be brief.<|separator|>\n\nHuman: Get it.<|separator|>\n\nAssistant: \
         <tool_call>{\"name\":\"get_it\",\"arguments\":{\"a\":1}}\
         <tool_call>{\"name\":\"get_it\",\"arguments\":{\"a\":1}}<|separator|>\n\n\
         Human: <tool_response>one</tool_response>\n<tool_response>two</tool_response>\
         <|separator|>\n\nAssistant:"
    );
    let body = json!({ "messages": messages, "tools": tools(), "return_token_ids": true });
    assert_eq!(server.post(CHAT, &body).status, 200);
    let prompt = server.asked()[0].prompt.clone();
    let text = server.post("/detokenize", &json!({ "tokens": prompt })).json()["content"].clone();
    let text = text.as_str().expect("text");
    assert!(text.starts_with("System: Be brief.\n\nYou can call functions."), "{text}");
    assert!(text.contains("\n{\"name\":\"get_it\",\"description\":\"Gets it.\",\"parameters\":"));
    assert_eq!(text.matches("You can call functions.").count(), 1);
    let plain = json!({ "messages": messages, "tools": tools(), "tool_choice": "none" });
    assert_eq!(server.post(CHAT, &plain).status, 200);
    assert_eq!(json!(server.asked()[1].prompt), made["tokens"]);
}
