"""What becomes of errors in tasks, and lm-eval's templates."""

from __future__ import annotations

import lm_eval.utils
import pytest
from lm_eval.utils import apply_template

from llmrepair.models.memory import DoesNotFit
from llmrepair.models.trees import Forest
from llmrepair.pipeline.errors import WorkError
from llmrepair.stages.evaluate.tasks.loading import templates_compiled_once, told


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
