"""``samsemiseg BEHAVIOR FOLDER``: ends, or does not end, in one particular way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    behavior, folder = sys.argv[1], Path(sys.argv[2])
    if behavior == "train":  # as the panel starts it; the behavior comes by the environment
        behavior = os.environ["FAKE_BEHAVIOR"]
        folder = folder / "runs" / sys.argv[sys.argv.index("--run") + 1]
        if "--resume" not in sys.argv:  # a run keeps the settings it was started with
            (folder / "config.json").write_text(json.dumps({"arguments": sys.argv[1:]}))
    getattr(sys.modules[__name__], behavior)(folder)


def _emit(folder: Path, **event: object) -> None:
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), "stage": "retraining", **event}) + "\n")


def _until_cancelled(folder: Path) -> None:
    step = 0
    while not (folder / "cancel").exists():
        step += 1
        _emit(folder, kind="progress", step=step, total=1000, values={"loss": 1 / step})
        time.sleep(0.05)


def succeed(folder: Path) -> None:
    print("übung macht den meister", flush=True)
    _emit(folder, kind="progress", step=1, total=1, seconds_left=0.0, values={"loss": 0.5})
    _emit(folder, kind="scores", values={"warm start": 0.61, "re-trained": 0.734})
    (folder / "manifest.json").write_text("{}")


def answer(folder: Path) -> None:
    """Answers a question, and warns of something else."""
    print("warning: übung", file=sys.stderr, flush=True)
    print(json.dumps({"cases": ["größte"]}, ensure_ascii=False))


def succeed_without_manifest(folder: Path) -> None:
    print("done")


def obey(folder: Path) -> None:
    """Stops when asked, as the library does."""
    _until_cancelled(folder)
    os._exit(5)


def ignore(folder: Path) -> None:
    """Hears neither the cancel file nor SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def spawn(folder: Path) -> None:
    """Starts a process of its own that ignores SIGTERM, and waits."""
    code = "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"
    grandchild = subprocess.Popen([sys.executable, "-c", code])
    (folder / "grandchild").write_text(str(grandchild.pid))
    ignore(folder)


def wrong_input(folder: Path) -> None:
    print("The image 'a.nrrd' is 2D; give a volume.", file=sys.stderr, flush=True)
    os._exit(2)


def out_of_memory(folder: Path) -> None:
    print("CUDA out of memory. Tried to allocate 2.00 GiB.", flush=True)
    os._exit(3)


def disk_full(folder: Path) -> None:
    os._exit(4)


def diverge(folder: Path) -> None:
    os._exit(6)


def crash(folder: Path) -> None:
    raise RuntimeError("no such tensor")


def garbage(folder: Path) -> None:
    for _ in range(50):
        sys.stdout.buffer.write(b"\xff\xfe\x00broken \x80" * 2000 + b"\n{not json\n")
    sys.stdout.buffer.flush()
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b"\xff{]\n[1, 2]\n")
    succeed(folder)


def flood(folder: Path) -> None:
    """Writes as much as it can, in text and in events, until it is cancelled."""
    step = 0
    while not (folder / "cancel").exists():
        step += 1
        print("x" * 200, flush=True)
        values = {"loss": 1 / step, "consistency": 0.1}
        _emit(folder, kind="progress", step=step, total=10**6, values=values)
    os._exit(5)


def outlive(folder: Path) -> None:
    """Works on for two seconds whatever happens to its parent."""
    for step in range(20):
        _emit(folder, kind="progress", step=step, total=20)
        time.sleep(0.1)
    (folder / "manifest.json").write_text("{}")
