"""Starts the servers that are measured: this engine's, and llama.cpp's."""

import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path


class Started:
    """A server as a process of its own, which ends when this is closed."""

    def __init__(self, args, seconds=300, **environment):
        # Its messages are shown if it fails. The file is closed with this object.
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(arg) for arg in args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, **environment},
        )
        end = time.monotonic() + seconds
        line = b""
        while not line.startswith(b"{"):
            ready, _, _ = select.select([self.process.stdout], [], [], end - time.monotonic())
            line = self.process.stdout.readline() if ready else b""
            if not line:
                message = self.said()[-2000:]
                self.close()
                raise SystemExit(f"error: {args[0]} did not start: {message}")
        self.facts = json.loads(line)
        self.url = self.facts["url"]

    def said(self):
        """All that it wrote to its standard error."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def memory(self):
        """Bytes of its memory that are in use, where the system says so."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def cpu(self):
        """Seconds of a CPU that it has used, where the system says so."""
        try:
            line = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return None
        # The name may have spaces; its own time and the system's for it are the 14th and 15th.
        own, system = line.rpartition(")")[2].split()[11:13]
        return (int(own) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self):
        """Ends it as a service manager does, and returns its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def ours(program, model, rows, *more):
    """This engine's server, for `rows` texts at once."""
    args = [program, "serve", model, "--port", "0", "--json", "--alias", "model"]
    return Started([*args, "--rows", rows, *more])


def peer(python, model, rows, context, threads):
    """llama.cpp's server, by this Python, which has the package xllamacpp."""
    folder = Path(__file__).parent
    # Threads that wait busily stall it on few cores.
    return Started(
        [python, folder / "peer.py", model, rows, context, threads], OMP_WAIT_POLICY="passive"
    )
