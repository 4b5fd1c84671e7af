"""llmrepair export KEY --to DIR --format gguf"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, LlamaFileType
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from llmrepair.models.loading import compressible_layers
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.stages.checkpoints.reload import some_logits
from llmrepair.stages.export.gguf.blocks import Stored, in_blocks, in_numbers
from llmrepair.stages.export.gguf.families import FAMILIES, add_settings, architecture_name, arrangement, names_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from llmrepair.stages.checkpoints.grid import Quantised

_TOLERANCE = 1e-2
"""Float16 changes each weight by up to a two-thousandth, and logits by about as much in the mean; single ones by far more."""
_READ = 64
"""Tokens whose logits are compared."""
_FILE_TYPES = {
    GGMLQuantizationType.F16: LlamaFileType.MOSTLY_F16,
    GGMLQuantizationType.Q4_0: LlamaFileType.MOSTLY_Q4_0,
    GGMLQuantizationType.Q8_0: LlamaFileType.MOSTLY_Q8_0,
}
_HINT = "export it in another --format"


def write_file(
    model: PreTrainedModel, layers: Mapping[str, Quantised], fields: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """Writes a model, reads it back into itself, and compares.

    Args:
        model: in float32, of one of `FAMILIES`; then holds the weights that are in the file.
        layers: those of its layers that are on a grid, by name.
        fields: what else there is to say, by name: `vocabulary_fields` and what the model is.

    Returns:
        `tensors` of each kind; `bits_per_weight` of the layers that compression touches; `scale_rounding`, the most that a
        scale was changed by, as a share of it; `logit_difference`, the same of logits, in the root mean square.

    Raises:
        WorkError: what is read back does not compute the same.
    """
    rows = torch.linspace(0, model.config.vocab_size - 1, _READ).long()[None]
    before = some_logits(model, rows)
    names = names_of(model)
    stored = {name: _stored(model, name, layers) for name in names}
    _write(model.config, {names[name]: each for name, each in stored.items()}, fields, path)
    _read_back(model, names, path)
    difference = float((some_logits(model, rows) - before).norm() / before.norm())
    if not difference <= _TOLERANCE:  # NaN is not
        raise WorkError(Problem(f"logits of the GGUF file differ by {difference:.2%}", _HINT))
    touched = [f"{name}.weight" for name in compressible_layers(model)]
    weights = sum(model.get_parameter(name).numel() for name in touched)
    return {
        "tensors": dict(Counter(each.kind.name for each in stored.values()).most_common()),
        "bits_per_weight": round(8 * sum(stored[name].data.nbytes for name in touched) / weights, 4),
        "scale_rounding": max(each.rounding for each in stored.values()),
        "logit_difference": difference,
    }


def _stored(model: PreTrainedModel, name: str, layers: Mapping[str, Quantised]) -> Stored:
    arranged, layer = arrangement(model.config, name), layers.get(name.removesuffix(".weight"))
    if layer is not None:
        codes, scale, zero_point = map(arranged, (layer.codes, layer.scale, layer.zero_point))
        if (blocks := in_blocks(replace(layer, codes=codes, scale=scale, zero_point=zero_point))) is not None:
            return blocks
    begin = FAMILIES[model.config.model_type].norms_begin_at if name.endswith("norm.weight") else 0
    return in_numbers(arranged(model.state_dict()[name]) + begin)


def _write(config: PreTrainedConfig, tensors: Mapping[str, Stored], fields: Mapping[str, Any], path: Path) -> None:
    writer = GGUFWriter(path, architecture_name(config))
    add_settings(writer, config)
    kinds = Counter(each.kind for each in tensors.values() if each.data.ndim == 2)
    writer.add_file_type(_FILE_TYPES[kinds.most_common(1)[0][0]])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add: dict[type, Callable[[str, Any], None]]
    add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
    for name, value in fields.items():
        add[type(value)](name, value)
    for name, stored in tensors.items():
        writer.add_tensor(name, stored.data.numpy(), raw_dtype=stored.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_back(model: PreTrainedModel, names: Iterable[str], path: Path) -> None:
    """Puts the file's weights into a model, as transformers reads them."""
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    if lost := sorted(set(names) - set(tensors)):
        raise WorkError(Problem(f"transformers finds no `{lost[0]}` in the GGUF file", _HINT))
    model.load_state_dict(tensors, strict=False)
