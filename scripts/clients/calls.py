"""What programs that call a server share: their calls, one after another, and how many passed.

Each program takes the server's address, such as http://127.0.0.1:8080. The server has the demo
model under the name `demo`.
"""

import asyncio
import inspect
import sys
import time
import traceback
import urllib.request

SERVER = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8080"
MODEL = "demo"
STORY = "Tell me a story."
CALLS = []


def call(function):
    """Adds a call to those that `run` makes, in this order. It fails by an exception."""
    CALLS.append(function)
    return function


def run(client):
    """Makes all calls, says how many passed, and exits."""
    failed = 0
    for function in CALLS:
        began = time.monotonic()
        try:
            result = function()
            if inspect.isawaitable(result):
                asyncio.run(result)
            print("ok    ", client, function.__name__, f"({time.monotonic() - began:.1f} s)")
        except Exception:
            traceback.print_exc()
            failed += 1
            print("FAILED", client, function.__name__)
    print(f"{len(CALLS) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not CALLS else 0)


def raises(error, function):
    """Calls a function that must raise this error, and returns that."""
    try:
        result = function()
    except error as raised:
        return raised
    raise AssertionError(f"expected {error.__name__}, got {result!r}")


def metric(name):
    """The value of one of the server's counters, with its labels if it has some."""
    with urllib.request.urlopen(SERVER + "/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"grok_wgpu_{name} "):
                return float(line.split()[1])
    raise AssertionError(f"/metrics has no {name}")


def left(before):
    """Waits until the server has noticed one more client that left, and makes no text any more."""
    for _ in range(200):
        if metric(LEFT) > before and metric("requests_running") == 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody left: {metric(LEFT)}, {metric('requests_running')} running")


LEFT = 'cancelled_total{reason="client_left"}'
