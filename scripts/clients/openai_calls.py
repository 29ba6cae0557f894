"""Calls a server by OpenAI's own client for Python; every answer must validate.

scripts/clients/run runs it.
"""

import asyncio
import functools
import json

import jiter
import openai
from calls import LEFT, MODEL, SERVER, STORY, call, left, metric, raises, run
from forms import IMPOSSIBLE, IMPOSSIBLE_AT, TOKENS, Pet, Stop, token

SETTINGS = {
    "base_url": SERVER + "/v1",
    "api_key": "none",
    "max_retries": 0,
    "_strict_response_validation": True,
}
client = openai.OpenAI(**SETTINGS)
# Its types lack what OpenAI's own server sends: a `finish_reason` and log-probabilities of null.
lenient = openai.OpenAI(**{**SETTINGS, "_strict_response_validation": False})
ASK = {
    "model": MODEL,
    "messages": [{"role": "user", "content": STORY}],
    "max_tokens": 12,
    "seed": 3,
}
create = client.chat.completions.create
parse = client.chat.completions.parse
FORM = {**ASK, "max_tokens": TOKENS}
NOTE, STOP = openai.pydantic_function_tool(Pet), openai.pydantic_function_tool(Stop)
ONE = {"tool_choice": {"type": "function", "function": {"name": "Pet"}}, "tools": [NOTE, STOP]}


def text():
    return create(**ASK).choices[0].message.content


@call
def whole():
    answer = create(**ASK)
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "length"
    usage = answer.usage
    assert usage.completion_tokens == 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert text() == answer.choices[0].message.content


@call
def conversation():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": STORY},
        {"role": "assistant", "content": "Once upon a time."},
        {"role": "user", "content": [{"type": "text", "text": "And then?"}]},
    ]
    asked = {**ASK, "messages": messages}
    # The system's text by its newer name is the same conversation.
    named = {**asked, "messages": [{**messages[0], "role": "developer"}] + messages[1:]}
    assert create(**asked).choices == create(**named).choices


@call
def stream():
    parts = list(create(**ASK, stream=True))
    assert all(part.choices and part.usage is None for part in parts)
    assert parts[0].choices[0].delta.role == "assistant"
    assert parts[-1].choices[0].finish_reason == "length"
    assert "".join(part.choices[0].delta.content or "" for part in parts) == text()


