"""What has to hold of every repair, method, control and diagnostic, whoever adds the next one."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmrepair.pipeline.errors import RequestError
from llmrepair.pipeline.graph import Graph
from llmrepair.pipeline.keys import DigestCache
from llmrepair.pipeline.registry import Registry
from llmrepair.stages.compress.methods import METHODS
from llmrepair.stages.compress.methods.base import Method, Pruner
from llmrepair.stages.conjecture.stage import arms
from llmrepair.stages.controls import CONTROLS
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.drawing.svg import MARK_COLOURS, SHAPES
from llmrepair.stages.repairs import REPAIRS, TUNINGS, repair_of_form
from llmrepair.stages.repairs.base import Repair
from llmrepair.stages.request import MAKERS
from llmrepair.stages.sources.weights import MODEL_LIBRARIES
from tests.architecture import ROOT, modules

REGISTRIES: Mapping[str, Registry[Any]] = {
    "repairs": REPAIRS,
    "compress.methods": METHODS,
    "controls": CONTROLS,
    "diagnostics": DIAGNOSTICS,
}
"""Package below `stages` -> what its `__init__` lists."""
QUESTIONS = {ROOT / "stages/conjecture/samples.py", ROOT / "stages/diagnostics/probe/run.py"}
"""Where `prompt` is the field of a question's text."""
FOLDERS = {"prompt": ("prompt", "pool"), "idp": ("idp", "pool")}
"""Folders of a repair besides that of its own name."""


def requests() -> dict[str, tuple[str, dict[str, Any]]]:
    """One request of every kind: its name -> stage and options."""
    found: dict[str, tuple[str, dict[str, Any]]] = {f"recovery {name}": ("evaluate", {"recovery": name}) for name in REPAIRS}
    found |= {f"method {name}": ("compress", {"method": name}) for name in METHODS}
    found |= {f"control {name}": ("control", {"control": name}) for name in CONTROLS}
    found |= {name: (name, {}) for name in (*TUNINGS, *DIAGNOSTICS, "conjecture")}
    return found


REQUESTS = requests()


