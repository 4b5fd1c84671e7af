"""llm-compressor's modifiers for our options. A modifier serves one run, so each call makes new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from llmcompressor.modifiers.quantization import QuantizationModifier

if TYPE_CHECKING:
    from llmcompressor.modifiers import Modifier

    from llmrepair.stages.compress.stage import CompressConfig

QUANTISING = {"rtn": QuantizationModifier, "gptq": GPTQModifier}
PRUNING = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}


def modifier(config: CompressConfig) -> Modifier:
    if config.method in QUANTISING:
        return QUANTISING[config.method](config_groups=_weight_scheme(config), ignore=["lm_head"])
    # The pruning modifiers match `ignore` against full names only: a bare "lm_head" would be pruned all the same.
    return PRUNING[config.method](sparsity=config.sparsity, mask_structure=_mask_structure(config), ignore=["re:.*lm_head"])


def _weight_scheme(config: CompressConfig) -> dict[str, Any]:
    weights: dict[str, Any] = {"num_bits": config.bits, "type": "int", "symmetric": True, "strategy": "channel"}
    if config.group_size != -1:
        weights |= {"strategy": "group", "group_size": config.group_size}
    return {"group_0": {"targets": ["Linear"], "weights": weights}}


def _mask_structure(config: CompressConfig) -> str:
    return "0:0" if config.pattern == "unstructured" else config.pattern
