"""Calls a server by OpenAI's own client for Python; every answer must validate.

scripts/clients/run runs it.
"""

import asyncio

import openai
from calls import LEFT, MODEL, SERVER, STORY, call, left, metric, raises, run

SETTINGS = {
    "base_url": SERVER + "/v1",
    "api_key": "none",
    "max_retries": 0,
    "_strict_response_validation": True,
}
client = openai.OpenAI(**SETTINGS)
ASK = {
    "model": MODEL,
    "messages": [{"role": "user", "content": STORY}],
    "max_tokens": 12,
    "seed": 3,
}
create = client.chat.completions.create


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
    # The client's types have no `finish_reason` of null, which OpenAI's own server sends.
    lenient = openai.OpenAI(**{**SETTINGS, "_strict_response_validation": False})
    parts = list(lenient.completions.create(**ask, stream=True))
    whole = client.completions.create(**ask).choices[0].text
    assert "".join(part.choices[0].text for part in parts) == whole


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