def documents(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What the key of each request is computed from."""
    digests = DigestCache(tmp_path / "digests")
    found = {}
    for name, (stage, options) in REQUESTS.items():
        graph = Graph([MAKERS[stage](options)], digests)
        found[name] = graph.nodes[graph.targets[0]].document
    return found


class Nothing(Pruner):
    name = "nothing"


class NewRepair(Repair):
    name, title, help = "new", "new", "new"
    colour, shape = "red", "circle"
    placed_by = "llmrepair.stages.repairs.none.place"


NEW = {
    "repairs": NewRepair(),
    "compress.methods": Method(pruner=Nothing()),
    "controls": type("New", (type(CONTROLS["erased"]),), {"name": "new", "beside": "if asked", "anchors": None})(),
    "diagnostics": type("New", (type(DIAGNOSTICS["probe"]),), {"name": "new"})(),
}


@pytest.mark.parametrize("package", list(REGISTRIES))
def test_a_new_entry_changes_no_key(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = documents(tmp_path)
    entry = NEW[package]
    monkeypatch.setitem(REGISTRIES[package]._entries, entry.name, entry)
    assert documents(tmp_path) == before


def test_no_key_holds_the_code_of_a_list(tmp_path: Path) -> None:
    """So that the import and the place in the list, which make a new entry, change none."""
    lists = {f"llmrepair.stages.{package}" for package in REGISTRIES}
    for name, document in documents(tmp_path).items():
        assert not lists & document["code"].keys(), name


@pytest.mark.parametrize("package", ["repairs", "compress.methods", "controls", "diagnostics"])
def test_the_code_of_an_entry_is_in_the_keys_of_what_uses_it_alone(package: str, tmp_path: Path) -> None:
    found = documents(tmp_path)
    for name in REGISTRIES[package]:
        own = set(own_modules(package, name))
        users = {request for request, document in found.items() if own & document["code"].keys()}
        assert users <= users_of(package, name), name


def own_modules(package: str, name: str) -> Iterator[str]:
    """Modules that speak of one entry alone."""
    start, folder = f"llmrepair.stages.{package}", name.replace("-", "_")
    if package == "compress.methods":
        return (module for module in METHODS[name].modules()) if name != "none" else iter(())
    return (each for each in modules() if each == f"{start}.{folder}" or each.startswith(f"{start}.{folder}."))


def users_of(package: str, name: str) -> set[str]:
    if package == "repairs":
        tuning, standard = REPAIRS[name].tuning, {"regimes"} if REPAIRS[name].is_standard else set()
        shared = {f"recovery {repair.name}" for repair in REPAIRS.values() if repair.tuning == tuning and tuning is not None}
        return {f"recovery {name}", *standard, *shared, *([tuning.name] if tuning is not None else [])}
    if package == "compress.methods":
        parts = METHODS[name].parts
        return {f"method {other}" for other in METHODS if set(METHODS[other].parts) & set(parts)}
    if package == "controls":
        return {f"control {name}"}
    return {name, *(["conjecture"] if name == "probe" else [])}  # which says what is readable of the lost


def test_every_library_that_computes_is_in_the_key(tmp_path: Path) -> None:
    for name, document in documents(tmp_path).items():
        counted = {library.replace("-", "_") for library in document["libraries"]}
        reached = {package for module in document["code"] for package in packages(module)}
        assert reached <= counted | WHERE_USED | WITHOUT_NUMBERS, name
        assert None not in document["libraries"].values(), name


WHERE_USED = {"datasets", "gptqmodel", "compressed_tensors", "llmcompressor"}
"""Counted where the request has text of the Hub, such a checkpoint, or anything to compress."""
WITHOUT_NUMBERS = {"httpx", "huggingface_hub", "logbar", "pydantic", "pydantic_core", "safetensors", "yaml", "llmrepair"}
WITHOUT_NUMBERS |= {"triton"}  # it compiles for a GPU what torch computes elsewhere, and a key does not say where


def packages(module: str) -> set[str]:
    """What a module imports that is neither Python's nor ours."""
    path = modules().get(module)
    tree = ast.parse(path.read_text(encoding="utf-8")) if path is not None else ast.Module([], [])
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("compress", {"method": "none"}, set()),
        ("compress", {"method": "gptq"}, {"llmcompressor", "compressed-tensors"}),
        ("compress", {"method": "gptq", "format": "gptq"}, {"llmcompressor", "compressed-tensors", "gptqmodel", "optimum"}),
        ("evaluate", {"method": "none"}, {"lm_eval", "numpy"}),
        ("evaluate", {"method": "wanda", "recovery": "lora"}, {"lm_eval", "numpy", "peft"}),
        ("tune-lora", {"method": "wanda"}, {"peft"}),
        ("conjecture", {"method": "wanda"}, {"numpy", "scipy"}),
    ],
)
def test_a_stage_names_what_its_numbers_depend_on(
    name: str, options: dict[str, Any], expected: set[str], tmp_path: Path
) -> None:
    graph = Graph([MAKERS[name](options)], DigestCache(tmp_path / "digests"))
    of_models = set(MODEL_LIBRARIES) if name != "conjecture" else set[str]()
    assert graph.nodes[graph.targets[0]].document["libraries"].keys() == expected | of_models


def test_options_without_effect_are_in_no_key(tmp_path: Path) -> None:
    config = documents(tmp_path)["recovery none"]["config"]
    assert not {"select", "idp_layers", "hard_prompt", "lora_merged", "on_dense"} & config.keys()
    assert None not in documents(tmp_path)["method none"]["config"].values()


