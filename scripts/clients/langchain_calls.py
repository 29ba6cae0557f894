"""Calls a server by LangChain for Python. scripts/clients/run runs it."""

import asyncio

import langchain_openai
import openai
from calls import LEFT, MODEL, SERVER, STORY, call, left, metric, raises, run
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage


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
def errors():
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
