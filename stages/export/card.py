"""The model card: facts in, Markdown out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from llmrepair.pipeline.units import bytes_text
from llmrepair.stages.drawing.markdown import bullets, code, plain, table
from llmrepair.stages.drawing.numbers import COMPARISON_HEADS, comparison_cells, count_text, repair_text, score_text
from llmrepair.stages.export.gguf.exported import gguf_text
from llmrepair.stages.export.loading import loading_sections
from llmrepair.stages.repairs import repair_of_form
from llmrepair.stages.repairs.files import RepairFiles

Facts = Mapping[str, Any]


def files_of(facts: Facts) -> RepairFiles:
    """What knows how the repair lies in the export."""
    return repair_of_form(facts["recovery"]).files


def render_card(facts: Facts) -> str:
    """The README.md of an export, with the front matter that the Hub reads.

    Args:
        facts: what `facts.collect_facts` found, and `weights_bytes` of the checkpoint that was written.
    """
    parts = [f"# {_title(facts)}", _introduction(facts), table(("", ""), _properties(facts))]
    if facts["repair"] is not None:
        parts += ["## Repair", *_repair(facts)]
    parts += ["## Scores", *_scores(facts), "## Loading", *loading_sections(facts)]
    parts += ["## Limits", bullets(_limits(facts)), "## Where it comes from", *_provenance(facts)]
    return _front_matter(facts) + "\n" + "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts) -> str:
    base, quantization = facts["base_model"], facts["compression"]["quantization"]
    fields: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if "hub" in base:
        fields["base_model"] = base["hub"]
        if quantization is not None:
            fields["base_model_relation"] = "quantized"
    fields |= {name: base[name] for name in ("license", "license_name", "license_link") if name in base}
    method = _method(facts)
    tags = ["llmrepair", *(method.split("+") if method != "none" else [])]
    if quantization is not None:
        tags += [quantization["method"], *([f"{quantization['bits']}-bit"] if quantization["bits"] else [])]
    if facts["repair"] is not None:
        tags.append(files_of(facts).hub_tag(facts["repair"]["settings"]))
    return f"---\n{yaml.safe_dump(fields | {'tags': list(dict.fromkeys(tags))}, sort_keys=False, allow_unicode=True)}---\n"


def _title(facts: Facts) -> str:
    repair = f", {files_of(facts).words(facts)}" if facts["repair"] is not None else ""
    return f"{plain(facts['base_model']['name'])}, {facts['compression']['label']}{repair}"


def _method(facts: Facts) -> str:
    """How it was compressed: `none` is the dense model or a control."""
    return str(facts["compression"]["settings"].get("method", "none"))


def _introduction(facts: Facts) -> str:
    name = code(facts["base_model"]["name"])
    settings, label = facts["compression"]["settings"], facts["compression"]["label"]
    done = f"made into a model whose truth is known, {label}" if "control" in settings else f"compressed ({label})"
    done = "as it is" if settings.get("method") == "none" else done
    repair = ""
    if facts["repair"] is not None:
        files = files_of(facts)
        repair = f" {files.words(facts)}" + ("" if facts["merged"] else f" in `{files.exported(facts['recovery'])}/`")
    return (
        f"{name} {done}{repair}, written by llmrepair {facts['llmrepair']}. All that is said here is in `llmrepair.json` "
        "for programs to read."
    )


def _properties(facts: Facts) -> Iterable[tuple[str, str]]:
    compression = facts["compression"]
    metrics = compression["metrics"]
    yield "base model", _base_model(facts["base_model"])
    yield "compression", compression["label"]
    yield "settings", _settings(compression["settings"])
    if compression["calibration"] is not None:
        rows = _rows(metrics["calibration_rows"], compression["settings"]["samples"], compression["settings"]["seq_len"])
        yield "calibration", _text_source(compression["calibration"]) + rows
    rounded = ", by rounding alone" if metrics["sparsity"] and not compression["pruned"] else ""
    weights = count_text(metrics["compressed_weights"])
    yield "sparsity", f"{metrics['sparsity']:.1%} of the {weights} weights in linear layers are zero{rounded}"
    yield "bits per weight", f"{facts['bits_per_weight']:.2f} in these layers as stored, scales and zero points counted"
    ratio = metrics.get("compression_ratio")
    base = f" (base model: {bytes_text(round(ratio * metrics['size_bytes']))})" if ratio is not None else ""
    if "gguf" in facts:
        yield f"`{facts['gguf']['file']}`", gguf_text(facts["gguf"])
    yield "size of the weights", f"{bytes_text(facts['weights_bytes'])}{base}"
    if facts["repair"] is not None:
        yield "extra parameters", count_text(files_of(facts).extra_parameters(facts)) + (" (merged)" if facts["merged"] else "")


def _base_model(base: Facts) -> str:
    if "hub" in base:
        return f"[{base['hub']}](https://huggingface.co/{base['hub']}) at commit `{base['commit']}`"
    where = "embedded in llmrepair" if base["embedded"] else "a local folder"
    return f"{code(base['name'])}, {where}; its files' digests are below"


def _text_source(identity: Facts) -> str:
    if "hub" in identity:
        config = f", `{identity['config']}`," if identity["config"] else ""
        return (
            f"[{identity['hub']}](https://huggingface.co/datasets/{identity['hub']}){config} at commit `{identity['commit']}`"
        )
    if "file" in identity:
        return f"a local {identity['format']} file with sha256 `{identity['file']}`"
    return f"the synthetic text of llmrepair's lab (`{identity['lab']}`)"


def _rows(found: int, asked: int, tokens: int) -> str:
    """How much of a source was used, which may hold less than the settings ask for."""
    return f": {found} rows of {tokens} tokens" + (f", all that it holds, of the {asked} asked for" if found < asked else "")


def _settings(settings: Facts) -> str:
    return ", ".join(
        f"{name} `{_value(value)}`" for name, value in settings.items() if value is not None and value is not False
    )


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _repair(facts: Facts) -> Iterable[str]:
    repair = facts["repair"]
    is_so = facts["merged"] or files_of(facts).lies_beside(repair["placing"])
    settings = _settings({**repair["settings"], **(repair["placing"] if is_so else {})})
    found = sum(repair["metrics"][part] for part in ("training_rows", "validation_rows"))
    rows = _rows(found, repair["settings"]["tuning_samples"], repair["settings"]["tuning_seq_len"])
    yield table(("", ""), [("settings", settings), ("tuned on", _text_source(repair["tuning_data"]) + rows)])
    yield from files_of(facts).losses(facts)


def _scores(facts: Facts) -> Iterable[str]:
    scores = facts["scores"]
    if not scores["rows"]:
        yield "It was not evaluated."
        return
    columns = scores["columns"]
    yield "With 95 % intervals; in bold what lies here. Shares of right answers are in per cent."
    heads = ["compression", "repair", *(f"{column['title']}: {column['metric']}" for column in columns)]
    heads += ["extra parameters", "size"]
    yield table(heads, [_score_row(row, columns) for row in scores["rows"]], right=2)
    if compared := comparison_cells(scores):
        yield (
            "The repairs against the same model without one, item by item. Lost: right before compression and wrong after; "
            "kept: right in both; never known: wrong in both."
        )
        yield table(COMPARISON_HEADS, compared, right=3)


def _score_row(row: Facts, columns: Sequence[Facts]) -> list[str]:
    scores = [score_text(row["scores"].get(column["name"]), column) for column in columns]
    cells = [row["compression"], repair_text(row), *scores, count_text(row["extra_parameters"]), bytes_text(row["size_bytes"])]
    return [f"**{cell}**" if cell else "" for cell in cells] if row["exported"] else cells


def _limits(facts: Facts) -> Iterable[str]:
    yield from _limits_of_measurement(facts)
    yield from _limits_of_compression(facts)
    yield from files_of(facts).limits(facts)


def _limits_of_measurement(facts: Facts) -> Iterable[str]:
    rows = [row for row in facts["scores"]["rows"] if row["exported"]]
    tasks = [column["title"] for column in facts["scores"]["columns"] if any(column["name"] in row["scores"] for row in rows)]
    if not tasks:
        yield "Nothing was measured of this model in this form."
        return
    dtype = facts["compression"]["settings"]["dtype"]
    yield f"Measured on {'; '.join(tasks)}, and on nothing else."
    yield f"Scores were computed in {dtype}; another precision gives others."
    if facts["merged"] and files_of(facts).lies_beside(facts["repair"]["placing"]):
        rounding = "" if dtype == "float32" else f", but for rounding to {dtype}"
        yield f"The scores were measured with the adapter beside the weights, which is the same sum{rounding}."


def _limits_of_compression(facts: Facts) -> Iterable[str]:
    compression = facts["compression"]
    is_compressed = _method(facts) != "none"
    if "gguf" in facts:
        yield "llama.cpp computes with the weights as they are in the file; for transformers they become a dense model's."
    elif compression["quantization"] is not None:
        yield "transformers unpacks the weights when it uses them: the file is small, the memory is a dense model's."
    elif is_compressed:
        what = "zeros are" if compression["pruned"] else "quantised values are"
        yield f"The {what} stored like all numbers: neither the files nor the memory are smaller than a dense model's."


def _provenance(facts: Facts) -> Iterable[str]:
    versions: dict[str, list[str]] = {}
    for name, artifact in facts["artifacts"].items():
        text = ", ".join(f"{package} {version}" for package, version in artifact["versions"].items())
        versions.setdefault(text, []).append(f"`{name}`")
    yield f"Exported from `{facts['exported']}`. Keys of what it was made from, and the versions that made it:"
    yield bullets(f"{', '.join(names)}: {text}" for text, names in versions.items())
    if keys := [key for row in facts["scores"]["rows"] for key in row["keys"]]:
        yield "Scores: " + ", ".join(f"`{key}`" for key in keys)
    if files := facts["base_model"].get("files"):
        yield f"Files of the base model `{facts['base_model']['name']}`:"
        yield table(("file", "sha256"), [(f"`{name}`", f"`{digest}`") for name, digest in files.items()])