def test_the_key_of_the_plain_vote_holds_what_it_held_before_votes_could_be_calibrated(tmp_path: Path) -> None:
    document = documents(tmp_path)["recovery idp"]
    vote = {"idp_layers": "first", "idp_reduce": "mean", "idp_normalise": "none", "idp_per": "sequence", "on_dense": False}
    assert {name: value for name, value in document["config"].items() if name in vote or "idp" in name} == vote
    assert set(document["inputs"]) == {"compressed", "repair"}


def test_votes_are_measured_where_options_take_it_and_for_all_that_count_alike(tmp_path: Path) -> None:
    def made(**options: str) -> tuple[Graph, Any]:
        graph = Graph([MAKERS["evaluate"]({"recovery": "idp", **options})], DigestCache(tmp_path / "digests"))
        return graph, graph.nodes[graph.targets[0]].document["inputs"].get("measured")

    graph, measured = made(idp_calibrate="zscore")
    alike = [made(idp_calibrate="centre"), made(idp_layers="tuned"), made(idp_layers="tuned", idp_calibrate="zscore")]
    assert {name for _, name in alike} == {measured}
    assert made(idp_calibrate="zscore", idp_reduce="sum")[1] not in (measured, None)
    again = MAKERS["measure-votes"](graph.nodes[measured].stage.options())
    assert Graph([again], DigestCache(tmp_path / "digests")).targets == [measured]
    on_dense = MAKERS["evaluate"]({"recovery": "idp", "method": "gptq", "idp_calibrate": "zscore", "on_dense": True})
    assert on_dense.inputs()["measured"].inputs()["compressed"].config.method == "gptq"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name in REPAIRS if name != "none"])
def test_no_file_outside_of_its_folder_holds_the_name_of_a_repair(name: str) -> None:
    inside = tuple(ROOT / "stages" / "repairs" / folder for folder in FOLDERS.get(name, (name.replace("-", "_"),)))
    word = re.compile(rf"^\S*\b{name}\b\S*$|`{name}`|--recovery {name}\b")  # in a sentence it may be a word like others
    holding = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for module, path in modules().items()
        if module.startswith(("llmrepair.cli", "llmrepair.stages", "llmrepair.pipeline")) or module == "llmrepair"
        if not any(path.is_relative_to(folder) for folder in inside) and path not in QUESTIONS
        for node in strings(path)
        if word.search(node.value)
    ]
    assert not holding


def strings(path: Path) -> Iterator[Any]:
    """String constants that are no docstrings and no imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node


@pytest.mark.parametrize("repair", REPAIRS.values(), ids=lambda repair: repair.name)
def test_a_repair_says_what_is_asked_of_it(repair: Repair, tmp_path: Path) -> None:
    assert repair.title and repair.help and not repair.help.endswith(".")
    assert repair.colour in MARK_COLOURS and repair.shape in SHAPES
    assert repair.placed_by in modules()
    assert repair_of_form(repair.name) is repair
    assert repair.label(documents(tmp_path)[f"recovery {repair.name}"]["config"])


def test_repairs_can_be_told_apart() -> None:
    titles = Counter(repair.title for repair in REPAIRS.values())
    assert max(titles.values()) == 1, titles
    marks = Counter((repair.colour, repair.shape) for repair in REPAIRS.values())
    assert max(marks.values()) == 1, f"give one of them another colour or shape of `stages/drawing/svg.py`: {marks}"


def test_the_conjecture_test_has_one_arm_for_each_fate() -> None:
    roles = [arm.role for _, arm in arms()]
    assert all(roles.count(role) == 1 for role in ("displaced", "latent", "edge"))
    ends = [kind.anchors for kind in CONTROLS.values() if kind.anchors is not None]
    assert sorted(ends) == ["displaced", "forgotten"]


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=list(REGISTRIES))
def test_an_unknown_name_raises(registry: Registry[Any]) -> None:
    with pytest.raises(RequestError, match=r"there is no .* `magic`"):
        registry["magic"]
