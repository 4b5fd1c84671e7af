"""Which row a row is compared with."""

from __future__ import annotations

from typing import Any

from llmrepair.stages.results.table import UNREPAIRED, _add_details, _comparisons


def row(compression: str, dtype: str, kind: str = UNREPAIRED, **settings: Any) -> dict[str, Any]:
    settings |= {"dtype": dtype}
    return {
        "compression": compression,
        "kind": kind,
        "recovery": kind,
        "compressed": f"{compression} {dtype} {sorted(settings.items())}",
        "settings": settings,
    }


def answers(right: int) -> list[dict[Any, bool]]:
    return [{item: item < right for item in range(10)}]


def compared(rows: dict[str, dict[str, Any]], correct: dict[tuple[str, str], Any]) -> dict[str, tuple[str, float]]:
    """Row -> what it is compared with, and the difference."""
    found = _comparisons(rows, {"task": {}}, correct)
    return {each["row"]: (each["baseline"], round(each["difference"]["value"], 6)) for each in found}


ROWS = {
    "dense 32": row("dense", "float32"),
    "dense 16": row("dense", "bfloat16"),
    "gptq 32": row("gptq", "float32"),
    "gptq 16": row("gptq", "bfloat16"),
    "lora 16": row("gptq", "bfloat16", "lora"),
}
RIGHT = {"dense 32": 10, "dense 16": 8, "gptq 32": 5, "gptq 16": 5, "lora 16": 7}


def test_a_row_is_compared_with_the_dense_model_in_its_own_precision() -> None:
    correct = {(name, "task"): answers(right) for name, right in RIGHT.items()}
    expected = {"gptq 32": ("dense 32", -0.5), "gptq 16": ("dense 16", -0.3), "lora 16": ("gptq 16", 0.2)}
    assert compared(ROWS, correct) == expected
    assert compared(dict(reversed(ROWS.items())), correct) == expected  # whatever the order of keys


def test_what_has_no_dense_model_of_its_precision_is_not_compared_with_another() -> None:
    correct = {(name, "task"): answers(right) for name, right in RIGHT.items() if name != "dense 16"}
    assert set(compared(ROWS, correct)) == {"gptq 32", "lora 16"}


def test_classes_of_items_are_those_of_the_dense_model_in_the_same_precision() -> None:
    correct = {(name, "task"): answers(right) for name, right in RIGHT.items()}
    (rates,) = [each["rates"] for each in _comparisons(ROWS, {"task": {}}, correct) if each["row"] == "lora 16"]
    assert (rates["lost"], rates["recovered"], rates["never_known"]) == (3, 2.0, 2)


def test_a_dense_row_that_was_not_asked_the_task_gives_way_to_one_that_was() -> None:
    rows = {"other code": row("dense", "float32", trust_remote_code=True), "gptq": row("gptq", "float32")}
    rows |= {"dense": row("dense", "float32", trust_remote_code=False)}
    correct = {("other code", "task"): answers(9), ("gptq", "task"): answers(5)}
    assert compared(rows, correct) == {"gptq": ("other code", -0.4)}


def test_rows_say_their_precision_where_there_are_several() -> None:
    rows = list(ROWS.values())
    _add_details(rows)
    assert [each["detail"] for each in rows] == [f"dtype {each['settings']['dtype']}" for each in rows]
    alone = [row("dense", "float32"), row("gptq", "float32")]
    _add_details(alone)
    assert [each["detail"] for each in alone] == ["", ""]
