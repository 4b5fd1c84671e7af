"""The files of an export: written beside their place, then renamed, so that what is there is whole."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmrepair.models.weight_files import weight_files
from llmrepair.pipeline.artifact import files_below, write_json
from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.pipeline.progress import Bar, Reporter
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.store import Store
from llmrepair.stages.export.card import render_card
from llmrepair.stages.export.convert import write_converted
from llmrepair.stages.export.facts import collect_facts, quantization
from llmrepair.stages.export.gguf.exported import GGUF, GGUF_BITS, GGUF_FILE, write_gguf
from llmrepair.stages.export.merge import merged_bits, write_merged
from llmrepair.stages.export.parts import Parts
from llmrepair.stages.export.replaced import write_replaced

FACTS_FILE = "llmrepair.json"
_CHUNK_BYTES = 16 << 20
_BASE_MODEL = "base_model_name_or_path"


def check_target(folder: Path, store: Store) -> Path:
    """The place for an export, in full.

    Raises:
        RequestError: something is there already, or it is among the artifacts.
    """
    place = folder.resolve()
    if place.is_relative_to(store.root.resolve()):
        raise RequestError(Problem(f"`{folder}` is in the folder of artifacts", "choose a folder outside it with --to"))
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        what = "is not empty" if place.is_dir() else "is a file"
        raise RequestError(Problem(f"`{folder}` {what}", "choose another folder with --to"))
    return place


def write_export(runner: Runner, parts: Parts, place: Path, merge: bool, file_format: str | None) -> list[Path]:
    """Writes checkpoint, adapters, `llmrepair.json` and model card to the folder `place`, and returns the files.

    Args:
        merge: the LoRA adapter is added to the weights.
        file_format: None for the one in which the weights are stored.

    Raises:
        RequestError: no folder can be made there.
        WorkError: something else stands there by now, or a converted checkpoint does not load as it should.
    """
    facts = collect_facts(runner, parts, merge or parts.replaced is not None)
    with _appearing(place) as folder:
        if file_format == GGUF:
            _write_gguf(parts, folder, merge, facts, runner.reporter)
        else:
            _write_checkpoint(parts, folder, merge, file_format, facts, runner.reporter)
        if not merge:
            for name, adapter in parts.adapters.items():
                _write_adapter(adapter, folder / name)
        if parts.kept is not None:
            for name, index in parts.repair.files.indices(parts.kept).items():
                write_json(folder / name, index)
            for name, source in parts.repair.files.copies(parts.kept).items():
                shutil.copyfile(source, folder / name)
        write_json(folder / FACTS_FILE, facts)
        (folder / "README.md").write_text(render_card(facts), encoding="utf-8")
    return files_below(place)


def _write_gguf(parts: Parts, folder: Path, merge: bool, facts: dict[str, Any], reporter: Reporter) -> None:
    """Puts a GGUF file into `folder`, and what is known of it into `facts`."""
    base = facts["base_model"]
    named = {"name": base["name"], "license": base.get("license")}
    about = {f"general.{name}": value for name, value in named.items() if value is not None}
    facts["gguf"] = write_gguf(parts, folder, merge, about, reporter)
    facts["bits_per_weight"] = facts["gguf"]["bits_per_weight"]
    bits = [bits for kind, bits in GGUF_BITS.items() if kind in facts["gguf"]["tensors"]]
    facts["compression"]["quantization"] = {"method": GGUF, "bits": bits[0] if len(bits) == 1 else None}
    facts["weights_bytes"] = (folder / GGUF_FILE).stat().st_size


def _write_checkpoint(
    parts: Parts, folder: Path, merge: bool, file_format: str | None, facts: dict[str, Any], reporter: Reporter
) -> None:
    """Puts a checkpoint into `folder`, and what is known of it into `facts`."""
    facts["bits_per_weight"] = write_checkpoint_files(parts, folder, merge, file_format, reporter)
    facts["compression"]["quantization"] = quantization(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    facts["weights_bytes"] = sum(path.stat().st_size for path in weight_files(folder))


def write_checkpoint_files(parts: Parts, folder: Path, merge: bool, file_format: str | None, reporter: Reporter) -> float:
    """Puts the checkpoint into `folder` and returns its bits per compressed weight.

    It is copied, with the tensors that the repair replaced, or written anew: with the adapter merged into it, or in another
    format.
    """
    converted = file_format not in (None, parts.stored_format)
    names = [name for name in parts.checkpoint if not ((merge or converted) and _is_rewritten(name))]
    with reporter.bar("copying, MB", sum(parts.checkpoint[name].stat().st_size for name in names) / 1e6) as bar:
        for name in names:
            _copy(parts.checkpoint[name], folder / name, bar)
    if merge:
        write_merged(parts, folder)
        return merged_bits(parts)
    if file_format is not None and converted:
        return write_converted(parts, folder, file_format, reporter)
    if parts.replaced is not None:
        write_replaced(parts, folder)
    return float(parts.compressed.metrics["bits_per_weight"])


def _is_rewritten(name: str) -> bool:
    return ".safetensors" in name or name in ("config.json", "generation_config.json", "quantize_config.json")


def _copy(source: Path, target: Path, bar: Bar) -> None:
    """Copies the bytes, not the rights: safetensors files can be read by their owner alone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            writing.write(chunk)
            bar.advance(len(chunk) / 1e6, target.name)


def _write_adapter(source: Path, folder: Path) -> None:
    """Copies a peft adapter. It then names the export as its base model, wherever that is moved: seen from the export, `.`."""
    folder.mkdir(parents=True)
    shutil.copyfile(source / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    write_json(folder / "adapter_config.json", config | {_BASE_MODEL: "."})


@contextmanager
def _appearing(place: Path) -> Iterator[Path]:
    """A folder beside `place` that takes its place in one step when all went well, and is gone otherwise."""
    draft = place.parent / f".{place.name}-{secrets.token_hex(4)}"
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        message = f"no folder can be made in `{place.parent}`: {error.strerror}"
        raise RequestError(Problem(message, "choose another folder with --to")) from error
    try:
        yield draft
        try:
            draft.rename(place)
        except OSError as error:
            message = f"`{place}` could not be written: {error.strerror}"
            raise WorkError(Problem(message, "see whether something stands there by now")) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
