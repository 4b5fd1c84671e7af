"""Merging a LoRA adapter into the weights: only where nothing is lost by it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmrepair.pipeline.errors import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.stages.export.parts import Parts


def merge_problem(parts: Parts) -> Problem | None:
    """What keeps the repair from being merged; None if nothing does."""
    if not parts.repair.files.can_merge:
        return Problem(f"`{parts.exported.name}` has no LoRA adapter to merge", "leave --merge out")
    metrics, settings, losses = parts.compressed.metrics, parts.compressed.key_document["config"], []
    if "quantization_config" in parts.config:
        losses.append(f"its packed weights ({metrics['bits_per_weight']:.2f} bits each would become {merged_bits(parts)})")
    elif settings.get("bits") is not None:
        losses.append(f"the grid of {settings['bits']} bits that its weights are on")
    if parts.is_pruned:
        losses.append(f"its zeros (a sparsity of {metrics['sparsity']:.1%} would be gone)")
    if not losses:
        return None
    hint = "leave --merge out: transformers, peft and vLLM load the adapter beside the weights"
    return Problem(f"merging into `{parts.compressed.name}` would destroy {' and '.join(losses)}", hint)


def merged_bits(parts: Parts) -> int:
    """Bits of a weight once the adapter is merged into it."""
    return 32 if parts.compressed.key_document["config"]["dtype"] == "float32" else 16


def write_merged(parts: Parts, folder: Path) -> None:
    """Writes the dense model with the adapter added to its weights, rounded once to the precision that it is computed in."""
    import torch

    dtype = getattr(torch, parts.compressed.key_document["config"]["dtype"])
    merged_model(parts).to(dtype).save_pretrained(folder)


def merged_model(parts: Parts) -> PreTrainedModel:
    """The dense model with the adapter added to its weights, in float32."""
    import torch

    from llmrepair.models.loading import load_model
    from llmrepair.models.lora import with_merged_adapter

    config = parts.compressed.key_document["config"]
    model = load_model(str(parts.location), None, "float32", torch.device("cpu"), config["trust_remote_code"])
    return with_merged_adapter(model, *parts.adapters.values())
