"""Calls a server with the demo model by OpenAI's own client; every answer must validate.

grok-wgpu serve models/demo --port 8080
python -m pip install openai==3.57.0
python scripts/clients/openai_calls.py http://127.0.0.1:8080
"""

import sys

import openai

client = openai.OpenAI(
    base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0, _strict_response_validation=True
)
ask = {
    "model": "demo",
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "max_tokens": 12,
    "seed": 3,
}
whole = client.chat.completions.create(**ask)
text = whole.choices[0].message.content
assert text and whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 12
parts = list(
    client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
)
assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == text
assert parts[-1].usage.total_tokens == whole.usage.total_tokens and not parts[-1].choices
# The helper takes a cut answer for an error.
sentence = {**ask, "max_tokens": 200, "stop": "."}
whole = client.chat.completions.create(**sentence).choices[0]
assert whole.finish_reason == "stop" and "." not in whole.message.content
with client.chat.completions.stream(**sentence) as stream:
    events = [event.type for event in stream]
    assert stream.get_final_completion().choices[0].message.content == whole.message.content
assert "content.delta" in events and "content.done" in events
logs = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2, n=2)
assert len(logs.choices) == 2 and len(logs.choices[1].logprobs.content[0].top_logprobs) == 2
old = client.completions.create(
    model="demo", prompt=["a", "b"], echo=False, logprobs=2, max_tokens=3, seed=1, stop="x"
)
assert len(old.choices) == 2 and len(old.choices[0].logprobs.tokens) == 3
assert [m.id for m in client.models.list()] == ["demo"] == [client.models.retrieve("demo").id]
for error, call in [
    (openai.NotFoundError, lambda: client.chat.completions.create(**{**ask, "model": "gpt-4"})),
    (openai.NotFoundError, lambda: client.responses.create(model="demo", input="x")),
    (openai.BadRequestError, lambda: client.chat.completions.create(**{**ask, "temperature": 3})),
    (
        openai.BadRequestError,
        lambda: client.chat.completions.create(**ask, response_format={"type": "json_object"}),
    ),
]:
    try:
        call()
    except error as got:
        assert got.code and got.request_id and got.body["message"], got
    else:
        raise AssertionError(error)
# One that leaves early.
for _part in client.chat.completions.create(**{**ask, "max_tokens": 900}, stream=True):
    break
print("openai", openai.__version__, "is content")
