"""Calls a server by Pydantic AI. scripts/clients/run runs it."""

import asyncio
from typing import Annotated

from calls import LEFT, MODEL, SERVER, STORY, call, left, metric, raises, run
from forms import TOKENS, Pet
from pydantic import Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

SETTINGS = {"max_tokens": 12, "seed": 3}


def agent(output_type=str, settings=None, **more):
    provider = OpenAIProvider(base_url=SERVER + "/v1", api_key="none")
    chat = OpenAIChatModel(MODEL, provider=provider)
    settings = settings or {**SETTINGS, **more}
    return Agent(chat, output_type=output_type, model_settings=settings, retries=0)


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
async def forms():
    # A class alone is asked for by a forced call.
    for output in [Pet, ToolOutput(Pet, name="note"), NativeOutput(Pet)]:
        answer = await agent(output, max_tokens=TOKENS).run("Note a pet.")
        assert isinstance(answer.output, Pet)
        last = answer.all_messages()[1]
        called = [part for part in last.parts if part.part_kind == "tool-call"]
        assert len(called) == (0 if isinstance(output, NativeOutput) else 1), last
        assert last.finish_reason == ("tool_call" if called else "stop"), last


@call
async def streamed_form():
    for output in [Pet, NativeOutput(Pet)]:
        wanted = (await agent(output, max_tokens=TOKENS).run("Note a pet.")).output
        async with agent(output, max_tokens=TOKENS).run_stream("Note a pet.") as answer:
            assert await answer.get_output() == wanted


@call
async def tool():
    # First the function, then the answer, which is a call too.
    def settings(context):
        choice = {"tool_choice": ["note"]} if context.run_step == 1 else {}
        return {**SETTINGS, "max_tokens": TOKENS, **choice}

    async def only_first(context, definition):
        return definition if context.run_step == 1 else None

    noted = []
    several = agent(ToolOutput(Pet, name="answer"), settings)

    @several.tool_plain(prepare=only_first)
    def note(legs: Annotated[int, Field(ge=0, le=8)], tame: bool) -> str:
        """Notes a pet."""
        noted.append((legs, tame))
        return "It is noted."

    answer = await several.run("Note it, and answer.")
    ((legs, tame),) = noted
    assert 0 <= legs <= 8 and isinstance(tame, bool) and isinstance(answer.output, Pet)
    parts = [part for message in answer.all_messages() for part in message.parts]
    called = [
        (part.tool_name, part.tool_call_id) for part in parts if part.part_kind == "tool-call"
    ]
    assert [name for name, _ in called] == ["note", "answer"] and called[0] != called[1]
    results = [part for part in parts if part.part_kind == "tool-return"]
    assert [(part.tool_name, part.tool_call_id) for part in results] == called
    assert results[0].content == "It is noted."


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
