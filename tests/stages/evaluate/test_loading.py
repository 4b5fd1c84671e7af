"""What becomes of errors in tasks, and lm-eval's templates."""

from __future__ import annotations

import json
from pathlib import Path

import lm_eval.utils
import pytest
import yaml
from lm_eval.api.metrics import perplexity
from lm_eval.utils import apply_template

from llmrepair.models.memory import DoesNotFit
from llmrepair.models.trees import Forest
from llmrepair.pipeline.errors import WorkError
from llmrepair.stages.evaluate.tasks.loading import templates_compiled_once, told, without_own_answers
from tests.conftest import CommandLine
from tests.e2e.test_chain import read_samples


def test_what_fails_in_a_task_is_told_in_a_sentence() -> None:
    with pytest.raises(WorkError, match="the tasks cannot be asked: KeyError: 'choices'"), told("the tasks cannot be asked"):
        {}["choices"]


def test_what_fails_in_our_models_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="empty"), told("the tasks cannot be asked"):
        Forest([]).take(10)


def test_what_does_not_fit_comes_with_what_helps() -> None:
    with pytest.raises(WorkError) as raised, told("the tasks cannot be asked"):
        raise DoesNotFit("too long", "take a shorter one")
    (problem,) = raised.value.problems
    assert (problem.message, problem.hint) == ("too long", "take a shorter one")


def test_a_perplexity_beyond_all_numbers_is_told_as_one() -> None:
    with pytest.raises(WorkError, match="a perplexity is too large for a number"), told("the tasks cannot be asked"):
        perplexity([-1e6])


def test_templates_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    real = lm_eval.utils.env.from_string
    monkeypatch.setattr(lm_eval.utils.env, "from_string", lambda template: compiled.append(template) or real(template))
    with templates_compiled_once():
        assert [apply_template("{{n}} and {{n + 1}}", {"n": n}) for n in range(3)] == ["0 and 1", "1 and 2", "2 and 3"]
    assert len(compiled) == 1
    apply_template("{{n}}", {"n": 1})
    apply_template("{{n}}", {"n": 1})
    assert len(compiled) == 3


SPLITS = [{"test_split": "test"}, {"validation_split": "test"}, {"test_split": "test", "fewshot_split": "test"}]


@pytest.mark.parametrize("splits", SPLITS, ids=str)
def test_no_item_is_an_example_for_itself(llmrepair: CommandLine, tmp_path: Path, splits: dict[str, str]) -> None:
    rows = [{"q": f"Q{number}", "a": f"A{number}"} for number in range(4)]
    (tmp_path / "leak.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"task": "leak", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "leak.jsonl")}}}
    task |= {"output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}", **splits}
    task |= {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 2}, "metric_list": [{"metric": "exact_match"}]}
    (tmp_path / "leak.yaml").write_text(yaml.safe_dump(task))
    options = ["--method", "none", "--tasks", "leak", "--include-path", tmp_path, "--num-fewshot", 2]
    answer = llmrepair("eval", *options, "--runs", tmp_path / "runs", "--json")
    assert answer.code == 0, answer.err
    assert "note: examples of `leak` are other items of those that are asked" in answer.err
    asked = [sample["arguments"]["gen_args_0"]["arg_0"] for sample in read_samples(answer.json, "leak")]
    assert len(asked) == 4
    for row, prompt in zip(rows, asked, strict=True):
        assert prompt.count("A") == 2
        assert row["a"] not in prompt


def test_examples_of_a_split_of_their_own_stay_as_they_are() -> None:
    task = {"test_split": "test", "training_split": "train"}
    assert without_own_answers(task) == task
    assert without_own_answers({"test_split": "test", "fewshot_config": {"samples": []}}) == {
        "test_split": "test",
        "fewshot_config": {"samples": []},
    }
