"""What an artifact of any stage leads to: a compressed model, its checkpoint, and the repair that goes with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmrepair.pipeline.artifact import Artifact, files_below
from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.pipeline.keys import file_digest
from llmrepair.pipeline.runner import Runner
from llmrepair.stages.compress.stage import Compress
from llmrepair.stages.controls.stage import Control
from llmrepair.stages.evaluate.stage import Evaluate
from llmrepair.stages.repairs import REPAIRS, TUNINGS, repair_of_form
from llmrepair.stages.repairs.base import Repair
from llmrepair.stages.repairs.files import Kept
from llmrepair.stages.results.evaluation import placing
from llmrepair.stages.results.table import UNREPAIRED
from llmrepair.stages.sources.models import CONFIG_FILE, hub_snapshot, model_files, model_folder
from llmrepair.stages.sources.weights import CHECKPOINT_FOLDER

_ROLES = {
    **dict.fromkeys((Compress.name, Control.name), "compressed"),
    **dict.fromkeys(TUNINGS, "repair"),
    Evaluate.name: "evaluated",
}

_CHANCE_ZEROS = 0.01
"""Share of zeros that a model may have that was never pruned."""


@dataclass(frozen=True)
class Parts:
    """An artifact that is exported or loaded, and what it was made from."""

    exported: Artifact
    compressed: Artifact
    tuned: Artifact | None
    measured: Artifact | None = None
    imported: Artifact | None = None
    """The base model's folder in the store, where that was made of a GGUF file."""

    @property
    def recovery(self) -> str:
        """What the repair is called in the export: a recovery, or another of its forms."""
        stage, config = self.exported.stage, self.exported.key_document["config"]
        if stage == Evaluate.name:
            repair = REPAIRS[config["recovery"]]
            return repair.files.form(repair.name, config)
        return TUNINGS[stage].form if stage in TUNINGS else UNREPAIRED

    @property
    def repair(self) -> Repair:
        return repair_of_form(self.recovery)

    @cached_property
    def kept(self) -> Kept | None:
        """The repair in the store; None where nothing was tuned."""
        return Kept(self.tuned, self.recovery, self.placing, self.measured) if self.tuned is not None else None

    @property
    def placing(self) -> dict[str, Any]:
        """The options with which the exported evaluation put its repair in place; empty where a tuning is exported."""
        is_evaluation = self.exported.stage == Evaluate.name
        return placing(self.exported.key_document["config"]) if is_evaluation else {}

    @property
    def is_dense(self) -> bool:
        """Whether nothing was done to the base model, of which the store then holds no copy."""
        return bool(self.compressed.key_document["config"].get("method") == "none")

    @cached_property
    def checkpoint(self) -> dict[str, Path]:
        """The checkpoint's files by their names.

        Raises:
            RequestError: it is the dense model, and that is not where it was, or has changed.
        """
        if self.is_dense and self.imported is None:
            return {path.name: path for path in dense_files(self.compressed)}
        folder = (self.imported if self.is_dense and self.imported is not None else self.compressed).path / CHECKPOINT_FOLDER
        return {path.relative_to(folder).as_posix(): path for path in files_below(folder)}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json."""
        config: dict[str, Any] = json.loads(self.checkpoint["config.json"].read_text(encoding="utf-8"))
        return config

    @property
    def location(self) -> Path:
        """The checkpoint's folder."""
        return self.checkpoint["config.json"].parent

    @property
    def dense_folder(self) -> Path:
        """The model that was compressed.

        Raises:
            RequestError: it is not where it was, or has changed.
        """
        if self.imported is not None:
            return self.imported.path / CHECKPOINT_FOLDER
        return next(path.parent for path in dense_files(self.compressed) if path.name == CONFIG_FILE)

    @property
    def stored_format(self) -> str:
        """compressed-tensors, gptq, or dense for a model whose weights are plain numbers."""
        return str(self.config.get("quantization_config", {}).get("quant_method", "dense"))

    @property
    def is_pruned(self) -> bool:
        """Whether zeros are there on purpose: quantisation rounds some weights to zero too."""
        if self.is_dense and "quantization_config" not in self.config:
            return bool(self.compressed.metrics["sparsity"] > _CHANCE_ZEROS)
        return self.compressed.key_document["config"].get("sparsity") is not None

    @cached_property
    def prompts(self) -> list[dict[str, Any]]:
        """The prompts that are exported, see `RepairFiles.prompts`."""
        return self.repair.files.prompts(self.kept) if self.kept is not None else []

    @property
    def adapters(self) -> dict[str, Path]:
        """Folder in the export -> the peft adapter's folder in the store."""
        return self.repair.files.adapters(self.kept) if self.kept is not None else {}

    @property
    def replaced(self) -> Path | None:
        """The file of those tensors that the repair has put in the place of the checkpoint's own."""
        return self.repair.files.replaced(self.kept) if self.kept is not None else None


def find_parts(runner: Runner, key: str) -> Parts:
    """The artifact that `key` is the start of, and what it was made from, all of it intact.

    Raises:
        RequestError: there is no such artifact, or it is no model.
        WorkError: something that it was made from is gone or damaged.
    """
    exported = runner.store.resolve(key)
    if exported.stage not in _ROLES:
        hint = f"give a key of {', '.join(_ROLES)}; `llmrepair ls` lists them"
        raise RequestError(Problem(f"`{exported.name}` is no model and no repair", hint))
    runner.reporter.say(f"checking `{exported.name}` and what it was made from ...")
    names = {**exported.inputs, _ROLES[exported.stage]: exported.name}
    found = {role: intact(runner, name) for role, name in names.items()}
    imported = found["compressed"].inputs.get("imported")
    return Parts(
        exported,
        found["compressed"],
        found.get("repair"),
        found.get("measured"),
        intact(runner, imported) if imported is not None else None,
    )


def intact(runner: Runner, name: str) -> Artifact:
    """
    Raises:
        WorkError: it is not there, or damaged.
    """
    artifact = runner.find_intact(name, is_read=True)
    if artifact is None:
        raise WorkError(Problem(f"`{name}` is damaged or was removed", "make it again with the command that made it"))
    return artifact


def dense_files(compressed: Artifact) -> list[Path]:
    """The files of the model that an artifact of `compress` was made from, with the contents that they had then.

    Raises:
        RequestError: they are not there any more.
    """
    model, identity = compressed.record["tags"]["model"], compressed.key_document["sources"]["model"]
    if "hub" in identity:
        return model_files(hub_snapshot(identity["hub"], identity["commit"]))
    folder = model_folder(model)
    if folder is None or (changed := _changed(folder, identity["files"])):
        what = f"its {changed} is gone or has changed" if folder is not None else "there is no such folder"
        hint = "put it back as it was (paths count from the current folder), or give the new one to `llmrepair compress`"
        raise RequestError(Problem(f"`{model}` is not the model that `{compressed.name}` was made from: {what}", hint))
    return [folder / name for name in identity["files"]]


def _changed(folder: Path, digests: Mapping[str, str]) -> str | None:
    """The first file that does not have its digest."""
    unchanged = ((folder / name).is_file() and file_digest(folder / name) == digest for name, digest in digests.items())
    return next((name for name, same in zip(digests, unchanged, strict=True) if not same), None)
