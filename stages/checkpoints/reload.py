"""Loads a checkpoint in a fresh process, as its user will, and compares it with the model that was saved."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.machine import private_memory
from llmrepair.pipeline.record import host_peak_memory
from llmrepair.stages.checkpoints.formats import COMPARED_ROWS, COMPARED_TOKENS
from llmrepair.stages.checkpoints.measure import measure

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOLERANCE = 1e-3
"""Of the largest logit: no format stores values that are further from those in memory."""
_SPOKEN = 5


def some_logits(model: PreTrainedModel, rows: torch.Tensor) -> torch.Tensor:
    """Logits [n, t, vocabulary] of the beginning of rows of token ids [N, T]."""
    with torch.no_grad():
        some = rows[:COMPARED_ROWS, :COMPARED_TOKENS].to(model.device)
        logits: torch.Tensor = model(input_ids=some, use_cache=False).logits
    return logits.float().cpu().contiguous()


def five_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: torch.Tensor) -> str:
    """How the model goes on after the first half of a row, greedily: a broken model is seen at once."""
    ids = rows[:1, : max(1, min(rows.shape[1] // 2, COMPARED_TOKENS))].to(model.device)
    model.eval()
    spoken = model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=_SPOKEN,
        min_new_tokens=_SPOKEN,
        do_sample=False,
        pad_token_id=0,
    )
    text = tokenizer.decode(spoken[0, ids.shape[1] :])
    return str(text)


@dataclass(frozen=True)
class Reloaded:
    """What a fresh process found in a checkpoint: `measure`, the largest difference of a logit, the tokens it speaks.

    `memory_bytes` is the most that it held; for the caller, together with what the caller held meanwhile.
    """

    measures: dict[str, Any]
    difference: float
    five_tokens: str
    memory_bytes: int


def reload_in_fresh_process(
    checkpoint: Path,
    dtype: str,
    device: torch.device,
    trust_remote_code: bool,
    rows: torch.Tensor,
    expected: torch.Tensor,
    work: Path,
) -> Reloaded:
    """Loads a checkpoint in a process of its own.

    Args:
        device: where the model that was saved has computed.
        rows: token ids [N, T].
        expected: `some_logits` of the model that was saved.
        work: folder for what the processes tell each other.

    Raises:
        WorkError: it does not load, or its logits differ by more than `TOLERANCE`.
    """
    save_file({"rows": rows[:COMPARED_ROWS, :COMPARED_TOKENS].contiguous(), "expected": expected}, work / "reload.safetensors")
    request: dict[str, Any] = {"checkpoint": str(checkpoint), "dtype": dtype, "device": str(device), "work": str(work)}
    request["trust_remote_code"] = trust_remote_code
    command = [sys.executable, "-m", "llmrepair.stages.checkpoints.reload", json.dumps(request)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    (work / "reload.safetensors").unlink()
    if process.returncode != 0:
        last = process.stderr.strip().splitlines()[-1] if process.stderr.strip() else f"exit {process.returncode}"
        raise WorkError(Problem(f"the saved checkpoint does not load in a fresh process: {last}", "try another --format"))
    found = Reloaded(**json.loads(process.stdout.splitlines()[-1]))
    if not found.difference <= TOLERANCE * float(expected.abs().max()):  # NaN is not
        message = f"the reloaded checkpoint's logits differ by up to {found.difference:.3g} from those before it was saved"
        raise WorkError(Problem(message, "try another --format, or --dtype float32"))
    return replace(found, memory_bytes=found.memory_bytes + private_memory())


def main(checkpoint: str, dtype: str, device: str, trust_remote_code: bool, work: str) -> Reloaded:
    model = load_model(checkpoint, None, dtype, torch.device(device), trust_remote_code)
    tensors = load_file(Path(work) / "reload.safetensors")
    logits = some_logits(model, tensors["rows"])
    measures = measure(weight_files(Path(checkpoint)), model)
    difference = float((logits - tensors["expected"]).abs().max())
    spoken = five_tokens(model, load_tokenizer(checkpoint, None, trust_remote_code), tensors["rows"])
    return Reloaded(measures, difference, spoken, host_peak_memory())


if __name__ == "__main__":
    print(json.dumps(asdict(main(**json.loads(sys.argv[1])))))