@call
def stream_with_usage():
    parts = list(create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == text()
    assert parts[-1].usage.total_tokens == create(**ASK).usage.total_tokens
    assert not parts[-1].choices and not any(part.usage for part in parts[:-1])


@call
def stream_helper():
    # The helper takes a cut answer for an error.
    sentence = {**ASK, "max_tokens": 200, "stop": "."}
    answer = create(**sentence).choices[0]
    assert answer.finish_reason == "stop" and "." not in answer.message.content
    with client.chat.completions.stream(**sentence) as events:
        seen = {event.type for event in events}
        final = events.get_final_completion().choices[0]
    assert final.message.content == answer.message.content
    assert {"content.delta", "content.done"} <= seen


@call
def several_texts_with_logprobs():
    answer = create(**ASK, logprobs=True, top_logprobs=2, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    assert answer.choices[0].message.content == text()
    for choice in answer.choices:
        tokens = choice.logprobs.content
        assert len(tokens) == 12 and all(len(token.top_logprobs) == 2 for token in tokens)
        # A text does not begin with the space of its first token.
        bytes_of_all = bytes(byte for token in tokens for byte in token.bytes)
        assert bytes_of_all.decode().lstrip() == choice.message.content
        assert all(-1e4 < token.logprob <= 0 for token in tokens)


@call
def settings_of_other_servers():
    extra = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "draft_model": None}
    raw = client.chat.completions.with_raw_response.create(**ASK, extra_body=extra)
    assert raw.parse().choices[0].message.content
    assert raw.headers["x-ignored-fields"] == "draft_model" and raw.headers["x-request-id"]


@call
def completions():
    answer = client.completions.create(
        model=MODEL,
        prompt=["a", "b"],
        echo=False,
        logprobs=2,
        max_tokens=3,
        n=1,
        seed=1,
        stop="x",
        suffix=None,
    )
    assert len(answer.choices) == 2 and len(answer.choices[0].logprobs.tokens) == 3
    ask = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    parts = list(lenient.completions.create(**ask, stream=True))
    whole = client.completions.create(**ask).choices[0].text
    assert "".join(part.choices[0].text for part in parts) == whole


@call
def echo():
    ask = {"model": MODEL, "temperature": 0, "echo": True, "logprobs": 2}
    complete, prompt = lenient.completions.create, "Once upon a time"
    answer = complete(**ask, prompt=prompt, max_tokens=0)
    (alone,) = answer.choices
    assert alone.text == prompt and "".join(alone.logprobs.tokens) == prompt
    assert answer.usage.completion_tokens == 0
    assert len(alone.logprobs.tokens) == answer.usage.prompt_tokens > 3
    more = complete(**ask, prompt=prompt, max_tokens=3).choices[0]
    assert more.text.startswith(prompt) and len(more.text) > len(prompt)
    logprobs, count = more.logprobs, len(more.logprobs.tokens)
    assert count == len(alone.logprobs.tokens) + 3
    offsets = [len("".join(logprobs.tokens[:i])) for i in range(count)]
    assert logprobs.text_offset == offsets
    # The same text as a prompt has the same log-probabilities, but for rounding.
    again = complete(**ask, prompt=more.text, max_tokens=0).choices[0].logprobs
    assert again.tokens == logprobs.tokens
    assert again.token_logprobs[0] is None and again.top_logprobs[0] is None
    for one, other in zip(again.token_logprobs[1:], logprobs.token_logprobs[1:], strict=True):
        assert one <= 0 and abs(one - other) < 1e-3, (one, other)
    # The model chose what is likeliest.
    for one, top in zip(logprobs.token_logprobs[-3:], logprobs.top_logprobs[-3:], strict=True):
        assert len(top) == 2 and one == max(top.values())
    parts = list(complete(**ask, prompt=prompt, max_tokens=3, stream=True))
    assert "".join(part.choices[0].text for part in parts) == more.text
    assert sum(len(p.choices[0].logprobs.tokens) for p in parts if p.choices[0].logprobs) == count


@call
def biases_and_penalties():
    cat, dog = token(" cat"), token(" dog")
    both = {**ASK, "temperature": 0, "logit_bias": {cat: 100, dog: 100}}
    words = create(**both).choices[0].message.content.split()
    assert len(words) == 12 and set(words) <= {"cat", "dog"}
    # What is there is less likely to come again.
    fewer = create(**both, frequency_penalty=2).choices[0].message.content.split()
    assert min(fewer.count("cat"), fewer.count("dog")) >= 3, fewer
    same = create(**both, presence_penalty=-2, frequency_penalty=-2).choices[0].message.content
    assert same.split() == [words[0]] * 12, same
    never = {**ASK, "temperature": 0, "logit_bias": {cat: 100, dog: -100}}
    assert create(**never).choices[0].message.content == " ".join(["cat"] * 12)


@call
def json_object():
    form = {"type": "json_object"}
    shortest = create(**FORM, response_format=form, logit_bias={token("}"): 100}).choices[0]
    assert (shortest.message.content, shortest.finish_reason) == ("{}", "stop")
    for seed in range(3):
        answer = create(**{**ASK, "seed": seed}, response_format=form).choices[0]
        # It may be cut off: then it is the beginning of an object.
        cut = "off" if answer.finish_reason == "stop" else "trailing-strings"
        read = jiter.from_json(answer.message.content.encode(), partial_mode=cut)
        assert isinstance(read, dict), answer


@call
def parsed():
    answer = parse(**FORM, response_format=Pet, n=2)
    assert len(answer.choices) == 2
    for choice in answer.choices:
        assert choice.finish_reason == "stop" and isinstance(choice.message.parsed, Pet)
        assert choice.message.parsed == Pet.model_validate_json(choice.message.content)
    with client.chat.completions.stream(**FORM, response_format=Pet) as events:
        kinds = {event.type for event in events}
        last = events.get_final_completion().choices[0].message
    assert last.parsed == answer.choices[0].message.parsed and "content.done" in kinds
    # The client raises this if an answer is cut off.
    raises(
        openai.LengthFinishReasonError,
        lambda: parse(**{**FORM, "max_tokens": 3}, response_format=Pet),
    )


@call
def forced_calls():
    for choice, n in [(ONE["tool_choice"], 1), ("required", 2)]:
        answer = parse(**FORM, tools=[NOTE, STOP], tool_choice=choice, n=n)
        assert len(answer.choices) == n
        for one in answer.choices:
            (made,) = one.message.tool_calls
            assert one.finish_reason == "tool_calls" and one.message.content is None
            assert made.id and made.type == "function"
            wanted = {"Pet": Pet, "Stop": Stop}[made.function.name]
            assert isinstance(made.function.parsed_arguments, wanted), made
            assert choice == "required" or wanted is Pet


@call
def calls_that_may_be():
    may = {"tools": ONE["tools"], "parallel_tool_calls": False, "stop": "."}
    auto = create(**FORM, **may, tool_choice="auto").choices[0]
    # Which it is is up to the model.
    if auto.finish_reason == "tool_calls":
        (made,) = auto.message.tool_calls
        kind = {"Pet": Pet, "Stop": Stop}[made.function.name]
        assert kind.model_validate_json(made.function.arguments), made
    else:
        assert auto.message.content and not auto.message.tool_calls
    assert "<tool_call>" not in (auto.message.content or "")
    none = create(**ASK, tools=[NOTE], tool_choice="none")
    assert none.choices[0].message.content == text()


@call
def tool_loop():
    messages = [{"role": "user", "content": "Note a pet, and tell me of it."}]
    first = create(**{**FORM, "messages": messages}, **ONE)
    (made,) = first.choices[0].message.tool_calls
    # As the client gives it, with all its fields of null.
    messages.append(first.choices[0].message)
    before = create(**{**ASK, "messages": messages}).usage.prompt_tokens
    result = {"role": "tool", "tool_call_id": made.id, "content": json.dumps({"noted": True})}
    messages.append(result)
    second = create(**{**ASK, "messages": messages}, tools=[NOTE], tool_choice="none")
    assert second.choices[0].message.content and second.usage.prompt_tokens > before + 5
    # Then a second call, after the results of the first.
    third = create(**{**FORM, "messages": messages}, **ONE).choices[0]
    (again,) = third.message.tool_calls
    assert again.id != made.id and Pet.model_validate_json(again.function.arguments)


@call
def streamed_calls():
    whole = create(**FORM, **ONE).choices[0].message.tool_calls[0].function
    with client.chat.completions.stream(**FORM, **ONE) as events:
        seen = list(events)
        (last,) = events.get_final_completion().choices[0].message.tool_calls
    parts = [event.chunk for event in seen if event.type == "chunk"]
    deltas = [call for part in parts for call in part.choices[0].delta.tool_calls or []]
    assert len(deltas) > 3 and {delta.index for delta in deltas} == {0}
    # The client puts ids together as it does texts, so only the first part has one.
    assert deltas[0].id and last.id == deltas[0].id and deltas[0].type == "function"
    assert [delta.function.name for delta in deltas if delta.function.name] == ["Pet"]
    assert "".join(delta.function.arguments or "" for delta in deltas) == whole.arguments
    assert parts[-1].choices[0].finish_reason == "tool_calls"
    pieces = [event for event in seen if event.type == "tool_calls.function.arguments.delta"]
    assert "".join(piece.arguments_delta for piece in pieces) == whole.arguments
    assert "tool_calls.function.arguments.done" in {event.type for event in seen}
    assert last.function.name == "Pet" and last.function.arguments == whole.arguments
    assert last.function.parsed_arguments == Pet.model_validate_json(whole.arguments)


@call
def refused_forms():
    schema = {"name": "x", "schema": IMPOSSIBLE}
    form = {"type": "json_schema", "json_schema": schema}
    tool = {"type": "function", "function": {"name": "f", "parameters": IMPOSSIBLE}}
    other = {"type": "function", "function": {"name": "other"}}
    for code, param, place, more in [
        ("invalid_schema", "response_format", IMPOSSIBLE_AT, {"response_format": form}),
        ("invalid_schema", "tools", IMPOSSIBLE_AT, {"tools": [tool]}),
        ("invalid_value", "tool_choice", "", {"tools": [NOTE], "tool_choice": other}),
        ("invalid_value", "frequency_penalty", "", {"frequency_penalty": 3}),
        ("invalid_value", "logit_bias", "", {"logit_bias": {"1": 101}}),
    ]:
        for stream in [False, True]:
            ask = functools.partial(create, **ASK, **more, stream=stream)
            got = raises(openai.BadRequestError, ask)
            assert (got.code, got.param) == (code, param) and place in got.body["message"], got


@call
def models():
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    raises(openai.NotFoundError, lambda: client.models.retrieve("gpt-4"))


@call
def errors():
    endless = {**ASK, "max_tokens": 10**6}
    bad, absent = openai.BadRequestError, openai.NotFoundError
    for error, code, function in [
        (absent, "model_not_found", lambda: create(**{**ASK, "model": "gpt-4"})),
        (absent, None, lambda: client.responses.create(model=MODEL, input="x")),
        (absent, None, lambda: client.embeddings.create(model=MODEL, input="x")),
        (bad, "invalid_value", lambda: create(**{**ASK, "temperature": 3})),
        (bad, "invalid_value", lambda: create(**{**ASK, "messages": []})),
        (bad, "context_length_exceeded", lambda: create(**endless)),
        # A refusal comes before the stream.
        (bad, "context_length_exceeded", lambda: create(**endless, stream=True)),
    ]:
        got = raises(error, function)
        assert got.code and (code is None or got.code == code), got
        assert got.request_id and got.body["message"] and got.type, got


@call
def leaves_early():
    before = metric(LEFT)
    long = {**ASK, "max_tokens": 1500, "extra_body": {"ignore_eos": True}}
    with create(**long, stream=True) as parts:
        for _part in parts:
            break
    left(before)


@call
def waits_no_longer():
    before = metric(LEFT)
    long = {**ASK, "max_tokens": 1500, "extra_body": {"ignore_eos": True}}
    hasty = client.with_options(timeout=0.3)
    raises(openai.APITimeoutError, lambda: hasty.chat.completions.create(**long))
    left(before)


@call
async def several_at_once():
    alone = text()
    async with openai.AsyncOpenAI(**SETTINGS) as several:
        tasks = [several.chat.completions.create(**ASK) for _ in range(6)]
        answers = await asyncio.gather(*tasks)
    assert [answer.choices[0].message.content for answer in answers] == [alone] * 6


run(f"openai {openai.__version__}")
