"""All that is known of an export, as JSON values: `llmrepair.json`, and what the model card says."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.keys import file_digest
from llmrepair.pipeline.runner import Runner
from llmrepair.stages.evaluate.stage import Evaluate
from llmrepair.stages.export.parts import Parts
from llmrepair.stages.results.collect import collect_evaluations, left_out
from llmrepair.stages.results.evaluation import Evaluation
from llmrepair.stages.results.table import build_table, compression_label
from llmrepair.stages.sources.lab import LAB_MODELS
from llmrepair.stages.sources.models import model_folder

_LICENCE_FIELDS = ("license", "license_name", "license_link")


def collect_facts(runner: Runner, parts: Parts, merged: bool) -> dict[str, Any]:
    """See the module's first line; what the written files say of themselves is added by who writes them.

    Args:
        merged: whether the LoRA adapter was merged into the weights.
    """
    compressed, tuned = parts.compressed, parts.tuned
    made_from = {each.name: each for each in (compressed, tuned, parts.measured, parts.exported) if each is not None}
    return {
        "exported": parts.exported.name,
        "llmrepair": importlib.metadata.version("llmrepair"),
        "base_model": _base_model(compressed),
        "compression": {
            "label": compression_label(compressed),
            "settings": compressed.key_document["config"],
            "calibration": compressed.key_document["sources"].get("calibration"),
            "metrics": compressed.metrics,
            "pruned": parts.is_pruned,
        },
        "recovery": parts.recovery,
        "merged": merged,
        "placing": parts.placing,
        "repair": _repair(parts, tuned) if tuned is not None else None,
        "scores": _scores(runner, parts, merged),
        "artifacts": {
            name: {"key": each.key_document, "versions": each.record["versions"]} for name, each in made_from.items()
        },
    }


def _base_model(compressed: Artifact) -> dict[str, Any]:
    """What the base model is called and what pins it; of a local folder only its own name, no path of this machine."""
    model, identity = compressed.record["tags"]["model"], compressed.key_document["sources"]["model"]
    name = identity.get("hub") or (model if model in LAB_MODELS else Path(model).expanduser().resolve().name)
    return {"name": name, "embedded": model in LAB_MODELS, **identity, **_licence(model, identity)}


def _licence(model: str, identity: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a model card that say under which licence the base model is; empty where its own card does not."""
    if "hub" not in identity and model in LAB_MODELS:
        return {"license": "apache-2.0"}
    card = _hub_card(identity) if "hub" in identity else _local_card(model, identity)
    if card is None:
        return {}
    try:
        _, front_matter, _ = card.read_text(encoding="utf-8").split("---\n", 2)
        fields = yaml.safe_load(front_matter)
    except (OSError, ValueError, yaml.YAMLError):  # a card without front matter, or with one that is broken
        return {}
    return {name: str(fields[name]) for name in _LICENCE_FIELDS if name in fields} if isinstance(fields, dict) else {}


def _hub_card(identity: Mapping[str, Any]) -> Path | None:
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(identity["hub"], "README.md", revision=identity["commit"]))
    except (HTTPError, OSError):  # it has none, or the Hub does not answer
        return None


def _local_card(model: str, identity: Mapping[str, Any]) -> Path | None:
    """The card beside a local model, if that is still the one that was compressed."""
    folder = model_folder(model)
    config = folder / "config.json" if folder is not None else None
    if config is None or not config.is_file() or file_digest(config) != identity["files"]["config.json"]:
        return None
    return config.with_name("README.md")


def quantization(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """In which format and to how many bits the weights are packed, as the config.json says; None if they are not."""
    found = config.get("quantization_config")
    if found is None:
        return None
    groups = found.get("config_groups", {}).values()
    bits = {group["weights"]["num_bits"] for group in groups} or {found.get("bits")}
    return {"method": found.get("quant_method"), "bits": bits.pop() if len(bits) == 1 else None}


def _repair(parts: Parts, tuned: Artifact) -> dict[str, Any]:
    return {
        "settings": tuned.key_document["config"],
        "placing": parts.placing,
        "tuning_data": tuned.key_document["sources"]["tuning_data"],
        "metrics": tuned.metrics,
        "prompts": parts.prompts,
        "bos": parts.repair.files.bos(parts.kept) if parts.kept is not None else None,
    }


def _is_dense_of(artifact: Artifact, parts: Parts) -> bool:
    """Whether it is the base model as it is, in the same precision."""
    theirs, ours = artifact.key_document, parts.compressed.key_document
    same = theirs["sources"]["model"] == ours["sources"]["model"] and theirs["config"]["dtype"] == ours["config"]["dtype"]
    return bool(theirs["config"].get("method") == "none" and same)


def _scores(runner: Runner, parts: Parts, merged: bool) -> dict[str, Any]:
    """The report's table of this model with each repair, and of the dense model; rows of what lies in the export are marked."""
    found = _comparable(_evaluations(runner, parts), parts)
    table = build_table(found)
    ours = {each.artifact.name for each in found if _is_exported(each, parts, merged)}
    rows = [{**row, "exported": not ours.isdisjoint(row["keys"])} for row in table["rows"]]
    return {**table, "rows": rows}


def _evaluations(runner: Runner, parts: Parts) -> list[Evaluation]:
    """All intact ones of this compressed model, and those of the dense model without a repair."""

    def is_wanted(compressed: Artifact, tuned: Artifact | None) -> bool:
        return compressed.name == parts.compressed.name or (tuned is None and _is_dense_of(compressed, parts))

    found = collect_evaluations(runner, is_wanted)
    names = {each.artifact.name for each in found}

    def is_missed(artifact: Artifact) -> bool:
        is_ours = artifact.stage == Evaluate.name and artifact.inputs["compressed"] == parts.compressed.name
        return is_ours and artifact.name not in names

    for text in left_out(runner, is_missed):
        runner.reporter.note(text)
    return found


def _comparable(evaluations: list[Evaluation], parts: Parts) -> list[Evaluation]:
    """Those computed by the same code and versions as the evaluation that is exported, or else as the newest of this model."""
    ours = [each.artifact for each in evaluations if each.compressed.name == parts.compressed.name]
    if parts.exported.stage == Evaluate.name:
        ours = [parts.exported]
    if not ours:
        return evaluations
    newest = max(ours, key=lambda artifact: artifact.record["started"])
    return [each for each in evaluations if _same_way(each.artifact, newest)]


def _same_way(one: Artifact, other: Artifact) -> bool:
    """Whether all modules and libraries that both were computed with are the same; those of their repairs differ anyway."""
    return all(
        _same_in_common(one.key_document.get(part, {}), other.key_document.get(part, {})) for part in ("code", "libraries")
    )


def _same_in_common(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _is_exported(evaluation: Evaluation, parts: Parts, merged: bool) -> bool:
    """Whether it was measured of what the export holds: of an adapter beside the weights, or of one that is merged into them,
    which is the same sum."""
    lies_beside = parts.repair.files.lies_beside
    if not (merged or lies_beside(evaluation.artifact.key_document["config"])):
        return False
    if parts.exported.stage == Evaluate.name and (merged or lies_beside(parts.placing)):
        return evaluation.artifact.name == parts.exported.name
    ours = parts.tuned.name if parts.tuned is not None else None
    theirs = evaluation.tuned.name if evaluation.tuned is not None else None
    return (evaluation.compressed.name, theirs) == (parts.compressed.name, ours)
