"""Two servers behind sglang-router: texts are the same from both, and one of them may end.

router.py --program grok-wgpu --python PYTHON

PYTHON has PyPI's package sglang-router.
"""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import servers
from client import get, metrics, stream

MODEL = Path(__file__).parents[2] / "models/demo"
PATH = "/v1/chat/completions"
DONE = "grok_wgpu_generated_tokens_total"


def ask(seed):
    messages = [{"role": "user", "content": "Tell me a story."}]
    return {"model": "model", "messages": messages, "max_tokens": 12, "seed": seed}


async def texts(url, count):
    """The texts of as many streams at once, by four seeds."""
    answers = await asyncio.gather(*[stream(url, PATH, ask(i % 4)) for i in range(count)])
    return [answer.pieces()[1] for answer in answers]


def until(what, seconds, function):
    """Waits until a function says true."""
    end = time.monotonic() + seconds
    while True:
        try:
            if function():
                return
        except (OSError, RuntimeError):
            pass
        if time.monotonic() > end:
            raise SystemExit(f"error: {what} is not so after {seconds} s")
        time.sleep(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="grok-wgpu")
    parser.add_argument("--python", required=True, help="a Python with sglang-router")
    options = parser.parse_args()

    replicas, router, log = [], None, tempfile.TemporaryFile()  # noqa: SIM115
    try:
        replicas = [servers.ours(options.program, MODEL, 4) for _ in range(2)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [options.python, "-m", "sglang_router.launch_router", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--policy", "round_robin"]
        command += ["--worker-urls", *[replica.url for replica in replicas]]
        # A session of its own, so that all of its processes can be ended.
        router = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        url = f"http://127.0.0.1:{port}"
        until("the router's health", 60, lambda: get(url, "/health") is not None)
        alone = asyncio.run(texts(replicas[0].url, 4))
        until("a text by the router", 60, lambda: asyncio.run(texts(url, 1)) == alone[:1])

        before = [metrics(replica.url)[DONE] for replica in replicas]
        got = asyncio.run(texts(url, 16))
        assert got == alone * 4, f"{got}, alone {alone}"
        after = [metrics(replica.url)[DONE] for replica in replicas]
        shares = [b - a for a, b in zip(before, after, strict=True)]
        assert all(shares) and sum(shares) == 16 * 12, shares
        print(f"16 texts as alone, {shares} tokens by each of two servers")

        # One of them ends as it does for a newer version; the other has all the work.
        code = replicas.pop().close()
        assert code == 0, code
        until("the other server's text", 120, lambda: asyncio.run(texts(url, 1)) == alone[:1])
        print("a server ended, and the other one went on")
    except Exception:
        log.seek(0)
        sys.stderr.write(log.read()[-3000:].decode(errors="replace"))
        raise
    finally:
        if router is not None:
            os.killpg(router.pid, signal.SIGKILL)
            router.wait()
        for replica in replicas:
            replica.close()
    print("2 passed, 0 failed")


if __name__ == "__main__":
    main()
