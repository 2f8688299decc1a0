"""The engine itself: llama.cpp's own server within this process, on a port that the system chooses.

    engine.py MODEL WINDOW [--exit-with-parent]
"""

import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

import xllamacpp

NAME = "tiny-random"
READY_WITHIN = 30


def settings(model, window):
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = window
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.use_jinja = True
    params.warmup = False
    # An answer is as long as it is asked to be, whatever the noise says.
    params.sampling.ignore_eos = True
    # Noise that begins with half a character makes this engine leave out the Anthropic stream's first event, and with
    # it the counts of the prompt. So the noise keeps to ASCII; what it is asked may hold any character.
    asked = xllamacpp.common_grammar_type.COMMON_GRAMMAR_TYPE_USER
    params.sampling.grammar = xllamacpp.CommonGrammar(asked, "root ::= [ -~]+")
    return params


def wait_until_ready(address):
    """The socket is open before the model is loaded; until then the answer is 503."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_WITHIN
    while True:
        try:
            with opener.open(f"{address}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"the engine does not answer within {READY_WITHIN} s: {error}")
            time.sleep(0.05)


def end(*_):
    # The server's threads know no stop, and nothing is kept that could be lost.
    os._exit(0)


def end_with_parent():
    while os.read(0, 4096):
        pass
    end()


def main():
    model, window = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if "--exit-with-parent" in sys.argv[3:]:
        threading.Thread(target=end_with_parent, daemon=True).start()
    # The library writes to stdout as it likes; the one line that is promised goes to the real one.
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = xllamacpp.Server(settings(model, window))
    address = server.listening_address
    wait_until_ready(address)
    listening = address.removeprefix("http://")
    print(json.dumps({"listening": listening, "model": NAME, "window": window}), file=stdout, flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
