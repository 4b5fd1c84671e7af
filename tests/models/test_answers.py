from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmrepair.models.answers import AnswerFile, question_name

QUESTIONS = list(map(question_name, [[0, [1, 2], [3]], [1, [1, 2], [4]], [2, [5], [3]]]))
ANSWERS = [[-0.1, True], [-float("inf"), False], ["text", "\u2028"]]


def test_answers_are_known_again(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    AnswerFile(path).keep(QUESTIONS, ANSWERS)
    again = AnswerFile(path)
    assert again.known(QUESTIONS[1:]) == ANSWERS[1:]
    assert again.known([*QUESTIONS, question_name([3, [1, 2], [3]])]) is None


def test_nothing_is_kept_without_a_file() -> None:
    AnswerFile(None).keep(QUESTIONS, ANSWERS)
    assert AnswerFile(None).known(QUESTIONS) is None


@given(cut=st.integers(1, 400), zeros=st.integers(0, 5))
def test_a_torn_end_is_dropped_and_written_over(tmp_path_factory, cut: int, zeros: int) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("torn") / "answers"
    first = AnswerFile(path)
    first.keep(QUESTIONS[:1], ANSWERS[:1])
    whole = path.stat().st_size
    first.keep(QUESTIONS[1:], ANSWERS[1:])
    content = path.read_bytes()
    path.write_bytes(content[: -min(cut, len(content))] + b"\0" * zeros)

    again = AnswerFile(path)
    assert again.known(QUESTIONS[1:]) is None
    assert (again.known(QUESTIONS[:1]) is not None) == (len(content) - cut >= whole)
    again.keep(QUESTIONS, ANSWERS)
    assert AnswerFile(path).known(QUESTIONS) == ANSWERS
