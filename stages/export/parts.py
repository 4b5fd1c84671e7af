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
from llmrepair.stages.compress import Compress
from llmrepair.stages.control import Control
from llmrepair.stages.evaluate import Evaluate
from llmrepair.stages.sources import hub_snapshot, model_files, model_folder
from llmrepair.stages.tune_lora import TuneLora
from llmrepair.stages.tune_prompts import TunePrompts
from llmrepair.stages.tune_ptune import TunePtune

_ROLES = {
    **{stage.name: "compressed" for stage in (Compress, Control)},
    **{stage.name: "repair" for stage in (TunePrompts, TuneLora, TunePtune)},
    Evaluate.name: "evaluated",
}

ONE_ADAPTER = ("lora", "ptune")
"""Recoveries that are one adapter, which lies in an export under the recovery's name; all others are prompts, in `prompts`."""
_CHANCE_ZEROS = 0.01
"""Share of zeros that a model may have that was never pruned."""


@dataclass(frozen=True)
class Parts:
    """An artifact that is exported or loaded, and what it was made from."""

    exported: Artifact
    compressed: Artifact
    repair: Artifact | None

    @property
    def recovery(self) -> str:
        """`none`, `lora`, `ptune`, `pool` (all prompts, nothing said of how one is chosen), or an evaluation's `prompt` (one of
        them), `idp`, `hard` or `icl`."""
        if self.exported.stage == Evaluate.name:
            recovery = str(self.exported.key_document["config"]["recovery"])
            uses_one = self._select.startswith(("best-validation", "fixed"))
            return "pool" if recovery == "prompt" and not uses_one else recovery
        recoveries = {
            Compress.name: "none",
            Control.name: "none",
            TuneLora.name: "lora",
            TunePtune.name: "ptune",
            TunePrompts.name: "pool",
        }
        return recoveries[self.exported.stage]

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
        if self.is_dense:
            return {path.name: path for path in dense_files(self.compressed)}
        folder = self.compressed.path / "checkpoint"
        return {path.relative_to(folder).as_posix(): path for path in files_below(folder)}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json."""
        config: dict[str, Any] = json.loads(self.checkpoint["config.json"].read_text(encoding="utf-8"))
        return config

    @property
    def is_pruned(self) -> bool:
        """Whether zeros are there on purpose: quantisation rounds some weights to zero too."""
        if self.is_dense and "quantization_config" not in self.config:
            return bool(self.compressed.metrics["sparsity"] > _CHANCE_ZEROS)
        return self.compressed.key_document["config"].get("sparsity") is not None

    @cached_property
    def prompts(self) -> list[dict[str, Any]]:
        """The prompts that are exported: number in the pool, folder, tokens, learning rate, held-out loss, and whether that is
        the lowest."""
        if self.repair is None or self.repair.stage != TunePrompts.name:
            return []
        pool, rates = self.repair.read_json("pool.json"), self.repair.metrics["learning_rates"]
        losses = pool["validation_losses"]
        best = losses.index(min(losses))
        prompts = [
            {"number": number, **entry, "learning_rate": rate, "validation_loss": loss, "best": number == best}
            for number, (entry, rate, loss) in enumerate(zip(pool["prompts"], rates, losses, strict=True))
        ]
        if self.recovery != "prompt":
            return prompts
        kind, _, number = self._select.partition(":")
        return [prompts[int(number) if kind == "fixed" else best]]

    @property
    def pool(self) -> dict[str, Any]:
        """The index of the pool that is exported, as `models.soft_prompt.load_pool` reads it."""
        assert self.repair is not None
        return {
            "prompts": [{"folder": str(prompt["number"]), "length": prompt["length"]} for prompt in self.prompts],
            "input_position": self.repair.read_json("pool.json")["input_position"],
            "validation_losses": [prompt["validation_loss"] for prompt in self.prompts],
        }

    @property
    def _select(self) -> str:
        """How the exported evaluation chose a prompt."""
        return self.exported.key_document["config"].get("select") or "best-validation"

    @property
    def adapters(self) -> dict[str, Path]:
        """Folder in the export -> the peft adapter's folder in the store."""
        if self.repair is None:
            return {}
        if self.recovery in ONE_ADAPTER:
            return {self.recovery: self.repair.path / "adapter"}
        return {f"prompts/{prompt['number']}": self.repair.path / prompt["folder"] for prompt in self.prompts}


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
    found = {role: _intact(runner, name) for role, name in names.items()}
    return Parts(exported, found["compressed"], found.get("repair"))


def _intact(runner: Runner, name: str) -> Artifact:
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
