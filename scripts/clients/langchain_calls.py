"""Calls a server by LangChain for Python. scripts/clients/run runs it."""

import asyncio
from typing import Annotated

import langchain_openai
import openai
from calls import LEFT, MODEL, SERVER, STORY, call, left, metric, raises, run
from forms import IMPOSSIBLE, IMPOSSIBLE_AT, TOKENS, Pet, Stop
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import Field


def model(**settings):
    fixed = {"model": MODEL, "base_url": SERVER + "/v1", "api_key": "none", "max_retries": 0}
    return langchain_openai.ChatOpenAI(**fixed, **{"seed": 3, "max_tokens": 12, **settings})


def text():
    return model().invoke(STORY).content


@call
def invoke():
    answer = model().invoke(STORY)
    assert answer.content and answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata["output_tokens"] == 12
    assert answer.response_metadata["model_name"] == MODEL


@call
def conversation():
    talk = [SystemMessage("Be brief."), HumanMessage(STORY), AIMessage("No."), HumanMessage("Why?")]
    assert model().invoke(talk).content == model().invoke(talk).content


@call
def stream():
    parts = list(model().stream(STORY))
    assert len(parts) > 3 and "".join(part.content for part in parts) == text()


@call
def stream_with_usage():
    parts = list(model(stream_usage=True).stream(STORY))
    assert "".join(part.content for part in parts) == text()
    assert sum(part.usage_metadata["output_tokens"] for part in parts if part.usage_metadata) == 12


@call
def all_settings():
    settings = {"temperature": 0.5, "top_p": 0.9, "n": 2, "logprobs": True, "top_logprobs": 3}
    one = model(**settings, stop=["x"], max_tokens=7, frequency_penalty=0, presence_penalty=0)
    texts = one.generate([[HumanMessage(STORY)]]).generations[0]
    assert len(texts) == 2
    logprobs = texts[0].message.response_metadata["logprobs"]["content"]
    assert 0 < len(logprobs) <= 7 and len(logprobs[0]["top_logprobs"]) == 3


@call
def batch():
    assert [answer.content for answer in model().batch([STORY] * 4)] == [text()] * 4


@call
def structured_output():
    # A schema by itself, or by a call that is forced.
    for method in ["json_schema", "function_calling"]:
        form = model(max_tokens=TOKENS).with_structured_output(Pet, method=method)
        assert isinstance(form.invoke(STORY), Pet), method
        raw = model(max_tokens=TOKENS).with_structured_output(Pet, method=method, include_raw=True)
        answer = raw.invoke(STORY)
        assert answer["parsed"] == form.invoke(STORY) and answer["parsing_error"] is None
        assert len(answer["raw"].tool_calls) == (1 if method == "function_calling" else 0)
        *_, last = form.stream(STORY)
        assert last == answer["parsed"], method
    usual = model(max_tokens=TOKENS).with_structured_output(Pet.model_json_schema())
    assert Pet.model_validate(usual.invoke(STORY))


@call
def tool_loop():
    noted = []

    @tool
    def note(legs: Annotated[int, Field(ge=0, le=8)], tame: bool) -> str:
        """Notes a pet."""
        noted.append((legs, tame))
        return "It is noted."

    talk = [HumanMessage("Note a pet, then tell me of it.")]
    chat = model(max_tokens=TOKENS)
    first = chat.bind_tools([note], tool_choice="note", strict=True).invoke(talk)
    (made,) = first.tool_calls
    assert first.response_metadata["finish_reason"] == "tool_calls" and not first.invalid_tool_calls
    result = note.invoke(made)
    assert isinstance(result, ToolMessage) and result.tool_call_id == made["id"]
    ((legs, tame),) = noted
    assert 0 <= legs <= 8 and isinstance(tame, bool)
    talk += [first, result]
    assert model().bind_tools([note], tool_choice="none").invoke(talk).content
    again = chat.bind_tools([Pet, Stop], tool_choice="any").invoke(talk)
    (other,) = again.tool_calls
    assert {"Pet": Pet, "Stop": Stop}[other["name"]].model_validate(other["args"])


@call
def streamed_calls():
    bound = model(max_tokens=TOKENS).bind_tools([Pet], tool_choice="required")
    whole = bound.invoke(STORY).tool_calls[0]
    parts = list(bound.stream(STORY))
    total = parts[0]
    for part in parts[1:]:
        total += part
    (made,) = total.tool_calls
    assert len(parts) > 3 and (made["name"], made["args"]) == ("Pet", whole["args"])
    (first, *_) = [chunk for part in parts for chunk in part.tool_call_chunks]
    assert made["id"] == first["id"], made


@call
def errors():
    tool = {"name": "f", "description": "", "parameters": IMPOSSIBLE}
    bound = model().bind_tools([{"type": "function", "function": tool}])
    error = raises(openai.BadRequestError, lambda: bound.invoke(STORY))
    assert error.code == "invalid_schema" and IMPOSSIBLE_AT in str(error)
    raises(openai.BadRequestError, lambda: model(temperature=3).invoke(STORY))
    raises(openai.BadRequestError, lambda: model(max_tokens=10**6).invoke(STORY))
    other = model().bind(model="gpt-4")
    raises(openai.NotFoundError, lambda: other.invoke(STORY))


@call
async def leaves_early():
    before = metric(LEFT)
    long = model(max_tokens=1500, extra_body={"ignore_eos": True})
    parts = long.astream(STORY)
    async for _part in parts:
        break
    await parts.aclose()
    await asyncio.to_thread(left, before)


run("langchain-openai")
