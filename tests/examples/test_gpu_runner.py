"""`make gpu`, and the workflow that calls it."""

from __future__ import annotations

import subprocess

import yaml

from tests.architecture import ROOT


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What would be run."""
    command = ["make", "--dry-run", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_make_gpu_checks_runs_and_reports_one_model() -> None:
    done = make("gpu", "MODEL=./my llama", "RUN_ARGS=--tasks-data tasks")
    assert [line.partition("llmrepair ")[2] for line in done.stdout.splitlines()][-3:] == [
        'run examples/paper.toml --model "./my llama" --tasks-data tasks --dry-run',
        'run examples/paper.toml --model "./my llama" --tasks-data tasks',
        'report --model "./my llama" --html report.html',
    ]


def test_make_gpu_asks_for_a_model_before_anything_is_installed() -> None:
    done = make("gpu", "MODEL=")
    assert done.returncode != 0
    assert "there is no model: give a folder or a Hub id" in done.stderr
    assert done.stdout == ""


def test_the_workflow_calls_make_gpu_and_keeps_what_was_computed() -> None:
    (job,) = yaml.safe_load((ROOT / "examples" / "gpu-runner.yml").read_text())["jobs"].values()
    assert job["runs-on"] == ["self-hosted", "gpu"]
    assert job["env"] == {"MODEL": "${{ inputs.model }}"}
    checkout, run, *_ = job["steps"]
    assert checkout["with"]["clean"] is False
    assert run == {"run": "make gpu"}
