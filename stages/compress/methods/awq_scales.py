"""AWQ's scales (Lin et al. 2023, arXiv 2306.00978): what feeds a layer is scaled down where inputs are large, its weights up.

The model computes the same afterwards, and rounding its weights to the nearest then costs its outputs less. llm-compressor
searches the scales, block by block.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from compressed_tensors.utils import patch_attr
from llmcompressor.args.dataset_arguments import DatasetArguments
from llmcompressor.core import create_session
from llmcompressor.modeling.offset_norm import norm_calibration_context
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQ_MAPPING_REGISTRY, AWQMapping, AWQModifier, default_mappings
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.pipelines.sequential import pipeline
from torch.utils.data import DataLoader

from llmrepair.models.loading import forget_quantisation
from llmrepair.stages.compress.calibration import tracing

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from llmrepair.stages.checkpoints.grid import Grid

_OPT = [
    AWQMapping("re:.*self_attn_layer_norm$", ["re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"]),
    AWQMapping("re:.*v_proj$", ["re:.*out_proj$"]),
    AWQMapping(r"re:.*layers\.\d+\.final_layer_norm$", ["re:.*fc1$"]),
    AWQMapping("re:.*fc1$", ["re:.*fc2$"]),  # ReLU lets a positive factor through
]
MAPPINGS = AWQ_MAPPING_REGISTRY | {"OPTForCausalLM": _OPT, "GemmaForCausalLM": default_mappings}
"""Class name of a model -> which of its layers feed which others."""


def smooth(
    model: PreTrainedModel, names: list[str], rows: torch.Tensor, batch_size: int, device: torch.device, grid: Grid
) -> None:
    """Scales a model's layers in place for rounding to `grid`.

    Args:
        names: of the layers that will be rounded.
        rows: token ids [N, T] of calibration text.
    """
    weights: dict[str, Any] = {"num_bits": grid.bits, "type": "int", "symmetric": grid.symmetric, "strategy": "channel"}
    if grid.group_size != -1:
        weights |= {"strategy": "group", "group_size": grid.group_size}
    target = QuantizationModifier(config_groups={"group_0": {"targets": names, "weights": weights}})
    recipe = [AWQModifier(mappings=MAPPINGS[type(model).__name__]), target]
    loader: DataLoader[Any] = DataLoader([{"input_ids": row} for row in rows], batch_size=batch_size)  # type: ignore[arg-type]
    with (
        create_session() as session,
        tracing(),
        norm_calibration_context(model),
        _pinning_memory_only_for(device),
        patch_attr(pipeline, "get_main_device", lambda: device),  # it would take any GPU that it sees
        patch_attr(pipeline, "tqdm", lambda batches, **settings: batches),  # bars of its own, beside ours
    ):
        session.initialize(model=model, recipe=recipe, calib_data=loader, start=-1)  # type: ignore[arg-type]
        pipeline.SequentialPipeline()(model, loader, DatasetArguments())
        session.finalize()
    forget_quantisation(model)


def _pinning_memory_only_for(device: torch.device) -> AbstractContextManager[None]:
    """llm-compressor pins memory for an accelerator, which torch refuses where there is none."""
    if device.type != "cpu":
        return nullcontext()
    return patch_attr(IntermediatesCache, "pin_memory", lambda cache, batch_index: None)
