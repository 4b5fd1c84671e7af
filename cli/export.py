"""`export`: a compressed model and its repair as files for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmrepair.cli.options import DEFAULT_RUNS, JSON_OPTION, RUNS_OPTION
from llmrepair.cli.output import print_json
from llmrepair.cli.store_commands import KEY_ARGUMENT, existing_store
from llmrepair.pipeline.errors import RequestError
from llmrepair.pipeline.units import bytes_text
from llmrepair.stages.export.convert import format_problem
from llmrepair.stages.export.files import check_target, write_export
from llmrepair.stages.export.merge import merge_problem
from llmrepair.stages.export.parts import find_parts
from llmrepair.stages.export.replaced import replaced_problem
from llmrepair.stages.running import make_runner


def export(
    key: KEY_ARGUMENT,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="new or empty folder to write to")],
    merge: Annotated[
        bool,
        typer.Option("--merge", help="add a LoRA adapter to the weights of a dense model instead of keeping it beside them"),
    ] = False,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="compressed-tensors|gptq|dense|gguf",
            help="of quantised weights: packed ones can be turned into gptq (needs the extra \\[gptq]) or dense ones, the "
            "dequantised values; gguf is one file for llama.cpp  \\[default: as they are stored]",
        ),
    ] = None,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    store = existing_store(runs)
    place = check_target(to, store)
    runner = make_runner({}, runs)
    parts = find_parts(runner, key)
    problems = [replaced_problem(parts), *([merge_problem(parts)] if merge else [])]
    problems += [format_problem(parts, file_format, merge)] if file_format else []
    if wrong := [problem for problem in problems if problem is not None]:
        raise RequestError(*wrong)
    files = write_export(runner, parts, place, merge, file_format)
    sizes = {path.relative_to(place).as_posix(): path.stat().st_size for path in files}
    if as_json:
        print_json({"key": parts.exported.name, "path": str(place), "files": list(sizes), "bytes": sum(sizes.values())})
        return
    for name, size in sizes.items():
        print(f"{name:<44} {bytes_text(size)}")
    print(f"\n{parts.exported.name} is in {place}, {bytes_text(sum(sizes.values()))}; README.md says how to load it")
