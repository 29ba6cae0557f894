"""What the programs ask for where an answer has a prescribed form, or calls a function.

The longest answers have room in TOKENS even if each token is one byte, so that none is cut off,
whatever the model says.
"""

import json
import urllib.request
from typing import Literal

from calls import SERVER
from pydantic import BaseModel, ConfigDict, Field

TOKENS = 96


class Pet(BaseModel):
    """Notes a pet."""

    # Otherwise the schema has room for more, and a model may go on for ever.
    model_config = ConfigDict(extra="forbid")

    kind: Literal["cat", "dog", "bird"]
    legs: int = Field(ge=0, le=8)
    tame: bool


class Stop(BaseModel):
    """Ends it."""

    model_config = ConfigDict(extra="forbid")


# What no grammar of JSON can hold an answer to.
IMPOSSIBLE = {
    "type": "object",
    "properties": {"kind": {"type": "string", "if": {"minLength": 2}}},
}
IMPOSSIBLE_AT = "/properties/kind"


def token(text):
    """The id of a text that is one token."""
    body = json.dumps({"content": text, "add_special": False}).encode()
    request = urllib.request.Request(
        SERVER + "/tokenize", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        (one,) = json.load(answer)["tokens"]
    return one
