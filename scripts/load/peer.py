"""llama.cpp's server, as PyPI's `xllamacpp` has it: prints its address, and runs until it is ended.

peer.py MODEL.gguf ROWS CONTEXT THREADS
"""

import json
import signal
import socket
import sys
from importlib.metadata import version

import xllamacpp

model, rows, context, threads = sys.argv[1], *map(int, sys.argv[2:5])
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
params = xllamacpp.CommonParams()
params.model.path = model
params.hostnames = ["127.0.0.1"]
params.port = port
params.n_parallel = rows
# The cells of all texts together.
params.n_ctx = context * rows
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
params.warmup = True
server = xllamacpp.Server(params)
print(json.dumps({"url": server.listening_address, "version": version("xllamacpp")}), flush=True)
signal.pause()
