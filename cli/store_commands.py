"""`ls`, `show`, `why`, `rm`, `gc`, `verify`: what is in the store, where it comes from, and what may go."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from llmrepair.cli.options import DEFAULT_RUNS, JSON_OPTION, RUNS_OPTION
from llmrepair.cli.output import console, flat, print_json, print_table
from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.pipeline.garbage import free, garbage, made_from, named_runs, reachable
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.store import NAMED, Store
from llmrepair.pipeline.units import age_text, bytes_text, parse_bytes, parse_seconds

KEY_ARGUMENT = Annotated[str, typer.Argument(metavar="KEY", help="a key, or the start of one")]


def existing_store(runs: Path) -> Store:
    """The store that is there: none of these commands has a use for an empty one."""
    if not runs.is_dir():
        raise RequestError(Problem(f"there is no folder `{runs}`", "give the folder of artifacts with --runs"))
    return Store(runs)


def tell_damaged(reporter: Reporter) -> Callable[[Artifact], None]:
    """Names what is left out."""
    hint = "`llmrepair verify` puts it aside, `llmrepair rm` removes it"
    return lambda artifact: reporter.note(f"`{artifact.name}` is damaged, its key or record cannot be read: {hint}")


def list_artifacts(
    stage: Annotated[str | None, typer.Option("--stage", help="only of this stage")] = None,
    model: Annotated[str | None, typer.Option("--model", help="only of this model, named as it was given")] = None,
    method: Annotated[str | None, typer.Option("--method", help="only of this compression method")] = None,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    wanted = {name: value for name, value in (("model", model), ("method", method)) if value is not None}
    found = [
        artifact
        for artifact in existing_store(runs).artifacts(tell_damaged(Reporter()))
        if stage in (None, artifact.stage) and wanted.items() <= artifact.record["tags"].items()
    ]
    if as_json:
        print_json({"artifacts": [_summary(artifact) for artifact in found]})
        return
    print_table(("stage", "key", "what", "made", "seconds", "size"), list(map(_row, found)), right=("seconds", "size"))
    print(f"\n{len(found)} artifacts, {bytes_text(sum(artifact.record['size_bytes'] for artifact in found))}")


def _row(artifact: Artifact) -> list[str]:
    record = artifact.record
    made = record["started"][:16].replace("T", " ")
    return [artifact.stage, artifact.key, record["label"], made, f"{record['seconds']:.1f}", bytes_text(record["size_bytes"])]


def show(key: KEY_ARGUMENT, runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    store = existing_store(runs)
    artifact = store.resolve(key)
    children = sorted(other.name for other in store.artifacts() if artifact.name in other.inputs.values())
    document, record = artifact.key_document, artifact.record
    if as_json:
        relatives = {"parents": artifact.inputs, "children": children}
        print_json(_summary(artifact) | relatives | {"key_document": document, "record": record})
        return
    out = console()
    out.print(f"{artifact.name}  {record['label']}\n{artifact.path}", markup=False, soft_wrap=True)
    out.print(_command(artifact), markup=False, soft_wrap=True)
    sections = {
        "made from": {**document["config"], **{name: _described(store, parent) for name, parent in artifact.inputs.items()}},
        "went into": {f"child {index + 1}": _described(store, name) for index, name in enumerate(children)},
        "metrics": artifact.metrics,
        "record": {name: value for name, value in record.items() if name not in ("metrics", "label", "tags", "options")},
    }
    for title, values in sections.items():
        if values:
            out.print(f"\n{title}")
        for name, value in flat(values):
            out.print(f"  {name:<42} {value}", markup=False, soft_wrap=True)


def _command(artifact: Artifact) -> str:
    """The command that makes it again."""
    words = ["llmrepair", artifact.stage]
    for name, value in artifact.record["options"].items():
        if value not in (None, False):
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join(words)


def _described(store: Store, name: str) -> str:
    artifact = store.find(name)
    return f"{name}  {artifact.label if artifact is not None else '(removed)'}"


def why(
    key: KEY_ARGUMENT,
    other: Annotated[str | None, typer.Argument(metavar="KEY", help="a second one; without it the most similar")] = None,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    from llmrepair.pipeline.differences import beside_keys, differences

    store = existing_store(runs)
    artifact = store.resolve(key)
    compared = store.resolve(other) if other is not None else _most_similar(store, artifact)
    if compared.stage != artifact.stage:
        raise RequestError(Problem(f"`{artifact.name}` and `{compared.name}` are of two stages", "give keys of one stage"))
    found = differences(compared.key_document, artifact.key_document, store.find_document)
    beside = beside_keys(compared.record, artifact.record)
    if as_json:
        print_json({"key": artifact.name, "compared_with": compared.name, "differences": found, "beside_the_keys": beside})
        return
    print(f"{artifact.name}  {artifact.record['label']}\nagainst {compared.name}  {compared.record['label']}\n")
    print("\n".join(f"- {text}" for text in found) or "they are the same")
    if beside:
        print(f"\nnot in the keys, and may change last digits: {', '.join(beside)}")


def _most_similar(store: Store, artifact: Artifact) -> Artifact:
    from llmrepair.pipeline.differences import Nearest

    others = [other for other in store.artifacts() if other.stage == artifact.stage and other.key != artifact.key]
    nearest = Nearest([other.key_document for other in others], store.find_document).to(artifact.key_document)
    if nearest is None:
        raise RequestError(Problem(f"no other artifact of `{artifact.stage}` is there to compare with", "give a second key"))
    return others[nearest]


def remove(
    key: Annotated[str, typer.Argument(metavar="KEY", help="a key, the start of one, or named/NAME for the links of a plan")],
    with_children: Annotated[bool, typer.Option("--with-children", help="also remove all that was made from it")] = False,
    force: Annotated[bool, typer.Option("--force", help="also what a named run leads to")] = False,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    store = existing_store(runs)
    if key.startswith(f"{NAMED}/"):
        _remove_name(store, key.removeprefix(f"{NAMED}/"), as_json)
        return
    artifact = store.resolve_folder(key)
    children = made_from(store, artifact.name)
    going = [artifact, *(children if with_children else [])]
    if used := [each.name for each in going if each.name in store.in_use()]:
        raise RequestError(Problem(f"`{used[0]}` is being read or made by another process", "wait for it, or end it"))
    if not force:
        _refuse_named(store, going)
    labels = [f"{each.name}  {each.label}" for each in going]
    for each in going:
        store.remove(each)
    left = [] if with_children else [child.name for child in children]
    if as_json:
        print_json({"removed": [each.name for each in going], "children_left": left})
        return
    for label in labels:
        print(f"removed {label}")
    if left:
        stay = f"{len(left)} artifacts that were made from it stay, and reports leave them out until it is made again"
        print(f"{stay}; `--with-children` removes them too")


def _refuse_named(store: Store, going: list[Artifact]) -> None:
    for run, names in named_runs(store).items():
        kept = reachable(store, names)
        if named := [each.name for each in going if each.name in kept]:
            hint = f"let all results of that run go with `llmrepair rm {NAMED}/{run}`, or give --force"
            raise RequestError(Problem(f"the named run `{run}` leads to `{named[0]}`", hint))


def _remove_name(store: Store, name: str, as_json: bool) -> None:
    if name not in named_runs(store):
        raise RequestError(Problem(f"there is no named run `{name}`", f"they are the folders of {store.root / NAMED}"))
    shutil.rmtree(store.root / NAMED / name)
    if as_json:
        print_json({"removed": [f"{NAMED}/{name}"], "children_left": []})
    else:
        print(f"removed {NAMED}/{name}; what it led to stays until `llmrepair gc`")


def collect_garbage(
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="only what is older: 12h, 30d, 8w")
    ] = None,
    down_to: Annotated[
        str | None,
        typer.Option("--down-to", metavar="SIZE", help="the oldest first, until no more than this is left: 500MB, 20GB"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove it; without this it is only said what would go")] = False,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    age = _measure("--older-than", older_than, parse_seconds, "30d") or 0.0
    size = _measure("--down-to", down_to, parse_bytes, "20GB")
    store = existing_store(runs)
    store.clear_dead()
    found = garbage(store, age, size)
    total = sum(each.size_bytes for each in found)
    if yes:
        free(store, found)
    if as_json:
        items = [{"name": each.name, "what": each.what, "size_bytes": each.size_bytes} for each in found]
        print_json({"freed": yes, "size_bytes": total, "items": items})
        return
    rows = [[each.name, each.what, age_text(each.age_seconds), bytes_text(each.size_bytes)] for each in found]
    print_table(("name", "what", "age", "size"), rows, right=("age", "size"))
    print(f"\n{'freed' if yes else 'would free'} {bytes_text(total)}" + ("" if yes or not found else "; do it with --yes"))


def _measure(option: str, text: str | None, parse: Any, example: str) -> Any:
    if text is None:
        return None
    value = parse(text)
    if value is None:
        raise RequestError(
            Problem(f"`{text}` is no value of {option}", f"give a number and a unit, such as {option} {example}")
        )
    return value


def verify(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="only these; all if none is given")] = None,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="also read the models and texts that keys were computed from")
    ] = False,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    store, reporter = existing_store(runs), Reporter()
    store.clear_dead()
    artifacts = [store.resolve_folder(key) for key in keys] if keys else list(store.folders())
    damaged: dict[str, str] = {}
    with reporter.bar("reading", len(artifacts)) as bar:
        for artifact in artifacts:
            if (damage := artifact.damage()) is not None:
                damaged[artifact.name] = damage
                place = store.quarantine(artifact)
                reporter.say(f"{artifact.name}: {damage}" + (f"; moved to {place}" if place is not None else ""))
            bar.advance(note=artifact.name)
    mistaken = _mistaken_inputs(store, reporter) if inputs else {}
    suspects = sorted({child.name for name in damaged for child in made_from(store, name)})
    if as_json:
        found = {"checked": len(artifacts), "damaged": damaged, "made_from_damaged": suspects}
        print_json(found | ({"mistaken_inputs": mistaken} if inputs else {}))
    else:
        print(f"{len(artifacts)} artifacts read, {len(damaged)} damaged")
        if suspects:
            print("made from what is damaged, perhaps before it was: " + ", ".join(suspects))
        for path, names in mistaken.items():
            print(f"{path} changed without a trace; perhaps made from what it holds now: {', '.join(names) or 'nothing'}")
    if damaged or mistaken:
        raise typer.Exit(WorkError.exit_code)


def _mistaken_inputs(store: Store, reporter: Reporter) -> dict[str, list[str]]:
    """Input files that were taken for what they do not hold any more -> the artifacts under the key of what they held."""
    files, mistaken = store.digests.files(), {}
    with reporter.bar("reading inputs", len(files)) as bar:
        for path in files:
            if (digest := store.digests.verify(path)) is not None:
                held = [each.name for each in store.artifacts() if digest in json.dumps(each.key_document["sources"])]
                mistaken[str(path)] = held
            bar.advance(note=str(path))
    return mistaken


def _summary(artifact: Artifact) -> dict[str, object]:
    record = artifact.record
    names = ("label", "tags", "started", "seconds", "size_bytes", "metrics")
    return {"stage": artifact.stage, "key": artifact.key, "path": str(artifact.path)} | {name: record[name] for name in names}
