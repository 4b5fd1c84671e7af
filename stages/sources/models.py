"""Models by what `--model` says: embedded, in a local folder, or on the Hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.reading import read_object, reading
from llmrepair.pipeline.stage import Needs
from llmrepair.stages.sources.hub import hub_commit, looks_like_hub_id, snapshot_folder
from llmrepair.stages.sources.lab import lab_folder

ADAPTER_FILE = "adapter_config.json"
CONFIG_FILE = "config.json"
COPY_AGAIN = "copy or download the model again"
_READ_OF_CONFIG = {
    **dict.fromkeys(("model_type", "transformers_weights"), str),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "num_hidden_layers"), int),
    "architectures": list,
    "quantization_config": dict,
}
"""What is read of a config.json here, and what it has to be where it is there; transformers checks the rest."""
_LAYERS = re.compile(r"(n|num|encoder|decoder)_(\w+_)?layers?")
"""Fields of a config.json that say how many there are."""
_LONGEST_VALUE = 60
_LIBRARIES_BYTES = 1 << 30
_MODEL_FILES = (
    "config.json generation_config.json *.safetensors *.safetensors.index.json *token*.json vocab.* merges.txt *.model "
    "*.jinja *.py"
).split()


@dataclass(frozen=True)
class ModelSource:
    """A pinned model: `location` and `revision` go to `from_pretrained`, `identity` goes into keys."""

    location: str
    revision: str | None
    identity: dict[str, Any]


def model_folder(model: str) -> Path | None:
    """The folder, or GGUF file, that `--model` names, or None if it is a Hub id."""
    if (embedded := lab_folder(model)) is not None:
        return embedded
    folder = Path(model).expanduser()
    return folder if folder.exists() or is_gguf(model) or not looks_like_hub_id(model) else None


def model_name(model: str) -> str:
    """What a model is called where there is no room for its folders: the last part of what `--model` says."""
    path = Path(model).absolute()
    return path.stem if is_gguf(model) else path.name


def is_gguf(model: str) -> bool:
    """Whether `--model` names a GGUF file, which a model folder is made of first."""
    return model.lower().endswith(".gguf")


def resolve_model(model: str, revision: str | None, digests: Callable[[Sequence[Path]], Sequence[str]]) -> ModelSource:
    """Finds a model and pins it.

    Args:
        model: `lab`, `lab-opt`, a local folder, a GGUF file or a Hub id.
        revision: branch, tag or commit of a Hub id.
        digests: sha256 of each of some files.

    Raises:
        RequestError: there is no such model.
    """
    folder = model_folder(model)
    if folder is None:
        commit = hub_commit(model, revision, "model")
        return ModelSource(model, commit, {"hub": model, "commit": commit})
    problem = folder_problem(model, folder)
    if problem:
        raise RequestError(problem)
    if is_gguf(model):
        return ModelSource(str(folder), None, {"gguf": digests([folder])[0]})
    files = model_files(folder)
    return ModelSource(str(folder), None, {"files": dict(zip((path.name for path in files), digests(files), strict=True))})


def model_files(folder: Path) -> list[Path]:
    """Files of a model folder that say what the model is: weights, configs, tokenizer, code."""
    return sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})


def hub_snapshot(name: str, commit: str) -> Path:
    """The folder of a Hub model on this machine; what is missing of it is downloaded if the Hub answers.

    Raises:
        RequestError: the Hub does not answer, and the model is not in its local cache.
    """
    from httpx import HTTPError
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=_MODEL_FILES))
    except (HTTPError, OSError) as error:  # the Hub's own errors are OSErrors
        folder = snapshot_folder(name, commit, "model")
        if folder_problem(name, folder) is None:
            return folder
        message = f"model `{name}` at commit `{commit}` is not in the local Hub cache, nor reachable on the Hub"
        raise RequestError(Problem(f"{message} ({type(error).__name__})", "check the network")) from error


def folder_problem(model: str, folder: Path) -> Problem | None:
    """What keeps a folder from being a model, as far as its file names tell."""
    if is_gguf(model):
        return None if folder.is_file() else Problem(f"there is no file `{model}`", "give another one with --model", "model")
    if not folder.is_dir():
        return Problem(f"there is no model folder `{model}`", "give `lab`, `lab-opt`, a folder or a Hub id with --model")
    if (folder / ADAPTER_FILE).exists():
        return adapter_problem(model)
    if not (folder / CONFIG_FILE).is_file():
        return Problem(f"`{model}` is no model folder: it has no config.json", "save one there with `save_pretrained`")
    return _weights_problem(model, folder)


def _weights_problem(model: str, folder: Path) -> Problem | None:
    hint = "convert them: `AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)` writes safetensors"
    try:
        files = weight_files(folder)
    except ValueError as error:
        return Problem(f"`{model}` cannot be read: {error}", COPY_AGAIN)
    if gone := [path.name for path in files if not path.is_file()]:
        return Problem(f"`{model}` lacks {gone[0]}, which its index lists", COPY_AGAIN)
    if files:
        return None
    if other := sorted(path.name for path in folder.glob("*.safetensors")):
        message = f"`{model}` has no model.safetensors and no index of several files; {other[0]} is not what transformers loads"
        return Problem(message, hint)
    return Problem(f"`{model}` has no weights in safetensors format, and pickled ones are never loaded", hint)


def adapter_problem(model: str) -> Problem:
    """What is wrong with a model that has an adapter beside its weights."""
    return Problem(
        f"`{model}` holds an adapter (adapter_config.json), which transformers puts on the model without a word",
        "give the model without it, or merge the two with peft's `merge_and_unload` and `save_pretrained`",
        "model",
    )


def weights_on_disk(source: ModelSource) -> int:
    """Bytes of a model's weight files; none of a model of the Hub that is not in the local cache yet."""
    folder = Path(source.location)
    if source.revision is not None:
        folder = snapshot_folder(source.location, source.revision, "model")
    return sum(path.stat().st_size for path in weight_files(folder) if path.is_file())


