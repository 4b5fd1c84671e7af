"""How long a cold evaluation of the embedded model takes until it says something, until it scores, and in all.

python benchmarks/start.py [another checkout with a .venv, measured in turn with this one]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
COMPRESS = ("compress", "--method", "gptq", "--bits", "3")
EVALUATE = ("eval", *COMPRESS[1:], "--limit", "20")
WATCHED = """
import os, sys, time
from pathlib import Path
from llmrepair.cli.main import main
from llmrepair.pipeline.progress import Bar, Reporter

def told(moment):
    def tell(owner, name, real):
        def method(*arguments, **options):
            if moment:
                print(moment.pop(), time.time(), time.process_time(), file=sys.__stdout__, flush=True)
            return real(*arguments, **options)
        setattr(owner, name, method)
    return tell

told(["says"])(Reporter, "say", Reporter.say)
told(["scores"])(Bar, "extend", Bar.extend)
main()
"""


def measure(python: Path, runs: Path) -> dict[str, tuple[float, float]]:
    """Moment -> seconds since the start, and of the processor's until then."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, "runs")
        shutil.copytree(runs, copy)
        start = time.time()
        command = [python, "-c", WATCHED, *EVALUATE, "--runs", copy]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        took = {"ends": (time.time() - start, float("nan"))}
        for line in answer.stdout.splitlines():
            name, *numbers = line.split()
            if name in ("says", "scores"):
                took[name] = (float(numbers[0]) - start, float(numbers[1]))
        return took


def main() -> None:
    pythons = [Path(sys.executable), *(Path(folder, ".venv", "bin", "python").absolute() for folder in sys.argv[1:])]
    with tempfile.TemporaryDirectory() as temporary:
        stores = {python: Path(temporary, str(number)) for number, python in enumerate(pythons)}
        for python, runs in stores.items():
            start = "from llmrepair.cli.main import main; main()"
            subprocess.run([python, "-c", start, *COMPRESS, "--runs", runs], check=True, capture_output=True)
        taken: dict[Path, list[dict[str, tuple[float, float]]]] = {python: [] for python in pythons}
        for _ in range(REPEATS):
            for python, runs in stores.items():
                taken[python].append(measure(python, runs))
    for python, each in taken.items():
        for moment in ("says", "scores", "ends"):
            wall, processor = (min(times[moment][kind] for times in each) for kind in (0, 1))
            print(f"{python.parents[2]!s:<40} {moment:<8} {wall:6.2f} s   of the processor {processor:6.2f} s")


if __name__ == "__main__":
    main()
