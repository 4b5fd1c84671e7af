"""Whether a compression's needs are estimated rightly, and what is said where they are not there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llmrepair.models.dry_run import dry_run
from llmrepair.models.loading import meta_model
from llmrepair.pipeline import runner as runner_module
from llmrepair.pipeline.stage import Runtime
from llmrepair.stages.compress.config import CompressConfig
from llmrepair.stages.compress.memory import estimate, other_requests
from llmrepair.stages.compress.stage import Compress
from llmrepair.stages.sources.models import resolve_model
from tests.conftest import FAMILIES, CommandLine, tiny_model

GB = 10**9
LARGE = ["--samples", 512, "--seq-len", 256, "--batch-size", 256]


def measured(runs: Path, *options: object) -> tuple[dict[str, Any], Path]:
    """Record and folder of a compression in a process of its own."""
    command = [
        sys.executable,
        "-c",
        "from llmrepair.cli.main import main; main()",
        "compress",
        "--runs",
        runs,
        "--json",
        *options,
    ]
    answer = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    path = Path(json.loads(answer.stdout)["path"])
    return json.loads((path / "record.json").read_text()), path


def check_estimate(record: dict[str, Any], path: Path, vocabulary: int) -> None:
    estimated = record["estimated_bytes"]
    assert estimated["host"] == pytest.approx(record["peak_memory_bytes"]["host"], rel=0.25)
    compared = 2 * 64 * 4 * vocabulary  # in the work folder, beside the checkpoint
    written = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert estimated["disk"] == pytest.approx(written + compared, rel=0.25)


LATER = pytest.mark.stress  # each takes a process that imports all, and one that reloads


@pytest.mark.parametrize(
    "method", ["sparsegpt+gptq", *(pytest.param(method, marks=LATER) for method in ("gptq", "rtn", "sparsegpt"))]
)
def test_the_estimate_of_the_lab_is_within_a_quarter(tmp_path: Path, method: str) -> None:
    check_estimate(*measured(tmp_path, "--method", method), vocabulary=384)


@pytest.mark.stress
def test_where_activations_are_most_of_it(tmp_path: Path) -> None:
    """A batch whose attention weights take gigabytes: 256 x 4 heads x 256 x 256 floats, several times."""
    record, path = measured(tmp_path, "--method", "gptq", *LARGE)
    assert record["peak_memory_bytes"]["host"] > 1.2 * GB
    check_estimate(record, path, vocabulary=384)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dry_run_counts_what_passes_between_blocks_and_who_shares_inputs(family: str, tmp_path: Path) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    run = dry_run(meta_model(str(tmp_path), None).float(), 2, 8)
    hidden, mask = 2 * 8 * 32 * 4, 2 * 8 * 8 * 4
    assert hidden + mask <= run.passed_on <= hidden + mask + 2 * 8 * 8 + 2 * 2 * 8 * 32 * 4  # and positions
    blocks = [block for block in run.groups if block]
    assert len(blocks) == 3
    shared = [len(group) for group in blocks[1]]
    assert shared == {"gpt2": [1, 1, 1, 1], "gpt_neox": [1, 1, 1, 1], "opt": [3, 1, 1, 1]}.get(family, [3, 1, 2, 1])


def test_a_dry_run_holds_what_a_real_one_holds(tmp_path: Path) -> None:
    """The working memory of a block grows with its attention weights: 2 of [rows, heads, tokens, tokens] are held at once."""
    tiny_model("llama").save_pretrained(tmp_path)
    model = meta_model(str(tmp_path), None).float()
    weights = 2 * 4 * 96 * 96 * 4
    assert 2 * weights < dry_run(model, 2, 96).working < 2 * weights + 2 * 96 * 4 * 12 * 32
    assert model.config._attn_implementation != "eager"


@pytest.fixture(autouse=True)
def size_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command takes by itself; a process that runs tests holds more, now and then."""
    for name in ("resident_memory", "private_memory"):
        monkeypatch.setattr(f"llmrepair.stages.compress.memory.{name}", lambda: 500_000_000)


