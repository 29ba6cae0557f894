"""Calls a server by Instructor, which asks for answers of a form. scripts/clients/run runs it."""

import functools

import instructor
import openai
from calls import MODEL, SERVER, call, raises, run
from forms import TOKENS, Pet
from instructor.core.exceptions import IncompleteOutputException

ASK = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Note a pet."}],
    "max_tokens": TOKENS,
    "seed": 3,
    "max_retries": 0,
}
SETTINGS = {"base_url": SERVER + "/v1", "api_key": "none", "max_retries": 0}
# What it takes by itself is a forced call.
USUAL = instructor.Mode.TOOLS
MODES = [USUAL, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA]


def client(mode=USUAL):
    return instructor.from_openai(openai.OpenAI(**SETTINGS), mode=mode)


def read(text):
    """The fields of a pet, which must be one."""
    return Pet.model_validate_json(text).model_dump()


@call
def usual():
    plain = instructor.from_openai(openai.OpenAI(**SETTINGS))
    assert plain.mode == USUAL
    pet, whole = plain.create_with_completion(**ASK, response_model=Pet)
    assert whole.choices[0].finish_reason == "tool_calls"
    (made,) = whole.choices[0].message.tool_calls
    assert made.function.name == "Pet" and read(made.function.arguments) == pet.model_dump()


@call
def every_mode():
    for mode in MODES:
        pet = client(mode).create(**ASK, response_model=Pet)
        assert read(pet.model_dump_json()) == pet.model_dump(), mode


@call
def schema():
    mode = instructor.Mode.JSON_SCHEMA
    pet, whole = client(mode).create_with_completion(**ASK, response_model=Pet)
    (choice,) = whole.choices
    assert choice.finish_reason == "stop" and not choice.message.tool_calls
    assert read(choice.message.content) == pet.model_dump()


@call
def streamed():
    for mode in [USUAL, instructor.Mode.JSON_SCHEMA]:
        whole = client(mode).create(**ASK, response_model=Pet)
        parts = list(client(mode).create_partial(**ASK, response_model=Pet))
        assert len(parts) > 3 and parts[-1].model_dump() == whole.model_dump(), (mode, parts[-1])


@call
async def at_once():
    several = instructor.from_openai(openai.AsyncOpenAI(**SETTINGS))
    pet = await several.create(**ASK, response_model=Pet)
    assert pet.model_dump() == client().create(**ASK, response_model=Pet).model_dump()


@call
def cut_off():
    short = {**ASK, "max_tokens": 3}
    for mode in MODES:
        ask = functools.partial(client(mode).create, **short, response_model=Pet)
        raises(IncompleteOutputException, ask)


run("instructor")
