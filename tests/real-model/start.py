#!/usr/bin/env python3
"""A real inference engine on loopback: llama.cpp, with a tiny model whose weights are random.

    start.py FOLDER [--window 1024] [--setup-only] [--exit-with-parent]

FOLDER keeps the installed packages and the model, so only the first start takes long. Prints one line on stdout when
the engine answers, {"listening": "127.0.0.1:PORT", "model": "tiny-random", "window": N}, and nothing else there.
SIGTERM and SIGINT end it; with --exit-with-parent so does the end of stdin. Exit code 77 with one line on stderr: the
packages cannot be had here, so there is no engine to test with.
"""

import argparse
import fcntl
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
UNAVAILABLE = 77
# One wheel of a few dozen megabytes; a registry that takes longer is as good as absent.
INSTALL_WITHIN = 240


def unavailable(why):
    print(f"no engine: {why}", file=sys.stderr)
    sys.exit(UNAVAILABLE)


def run(what, command):
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=INSTALL_WITHIN,
        )
    except subprocess.TimeoutExpired:
        unavailable(f"{what} took over {INSTALL_WITHIN} s")
    except OSError as error:
        unavailable(f"{what}: {error}")
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["it said nothing"]
        unavailable(f"{what} failed: {lines[-1]}")


def install(folder):
    """Makes the virtual environment, unless one with exactly these packages is there; returns its Python."""
    venv = folder / "venv"
    python = venv / "bin" / "python"
    wanted = (HERE / "requirements.txt").read_text()
    mark = venv / "installed.txt"
    if not mark.exists() or mark.read_text() != wanted:
        run("making a virtual environment", [sys.executable, "-m", "venv", "--clear", str(venv)])
        run("installing the engine", [
            str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
            "--retries", "2", "--timeout", "20", "--requirement", str(HERE / "requirements.txt"),
        ])
        mark.write_text(wanted)
    return python


def main():
    parser = argparse.ArgumentParser(description="Starts a real engine with a tiny random model on loopback.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--setup-only", action="store_true")
    parser.add_argument("--exit-with-parent", action="store_true")
    arguments = parser.parse_args()

    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "tiny-random.gguf"
    # Several tests may start at once, and only one may install.
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = install(folder)
        recipe = HERE / "tiny_model.py"
        if not model.exists() or model.stat().st_mtime < recipe.stat().st_mtime:
            beside = model.with_suffix(".new")
            run("writing the model", [str(python), str(recipe), str(beside)])
            beside.rename(model)
    if arguments.setup_only:
        return
    # The same process goes on as the engine, so that whoever started this knows its id.
    more = ["--exit-with-parent"] if arguments.exit_with_parent else []
    engine = [str(python), str(HERE / "engine.py"), str(model), str(arguments.window), *more]
    os.execv(python, engine)


if __name__ == "__main__":
    main()
