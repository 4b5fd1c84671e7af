"""What compressing a model takes, from its shapes: memory of the machine and of a GPU at each step, and disk.

Sizes of tensors follow from shapes; what the libraries take is read off this process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.dry_run import DryRun, blocks_of, dry_run
from llmrepair.models.experts import experts_as_layers, tensors_of_layers
from llmrepair.models.loading import layer_shapes, meta_model, pick_device
from llmrepair.pipeline.machine import private_memory, resident_memory
from llmrepair.pipeline.stage import Needs, Runtime
from llmrepair.stages.checkpoints.formats import COMPARED_ROWS, COMPARED_TOKENS
from llmrepair.stages.compress.rows import are_few, hessians_at_once, holding_device, kept_numbers, rows_at_once
from llmrepair.stages.sources.models import weights_on_disk

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.stages.compress.config import CompressConfig
    from llmrepair.stages.compress.methods.base import Method
    from llmrepair.stages.sources.models import ModelSource

_FLOAT = 4
_TO_IMPORT = 120 << 20
"""What llm-compressor, its tracing and torch's buffers add to torch and transformers: measured with the lab's Llama on a CPU,
whose tensors are small (0.8 MB of weights)."""
_TOLD = 1500
"""What log, record and header of the checkpoint say of one layer."""

_SAME = 0.02
"""Share of their size by which weights differ in memory and in a file with its header."""

Parts = dict[str, int]
"""Bytes by what they hold."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What is held at each step, of the machine's memory and of a GPU's, and what is written."""

    host: Mapping[str, Parts]
    device: Mapping[str, Parts]
    disk: Parts

    def needs(self) -> Needs:
        host, device = (max((sum(parts.values()) for parts in steps.values()), default=0) for steps in (self.host, self.device))
        return Needs(host, device, sum(self.disk.values()))


@dataclass(frozen=True)
class Layer:
    """A layer that is compressed: its weight is [rows, columns]."""

    rows: int
    columns: int

    @property
    def weights(self) -> int:
        return self.rows * self.columns

    def packed(self, config: CompressConfig) -> int:
        """Bytes in a checkpoint: a row's codes in whole int32, a scale for each group, perhaps a packed zero point."""
        groups = 1 if config.group_size == -1 else self.columns // config.group_size
        zero_points = _whole_words(self.rows, config.bits) * groups if config.asymmetric else 0
        return self.rows * _whole_words(self.columns, config.bits) + zero_points + self.rows * groups * _itemsize(config)