def compress_stage(**options: Any) -> Compress:
    stage = Compress(CompressConfig(**options))
    stage.model = resolve_model(stage.config.model, None, lambda paths: [path.name for path in paths])
    return stage


def needed(stage: Compress, runtime: Runtime) -> int:
    return stage.needs(runtime).host


@pytest.mark.parametrize(
    "less",
    [{"samples": 64}, {"seq_len": 64}, {"dtype": "bfloat16"}, {"format": "dense", "method": "sparsegpt"}],
)
def test_more_of_anything_needs_more(less: dict[str, Any]) -> None:
    full = {"samples": 4096, "seq_len": 256}
    runtime = Runtime(batch_size="512")
    assert needed(compress_stage(**full | less), runtime) < needed(compress_stage(**full), runtime)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Says how much memory and disk is free."""

    def fake(host: int, disk: int = 10**15) -> None:
        monkeypatch.setattr(runner_module, "free_memory", lambda: host)
        monkeypatch.setattr(runner_module, "free_disk", lambda folder: disk)

    yield fake


def test_what_cannot_fit_is_refused_and_the_hint_holds(llmrepair: CommandLine, tmp_path: Path, free: Any) -> None:
    stage = compress_stage(samples=512, seq_len=256)
    at_once = needed(stage, Runtime(batch_size="64"))
    free(at_once + 50_000_000)
    request = ["compress", "--runs", tmp_path, *LARGE]
    answer = llmrepair(*request)
    assert answer.code == 2
    assert "needs about" in answer.err
    assert not list(tmp_path.glob("compress/*"))
    hint = answer.err.split("it would fit with ")[1].split("\n")[0]
    assert hint.startswith("--batch-size ")
    other = Runtime(batch_size=hint.split()[1])
    assert needed(stage, other) <= at_once + 50_000_000


def test_nothing_helps_where_nothing_is_free(llmrepair: CommandLine, tmp_path: Path, free: Any) -> None:
    free(1_000_000)
    answer = llmrepair("compress", "--runs", tmp_path, "--json")
    assert answer.code == 2
    assert "1 MB is free" in answer.err
    assert "no option would make it fit" in answer.err


def test_a_full_disk_is_seen_before_the_work(llmrepair: CommandLine, tmp_path: Path, free: Any) -> None:
    free(10**15, disk=100_000)
    answer = llmrepair("compress", "--runs", tmp_path)
    assert answer.code == 2
    assert "of disk, 100 kB is free" in answer.err
    assert "--runs DIR" in answer.err


def test_a_tight_fit_is_said_and_done(llmrepair: CommandLine, tmp_path: Path, free: Any) -> None:
    free(int(needed(compress_stage(method="rtn"), Runtime()) * 1.15))
    answer = llmrepair("compress", "--runs", tmp_path, "--method", "rtn")
    assert answer.code == 0, answer.err
    assert "will be tight" in answer.err


def test_all_other_requests_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names options that the command line takes, and changes what it says."""
    config = CompressConfig(samples=64, seq_len=64)
    requests = list(other_requests(config, Runtime()))
    assert [text for text, _, _ in requests][:5] == [f"--batch-size {count}" for count in (16, 8, 4, 2, 1)]
    for text, other, runtime in requests:
        options = dict(zip(text.split()[::2], text.split()[1::2], strict=True))
        values = other.model_dump() | runtime.model_dump()
        assert all(str(values[name[2:].replace("-", "_")]) == value for name, value in options.items())
    assert "--samples 16 --seq-len 32 --dtype bfloat16" in requests[-1][0]


def test_with_a_gpu_blocks_are_computed_there(llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = compress_stage(samples=512, seq_len=256)
    large = Runtime(batch_size="256")
    alone = stage.needs(large)
    monkeypatch.setattr(
        "llmrepair.stages.compress.memory.pick_device", lambda device: torch.device("cuda" if device != "cpu" else device)
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    both = stage.needs(large)
    assert alone.device == 0
    assert both.device > alone.host - both.host > 0
    found = estimate(stage.model, stage.config, stage.method, large)
    assert set(found.device) == {"calibrating", "solving"}
    texts = [text for text, _ in stage.needs_with_other_options(large)]
    assert "--device cpu" in texts
