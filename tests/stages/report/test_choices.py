from __future__ import annotations

import re
from typing import Any

import pytest

from llmrepair.stages.report.page.choices import entropy, selection
from tests.stages.report.report_document import document, row, score

NAME, QA, TEXT = "idp", {"qa": score(0.71)}, {"text": score(30.0)}


def cells(found: dict[str, Any]) -> list[list[str]]:
    """The numbers of each line."""
    lines = re.findall(r"<tr>(.*?)</tr>", selection(found).partition("<tbody>")[2])
    return [re.findall(r"<td class=number[^>]*>(.*?)</td>", line) for line in lines]


def heads(found: dict[str, Any]) -> list[str]:
    return re.findall(r"<th scope=col class=number><button type=button>(.*?)</button>", selection(found))


def of_pool(name: str, kind: str, shares: list[float], scores: dict[str, Any], pool: str = "one", bound: bool = False) -> Any:
    made = row(name, "gptq 3 bits", kind, name, [0], scores)
    inputs = {"compressed": "compress/gptq", "repair": f"tune-prompts/{pool}"}
    made["evaluations"][0] |= {"inputs": inputs, "prompt_shares": shares, "is_bound": bound}
    return made


def test_entropy_is_in_bits() -> None:
    assert entropy([1.0, 0.0]) == 0
    assert entropy([0.25] * 4) == 2
    assert entropy([0.5, 0.25, 0.25, 0.0]) == 1.5


def test_a_choice_stands_beside_the_best_single_prompt_and_the_oracle_of_its_pool() -> None:
    found = document()
    found["columns"] = found["columns"][:1]
    singles = [of_pool(f"p{value}", "prompt", [1.0, 0.0], {"qa": score(value)}) for value in (0.73, 0.69)]
    others = [of_pool("bound", "prompt", [0.4, 0.6], {"qa": score(0.8)}, bound=True)]
    others += [of_pool("foreign", "prompt", [0.0, 1.0], {"qa": score(0.9)}, pool="other")]
    found["rows"] = [of_pool("vote", NAME, [0.25, 0.75], QA), *singles, *others]
    assert [head.rpartition(": ")[2] for head in heads(found)[-2:]] == ["against one prompt", "against the oracle"]
    bits = "0.81 <small>of 1.00</small>"
    assert cells(found)[0] == [bits, "+0.0020", "0.0060 <small>alike</small>", "-2", "-9"]
    assert len(cells(found)) == 2  # that of the oracle too


def test_what_was_not_evaluated_or_measured_is_left_empty() -> None:
    found = document()
    of_rows = cells(found)
    assert of_rows[0] == of_rows[1] == ["0.81 <small>of 1.00</small>", "+0.0020", "0.0060 <small>alike</small>", "", ""]
    for each in found["rows"][2]["evaluations"]:
        each |= {"routing": None, "oracle_gap": 0.02, "prompt_shares": [0.0, 1.0]}
    assert cells(found)[0] == ["0.00 <small>of 1.00</small>", "", "0.0200", "", ""]


def test_of_perplexities_the_lowest_is_the_best() -> None:
    found = document()
    found["rows"] = [of_pool("vote", NAME, [0.5, 0.5], TEXT)]
    found["rows"] += [of_pool(f"p{value}", "prompt", [1.0, 0.0], {"text": score(value)}) for value in (29.0, 50.0)]
    assert cells(found)[0][-2:] == ["+1", ""]


@pytest.mark.parametrize("kind", ["prompt", "lora"])
def test_where_nothing_is_chosen_there_is_no_section(kind: str) -> None:
    found = document()
    found["rows"] = [of_pool("one", kind, [1.0, 0.0], QA)]
    assert selection(found) == ""
