"""Calls a server by Pydantic AI. scripts/clients/run runs it."""

import asyncio

from calls import LEFT, MODEL, SERVER, STORY, call, left, metric, raises, run
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

SETTINGS = {"max_tokens": 12, "seed": 3}


def agent(**settings):
    provider = OpenAIProvider(base_url=SERVER + "/v1", api_key="none")
    chat = OpenAIChatModel(MODEL, provider=provider)
    return Agent(chat, model_settings={**SETTINGS, **settings})


async def text():
    return (await agent().run(STORY)).output


@call
async def whole():
    answer = await agent().run(STORY)
    assert answer.output and answer.usage.output_tokens == 12


@call
async def conversation():
    first = await agent().run(STORY)
    second = await agent().run("And then?", message_history=first.all_messages())
    assert second.output and second.output != first.output


@call
async def stream():
    async with agent().run_stream(STORY) as answer:
        parts = [part async for part in answer.stream_text(delta=True, debounce_by=None)]
    assert len(parts) > 3 and "".join(parts) == await text()


@call
async def several_at_once():
    alone = await text()
    answers = await asyncio.gather(*[agent().run(STORY) for _ in range(4)])
    assert [answer.output for answer in answers] == [alone] * 4


@call
def errors():
    error = raises(ModelHTTPError, lambda: agent(temperature=3).run_sync(STORY))
    assert error.status_code == 400


@call
async def leaves_early():
    before = metric(LEFT)
    long = agent(max_tokens=1500, extra_body={"ignore_eos": True})
    async with long.run_stream(STORY) as answer:
        async for _part in answer.stream_text(delta=True, debounce_by=None):
            break
    await asyncio.to_thread(left, before)


run("pydantic-ai")