def _whole_words(values: int, bits: int) -> int:
    return -(-values * bits // 32) * 4


def _itemsize(config: CompressConfig) -> int:
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype.itemsize


def estimate(source: ModelSource, config: CompressConfig, method: Method, runtime: Runtime) -> MemoryEstimate:
    """The estimate for a request."""
    model = meta_model(source.location, source.revision, config.trust_remote_code)
    with experts_as_layers(model):
        layers = {name: Layer(*shape) for name, shape in layer_shapes(model).items()}
        experts = Counter(tensors_of_layers(model).values())
    weights, on_disk = weights_in_memory(source, config), weights_on_disk(source)
    # Weights in the dtype of their file are the file's own pages, others are copies of them.
    same_dtype = abs(on_disk - weights) < _SAME * weights
    device = pick_device(runtime.device)
    in_host = 0 if holding_device(weights, device).type == "cuda" else weights
    loading = {"libraries": resident_memory(), "weights": in_host, "file": 0 if same_dtype else on_disk}
    if not method.parts:
        return MemoryEstimate({"loading": loading}, {}, {})
    rows = rows_at_once(config, runtime)
    is_fused = model.config._attn_implementation == "sdpa"  # as calibration attends
    run = _dry_run(source.location, source.revision, config.trust_remote_code, config.dtype, rows, config.seq_len, is_fused)
    packed = _packed(layers.values(), config, method)
    saved = weights + sum(packed) - sum(layer.weights * _itemsize(config) for layer in layers.values()) if packed else weights
    logits = COMPARED_ROWS * COMPARED_TOKENS * model.config.get_text_config().vocab_size * _FLOAT

    passed_on = run.passed_on * -(-config.samples // rows)  # between blocks, of all rows
    if config.propagate == "dense":  # a block's inputs and outputs together
        passed_on += config.samples * config.seq_len * model.config.get_text_config().hidden_size * _itemsize(config)
    blocks = ([layers[name] for group in block for name in group] for block in run.groups)
    numbers = max(kept_numbers([(layer.rows, layer.columns) for layer in block]) for block in blocks)
    outputs = config.samples * config.seq_len * numbers * _itemsize(config)
    passed_on += outputs if are_few(outputs, device) else 0
    own = {
        "libraries": resident_memory() + _TO_IMPORT,
        "weights": in_host,
        "codes": _codes(layers.values(), method),
        "activations": passed_on,
    }
    computing = dict(_computing(run, layers, experts, config, method))
    host = {"loading": loading, "calibrating": own}
    on_device: dict[str, Parts] = {}
    if device.type == "cuda":
        there = max(_block_weights(model)) * _itemsize(config) if in_host else weights
        own["activations"] = 0
        on_device = {step: {"weights": there, "activations": passed_on, **parts} for step, parts in computing.items()}
    else:
        host |= {step: own | parts for step, parts in computing.items()}
    host["saving"] = own | {"activations": 0, "saving": sum(packed) + 2 * logits}
    # A fresh process imports the same, and makes weights of what was saved, which are let go layer by layer; the code of the
    # libraries is shared with it. Of the codes, which came in small pieces, the allocator of this one gives little back.
    host["reloading"] = {
        "libraries": private_memory() + _TO_IMPORT + resident_memory(),
        "weights": in_host,
        "codes": own["codes"],
        "saving": 3 * logits,
    }
    return MemoryEstimate(host, on_device, {"checkpoint": saved, "records": _TOLD * len(layers), "logits": logits})


def weights_in_memory(source: ModelSource, config: CompressConfig) -> int:
    """Bytes of the model that is compressed."""
    model = meta_model(source.location, source.revision, config.trust_remote_code)
    return _count(model.parameters()) * _itemsize(config)


@lru_cache(maxsize=64)
def _dry_run(
    location: str, revision: str | None, trust_remote_code: bool, dtype: str, rows: int, tokens: int, is_fused: bool
) -> DryRun:
    model = meta_model(location, revision, trust_remote_code)
    return dry_run(model.to(getattr(torch, dtype)), rows, tokens, is_fused)


def _computing(
    run: DryRun, layers: Mapping[str, Layer], experts: Mapping[str, int], config: CompressConfig, method: Method
) -> Iterator[tuple[str, Parts]]:
    """What a block's calibration and its layers' compression take where they are computed, besides the weights.

    Args:
        experts: name of a tensor -> experts whose matrices are in it.
    """
    groups = [[layers[name] for name in group] for block in run.groups for group in block]
    # Layers see float copies of their inputs; one group's Hessian is there at a time, or those of some experts.
    widest = max(group[0].columns for group in groups)
    copies = 0 if _itemsize(config) == _FLOAT else run.tokens * widest * _FLOAT
    hessians = (
        min(experts.get(name.rpartition(".")[0], 1), hessians_at_once(layer.columns)) * _hessian(layer.columns)
        for name, layer in layers.items()
    )
    yield "calibrating", {"working": run.working + copies, "Hessian": max(hessians)}
    solving = ({"Hessian": _hessian(group[0].columns), "solving": _solving(group, config, method)} for group in groups)
    yield "solving", max(solving, key=lambda parts: sum(parts.values()))


def _hessian(columns: int) -> int:
    return _FLOAT * columns**2


def _solving(group: Sequence[Layer], config: CompressConfig, method: Method) -> int:
    """Bytes that layers with the same inputs take while they are solved, besides their Hessian."""
    square, largest = _hessian(group[0].columns), max(layer.weights for layer in group)
    item = _itemsize(config)
    # Old and new weight as floats, the difference, its product with the Hessian, and the new weight and its codes.
    error = (3 * _FLOAT + (0 if item == _FLOAT else 2 * _FLOAT) + item + 1) * largest
    # Scores, and an int64 and a float for each weight that is sorted; rows are sorted by themselves for wanda.
    is_sorted_whole = method.pruner is not None and method.pruner.is_sorted_whole(config.pattern != "unstructured")
    masking = ((3 * _FLOAT + 8) if is_sorted_whole else 2 * _FLOAT) * largest if method.pruner else 0
    if not method.compensates:
        return max(masking, error)
    # The damped Hessian's factor, the inverse and its factor; the last one stays. In activation order also a copy.
    factors = (4 if method.orders_columns and config.column_order == "activation" else 3) * square
    # Weights [columns, rows], the same in order, the result [rows, columns]; what is kept, codes, and their transpose.
    a_pass = (3 * _FLOAT + 1 + (2 if method.quantiser else 0)) * largest
    return max(factors, square + max(masking, a_pass, error) + (item + 1) * largest)  # the layer before is still held


def _codes(layers: Iterable[Layer], method: Method) -> int:
    """Codes of all layers, a byte each, kept until they are saved."""
    return sum(layer.weights for layer in layers) if method.quantiser else 0


def _packed(layers: Iterable[Layer], config: CompressConfig, method: Method) -> list[int]:
    """Bytes of each layer's packed tensors; none where weights are saved as they are."""
    is_packed = method.quantiser is not None and config.format != "dense"
    return [layer.packed(config) for layer in layers] if is_packed else []


def _block_weights(model: PreTrainedModel) -> list[int]:
    """Numbers of weights that are on a GPU together: those of each block, and the embeddings."""
    embeddings = model.get_input_embeddings()
    return [_count(module.parameters()) for module in [*blocks_of(model), embeddings]]


def _count(parameters: Iterable[Any]) -> int:
    return sum(parameter.numel() for parameter in parameters)


_Change = tuple[str, dict[str, Any], dict[str, Any]]
"""Options as they are given, and the values that they change in a config and a runtime."""


def other_requests(config: CompressConfig, runtime: Runtime) -> Iterator[tuple[str, CompressConfig, Runtime]]:
    """Requests that need less memory: with one option changed, those first that change the result least, then with several."""
    small: list[_Change] = []

    def change(text: str, options: dict[str, Any], running: dict[str, Any]) -> tuple[str, CompressConfig, Runtime]:
        return text, config.model_copy(update=options), runtime.model_copy(update=running)

    for count in _halves(rows_at_once(config, runtime), 1):
        yield change(f"--batch-size {count}", {}, {"batch_size": str(count)})
    if pick_device(runtime.device).type == "cuda":
        yield change("--device cpu", {}, {"device": "cpu"})
    small.append(("--batch-size 1", {}, {"batch_size": "1"}))
    for name, option, least in (("samples", "--samples", 16), ("seq_len", "--seq-len", 32)):
        smaller: list[_Change] = [(f"{option} {count}", {name: count}, {}) for count in _halves(getattr(config, name), least)]
        for each in smaller:
            yield change(*each)
        small += smaller[-1:]
    if config.dtype == "float32":
        yield change("--dtype bfloat16", {"dtype": "bfloat16"}, {})
        small.append(("--dtype bfloat16", {"dtype": "bfloat16"}, {}))
    for count in range(2, len(small) + 1):
        texts, options, running = zip(*small[:count], strict=True)
        yield change(" ".join(texts), _merged(options), _merged(running))


def _halves(number: int, least: int) -> Iterator[int]:
    while (number := number // 2) >= least:
        yield number


def _merged(values: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for each in values for name, value in each.items()}
