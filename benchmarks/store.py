"""How long the commands take that should not take long, beside the interpreter's own start.

python benchmarks/store.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llmrepair.pipeline.keys import document_key

REPEATS = 5
ARTIFACTS = 10_000
CHAIN = (
    "eval",
    "--method",
    "rtn",
    "--recovery",
    "idp",
    "--budget",
    "2048",
    "--tuning-samples",
    "20",
    "--lengths",
    "4",
    "--limit",
    "5",
)
PLAN = """
[grid]
models = ["lab", "lab-opt"]
compressions = [
    { method = "gptq", bits = 2 }, { method = "gptq", bits = 3 }, { method = "gptq", bits = 4 }, { method = "rtn", bits = 2 },
    { method = "rtn", bits = 3 }, { method = "sparsegpt", sparsity = 0.4 }, { method = "sparsegpt", sparsity = 0.5 }, "wanda",
]
recoveries = ["none", "prompt", "idp", "lora"]
seeds = [0, 1, 2, 3, 4, 5, 6, 7]
tasks = ["lab_qa", "lab_mc"]
"""


def seconds(*command: str) -> float:
    """The shortest of several runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def llmrepair(*arguments: str) -> tuple[str, ...]:
    return ("-c", "from llmrepair.cli.main import main; main()", *arguments)


def fill(runs: Path, to: Path) -> None:
    """Many copies of each artifact of `runs`, each under the key of a seed of its own."""
    sources = [path for path in sorted(runs.glob("[a-z]*/*")) if (path / "key.json").exists()]
    for number in range(ARTIFACTS):
        source = sources[number % len(sources)]
        document = json.loads((source / "key.json").read_text())
        document["config"]["seed"] = number
        folder = to / source.parent.name / document_key(document)
        folder.mkdir(parents=True)
        (folder / "key.json").write_text(json.dumps(document, indent=2))
        for name in ("record.json", "manifest.json"):
            shutil.copyfile(source / name, folder / name)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        small, large, plan = (Path(temporary, name) for name in ("small", "large", "plan.toml"))
        plan.write_text(PLAN)
        for command in (CHAIN, ("report",)):
            subprocess.run([sys.executable, *llmrepair(*command, "--runs", str(small))], check=True, capture_output=True)
        fill(small, large)
        planned = subprocess.run(
            [sys.executable, *llmrepair("plan", str(plan), "--runs", str(large))], check=True, capture_output=True, text=True
        )
        stages = planned.stdout.splitlines()[-1].split()[0]
        start = seconds("-c", "pass")
        print(f"{'python -c pass':<50} {start:6.2f} s")
        rows = {
            "llmrepair --help": ("--help",),
            "eval, a cached chain": (*CHAIN, "--runs", str(small)),
            "report of it, cached": ("report", "--runs", str(small)),
            f"plan of {stages} stages, nothing there": ("plan", str(plan), "--runs", str(Path(temporary, "none"))),
            f"plan of {stages} stages beside {ARTIFACTS} artifacts": ("plan", str(plan), "--runs", str(large)),
            f"ls of {ARTIFACTS} artifacts": ("ls", "--runs", str(large)),
            f"gc of {ARTIFACTS} artifacts": ("gc", "--runs", str(large)),
        }
        for name, arguments in rows.items():
            took = seconds(*llmrepair(*arguments))
            print(f"{name:<50} {took:6.2f} s   {took / start:5.1f} x")


if __name__ == "__main__":
    main()