def local_folder(source: ModelSource) -> Path | None:
    """Where a model's files are on this machine; None of a model of the Hub that is not in the local cache yet."""
    if source.revision is None:
        return Path(source.location)
    folder = snapshot_folder(source.location, source.revision, "model")
    return folder if folder_problem(source.location, folder) is None else None


def roughly_needed(source: ModelSource) -> Needs:
    """What a stage takes, by rule of thumb: the libraries, and the weights three times (loaded, worked on, saved)."""
    return Needs(host=_LIBRARIES_BYTES + 3 * weights_on_disk(source), is_rough=True)


def has_adapter(source: ModelSource) -> bool:
    """Whether transformers would put an adapter on the model; of a folder that was told when it was found."""
    if source.revision is None:
        return False
    from transformers.utils.peft_utils import find_adapter_config_file

    return find_adapter_config_file(source.location, revision=source.revision) is not None


def load_config(source: ModelSource) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        RequestError: it is none.
    """
    if source.revision is None:
        path = Path(source.location) / CONFIG_FILE
    else:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(source.location, CONFIG_FILE, revision=source.revision))
    what = f"{CONFIG_FILE} of `{source.location}`"
    config = read_object(path, what, COPY_AGAIN, "model")
    for name, kind in _READ_OF_CONFIG.items():
        if not isinstance(config.get(name), kind | None):
            message = f"{what} has a `{name}` that is no {kind.__name__}: {_shortened(config[name])}"
            raise RequestError(Problem(message, COPY_AGAIN, "model"))
    return config


def layers_problem(source: ModelSource, model: str) -> Problem | None:
    """Says so of a config that asks for more layers than the files hold tensors: to make so many could take for ever."""
    if (folder := local_folder(source)) is None:
        return None
    from llmrepair.models.checkpoint import shapes

    tensors = 0
    for file in weight_files(folder):
        with reading(f"{file.name} of `{model}`", COPY_AGAIN, "model"):
            tensors += len(shapes(file))
    layers = [value for name, value in load_config(source).items() if _LAYERS.fullmatch(name) and isinstance(value, int)]
    if max(layers, default=0) <= tensors:
        return None
    message = f"{CONFIG_FILE} of `{model}` asks for {max(layers)} layers, and its files hold {tensors} tensors"
    return Problem(message, COPY_AGAIN, "model")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
