"""Calls a server by LiteLLM, as aider does. scripts/clients/run runs it."""

import os

# Otherwise it asks a host for the prices of models when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from calls import LEFT, MODEL, SERVER, STORY, call, left, metric, raises, run
from forms import IMPOSSIBLE, IMPOSSIBLE_AT, TOKENS, Pet, token

litellm.suppress_debug_info = True
ASK = {
    "model": f"openai/{MODEL}",
    "api_base": SERVER + "/v1",
    "api_key": "none",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": STORY}],
    "max_tokens": 12,
    "seed": 3,
    "max_retries": 0,
}


def text():
    return litellm.completion(**ASK).choices[0].message.content


@call
def whole():
    answer = litellm.completion(**ASK)
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12


@call
def stream():
    parts = list(litellm.completion(**ASK, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == text()
    assert parts[-1].choices[0].finish_reason == "length"


@call
def stream_of_aider():
    ask = {**ASK, "temperature": 0, "stream_options": {"include_usage": True}}
    parts = list(litellm.completion(**ask, stream=True))
    built = litellm.stream_chunk_builder(parts, messages=ask["messages"])
    assert built.choices[0].message.content
    assert built.usage.completion_tokens == 12


@call
def settings():
    answer = litellm.completion(**{**ASK, "max_tokens": 7}, n=2, stop=["zzz"], top_p=0.9)
    assert len(answer.choices) == 2


NOTE = {
    "type": "function",
    "function": {"name": "Pet", "parameters": Pet.model_json_schema()},
}
ONE = {"tools": [NOTE], "tool_choice": {"type": "function", "function": {"name": "Pet"}}}
FORM = {**ASK, "max_tokens": TOKENS}


@call
def forms():
    choice = litellm.completion(**FORM, response_format=Pet).choices[0]
    assert choice.finish_reason == "stop" and Pet.model_validate_json(choice.message.content)
    bias = {str(token("}")): 100}
    any_object = {"response_format": {"type": "json_object"}, "logit_bias": bias}
    assert litellm.completion(**FORM, **any_object).choices[0].message.content == "{}"


@call
def tool_loop():
    first = litellm.completion(**FORM, **ONE).choices[0]
    (made,) = first.message.tool_calls
    assert first.finish_reason == "tool_calls" and made.function.name == "Pet" and made.id
    assert Pet.model_validate_json(made.function.arguments)
    result = {"role": "tool", "tool_call_id": made.id, "content": "It is noted."}
    messages = [*ASK["messages"], first.message, result]
    asked = {**ASK, "messages": messages}
    assert litellm.completion(**asked, tools=[NOTE], tool_choice="none").choices[0].message.content
    required = litellm.completion(
        **{**FORM, "messages": messages}, **{**ONE, "tool_choice": "required"}
    )
    assert Pet.model_validate_json(required.choices[0].message.tool_calls[0].function.arguments)


@call
def streamed_calls():
    whole = litellm.completion(**FORM, **ONE).choices[0].message.tool_calls[0].function
    parts = list(litellm.completion(**FORM, **ONE, stream=True))
    built = litellm.stream_chunk_builder(parts, messages=ASK["messages"]).choices[0]
    (made,) = built.message.tool_calls
    assert len(parts) > 3 and built.finish_reason == "tool_calls"
    assert (made.function.name, made.function.arguments) == ("Pet", whole.arguments)
    deltas = [call for part in parts for call in part.choices[0].delta.tool_calls or []]
    assert made.id == deltas[0].id, made


@call
def completions():
    ask = {**ASK, "model": f"text-completion-openai/{MODEL}", "prompt": "Once upon a time"}
    del ask["messages"]
    assert litellm.text_completion(**ask).choices[0].text


@call
def errors():
    bad, absent = litellm.BadRequestError, litellm.NotFoundError
    raises(bad, lambda: litellm.completion(**ASK, temperature=3))
    raises(absent, lambda: litellm.completion(**{**ASK, "model": "openai/gpt-4"}))
    # It is told apart by the words of the message, by which programs cut conversations.
    endless = {**ASK, "max_tokens": 10**6}
    raises(litellm.ContextWindowExceededError, lambda: litellm.completion(**endless))
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": IMPOSSIBLE}}
    error = raises(bad, lambda: litellm.completion(**ASK, response_format=form))
    assert IMPOSSIBLE_AT in error.message, error


@call
def leaves_early():
    before = metric(LEFT)
    long = {**ASK, "max_tokens": 1500, "extra_body": {"ignore_eos": True}}
    parts = litellm.completion(**long, stream=True)
    next(iter(parts))
    parts.completion_stream.response.close()
    left(before)


run("litellm")
