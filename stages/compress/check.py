"""What only a look at the model's shapes can tell about a compression; no weights are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from transformers.pytorch_utils import Conv1D

from llmrepair.models.dry_run import NeedsNumbers, try_shapes
from llmrepair.models.expert_files import matrices_in_files
from llmrepair.models.experts import experts_as_layers, experts_of
from llmrepair.models.loading import compressible_layers, layer_shapes
from llmrepair.models.packing_trial import packing_obstacle
from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.reading import reason
from llmrepair.stages.checkpoints.gptq import format_problems, packages_problem, reading_problems
from llmrepair.stages.compress.experts import unfit_to_show_all
from llmrepair.stages.sources.defaults import fitting_group_size
from llmrepair.stages.sources.models import CONFIG_FILE, COPY_AGAIN, load_config
from llmrepair.stages.sources.rows import CALIBRATION_TEXT, row_problems

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from llmrepair.stages.compress.stage import Compress


_MOST_LEFT = 0.1
"""Of the blocks' weights, in one kind of module that is not compressed."""


def problems_with_model(stage: Compress) -> list[Problem]:
    if problems := stage.model_problems():
        return problems
    config, settings = stage.config, load_config(stage.model).get("quantization_config")
    if not stage.method.parts:
        problems = [] if settings is None else _problems_with_quantised(config.model, settings)
        return problems or _computing_problems(stage)
    if settings is not None:
        hint = "give the dense model with --model, or keep this one as it is with --method none"
        return [Problem(f"`{config.model}` is quantised already", hint, "model")]
    model = stage.architecture()
    in_files = _expert_problems(stage, model) if experts_of(model) else _format_problems(stage, model)
    calibrated = _calibration_problems(stage, model)
    with experts_as_layers(model):
        problems = [
            *_family_problems(stage, model),
            *in_files,
            *calibrated,
            *_shape_problems(stage, model),
            *_length_problems(stage, model.config),
            *_text_problems(stage),
        ]
    return problems or _computing_problems(stage)


def _computing_problems(stage: Compress) -> list[Problem]:
    """A config may say what no layer can compute, or leave out what the code of the family asks for."""
    try:
        try_shapes(stage.architecture())
    except NeedsNumbers:
        return []
    except Exception as error:
        message = f"`{stage.config.model}` cannot be computed as its {CONFIG_FILE} says: {reason(error)}"
        return [Problem(message, f"mend its {CONFIG_FILE}, or {COPY_AGAIN}", "model")]
    return []


def _problems_with_quantised(model: str, settings: dict[str, Any]) -> list[Problem]:
    method = settings.get("quant_method")
    if method == "gptq":
        return reading_problems(model, settings)
    if method == "compressed-tensors":
        return []
    hint = "give a checkpoint of compressed-tensors or GPTQ, or the dense model"
    return [Problem(f"`{model}` is quantised by {method}, which cannot be read here", hint, "model")]


def _family_problems(stage: Compress, model: PreTrainedModel) -> list[Problem]:
    """What this family cannot do, by name."""
    config, problems = stage.config, []
    layers = compressible_layers(model).values()
    if layers and (left := _left_dense(model)) and max(left.values()) > _MOST_LEFT:
        kind = max(left, key=lambda name: left[name])
        message = (
            f"`{config.model}` holds {left[kind]:.0%} of its blocks' weights in {kind}, which is not made of linear layers"
        )
        problems.append(Problem(message, "no method compresses these: give another model, or --method none", "model"))
    if not layers:
        hint = "give a model such as Llama, OPT or GPT-2, or --method none"
        problems.append(Problem(f"`{config.model}` has no linear layers that could be compressed", hint, "model"))
    return problems + (stage.method.quantiser.problems(model) if stage.method.quantiser else [])


def _left_dense(model: PreTrainedModel) -> dict[str, float]:
    """Shares of the blocks' weights that are in no linear layer, by the class of what holds them."""
    layers, numbers = set(compressible_layers(model).values()), Counter[str]()
    for name, module in model.named_modules():
        if any(part.isdigit() for part in name.split(".")):
            own = sum(weight.numel() for weight in module.parameters(recurse=False))
            numbers["" if module in layers else type(module).__name__] += own
    return {kind: count / numbers.total() for kind, count in numbers.items() if kind}


def _expert_problems(stage: Compress, model: PreTrainedModel) -> list[Problem]:
    """Experts are compressed as linear layers. Some families have tensors in their files that hold all experts' matrices."""
    identity, kinds = stage.config.identity(), _listed(sorted({type(module).__name__ for module in experts_of(model).values()}))
    file_format, hint = identity.get("format", "dense"), "give --format dense"
    if file_format == "gptq" or (file_format != "dense" and not all(matrices_in_files(model).values())):
        message = f"the {file_format} format cannot hold the experts of `{stage.config.model}` ({kinds})"
        return [Problem(message, hint, "format")]
    if file_format != "dense" and identity["asymmetric"]:
        message = f"transformers reads no zero points of experts ({kinds}) in the {file_format} format"
        return [Problem(message, f"leave out --asymmetric, or {hint}", "asymmetric")]
    return [] if file_format == "dense" else _packing_problems(model)


def _calibration_problems(stage: Compress, model: PreTrainedModel) -> list[Problem]:
    if stage.config.expert_calibration == "routed":
        return []
    hint = "leave out --expert-calibration"
    if not experts_of(model):
        return [Problem(f"`{stage.config.model}` has no experts", hint, "expert_calibration")]
    if kinds := unfit_to_show_all(model):
        message = f"{_listed(kinds)} cannot be shown tokens that the router did not send to them"
        return [Problem(message, hint, "expert_calibration")]
    return []


def _format_problems(stage: Compress, model: PreTrainedModel) -> list[Problem]:
    identity = stage.config.identity()
    if identity.get("format") == "compressed-tensors":
        return _packing_problems(model)
    if identity.get("format") != "gptq":
        return []
    packages = packages_problem()
    return format_problems(layer_shapes(model), identity["group_size"]) + ([packages] if packages else [])


def _packing_problems(model: PreTrainedModel) -> list[Problem]:
    if (what := packing_obstacle(model)) is None:
        return []
    others = any(isinstance(layer, Conv1D) for layer in compressible_layers(model).values())
    hint = "give --format gptq, or --format dense" if others else "give --format dense"
    return [Problem(f"the compressed-tensors format cannot hold {what}", hint, "format")]


def _shape_problems(stage: Compress, model: PreTrainedModel) -> list[Problem]:
    problems = []
    if stage.config.asymmetric and stage.config.signed_scale:
        message = "a range that is fitted on either side of zero needs no signed scale"
        problems.append(Problem(message, "leave out --asymmetric, or --signed-scale", "signed_scale"))
    columns = sorted({columns for _, columns in layer_shapes(model).values()})
    identity = stage.config.identity()
    group_size, pattern = identity.get("group_size", -1), identity.get("pattern", "unstructured")
    if group_size != -1 and (odd := [count for count in columns if count % group_size]):
        hint = f"give --group-size {fitting_group_size(columns)}, which fits all layers, or -1 (a whole row)"
        problems.append(
            Problem(f"a group size of {group_size} does not divide layers with {_listed(odd)} columns", hint, "group_size")
        )
    if pattern != "unstructured":
        kept, block = map(int, pattern.split(":"))
        if identity["sparsity"] != 1 - kept / block:
            hint = f"give --sparsity {1 - kept / block}, or leave it out"
            problems.append(Problem(f"the pattern {pattern} has a sparsity of {1 - kept / block}", hint, "sparsity"))
        if odd := [count for count in columns if count % block]:
            hint = "give --pattern unstructured"
            problems.append(
                Problem(f"the pattern {pattern} does not divide layers with {_listed(odd)} columns", hint, "pattern")
            )
    return problems


def _length_problems(stage: Compress, config: PretrainedConfig) -> list[Problem]:
    seq_len, longest = stage.config.seq_len, getattr(config, "max_position_embeddings", None)
    if longest is None or longest < 0 or seq_len <= longest:  # XLNet's -1 says that there is no end
        return []
    return [
        Problem(
            f"rows of {seq_len} tokens are longer than the model's {longest} positions",
            f"give --seq-len {longest} or less",
            "seq_len",
        )
    ]


def _text_problems(stage: Compress) -> list[Problem]:
    assert stage.calibration is not None  # there is something to calibrate
    data, tokens = stage.config.calibration, stage.config.seq_len
    return row_problems(data, stage.calibration, stage, 1, tokens, stage.config.bos, CALIBRATION_TEXT)


def _listed(values: Iterable[object]) -> str:
    return " and ".join(map(str, values))
