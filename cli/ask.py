"""`ask`: what a model answers to a question, with and without its repair."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from llmrepair.cli.options import DEFAULT_RUNS, JSON_OPTION, RUNS_OPTION, with_options
from llmrepair.cli.output import console, print_json
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.runner import Runner, told_failures
from llmrepair.pipeline.stage import Runtime
from llmrepair.stages.evaluate.question import question_tokens
from llmrepair.stages.request import MAKERS, REPAIRED, Values, compared_evaluations, notes
from llmrepair.stages.running import make_runner
from llmrepair.stages.sources.fields import ModelConfig
from llmrepair.stages.sources.models import ModelSource

if TYPE_CHECKING:
    from rich.text import Text

    from llmrepair.models.asking import Piece
    from llmrepair.stages.evaluate.stage import Evaluate
    from llmrepair.stages.loaded import Answered, Stored

_KEY = re.compile(rf"(({'|'.join(MAKERS)})/)?[0-9a-f]+")


class Shade(NamedTuple):
    """How tokens of at least some probability look. Both colours are given, for terminals are dark or light; the shades differ
    in lightness, for eyes differ in colours; the last one is underlined, for some terminals have no colours."""

    least: float
    words: str
    style: str


SHADES = (
    Shade(0.9, "90 % or more", ""),
    Shade(0.5, "50 to 90 %", "#000000 on #c7e9b4"),
    Shade(0.1, "10 to 50 %", "#000000 on #41b6c4"),
    Shade(0.0, "below 10 %", "#ffffff on #253494 underline"),
)


class Asked(NamedTuple):
    """What a person asked, of which model, and how."""

    question: str
    chat: bool
    longest: int
    """Tokens of an answer."""
    side_by_side: bool
    values: Values

    @property
    def model(self) -> str:
        return str(self.values.get("model", ModelConfig.model_fields["model"].default))

    @property
    def trusts(self) -> bool:
        return bool(self.values.get("trust_remote_code", False))

    def tokens(self, source: ModelSource, reporter: Reporter) -> list[int]:
        return question_tokens(self.question, self.chat, source, self.model, self.trusts, reporter.note)

    def chosen(self, models: Mapping[str, Any]) -> dict[str, Any]:
        """All that could be asked, or the last of them alone."""
        return dict(list(models.items())[0 if self.side_by_side else -1 :])


@with_options({**REPAIRED, "Running": [Runtime]})
def ask(
    values: Values,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="text that the model goes on with")],
    side_by_side: Annotated[
        bool,
        typer.Option("--side-by-side", help="below each other: the dense model, the compressed one, and that with its repair"),
    ] = False,
    chat: Annotated[bool, typer.Option("--chat", help="ask in a turn of the model's chat template")] = False,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, metavar="N", help="of an answer")] = 64,
    runs: RUNS_OPTION = DEFAULT_RUNS,
    as_json: JSON_OPTION = False,
) -> None:
    if not question.strip():
        raise RequestError(Problem("an empty text is no question", "give a text in quotation marks"))
    asked = Asked(question, chat, max_new_tokens, side_by_side, values)
    runner = make_runner(values, runs)
    answers = []
    for each in _answers(asked, runner):
        answers.append(each.as_json())
        if not as_json:
            _print_answer(each, is_first=len(answers) == 1)
    if as_json:
        print_json({"question": question, "answers": answers})
    elif console().is_terminal:
        console().print(_legend())


class Named(NamedTuple):
    """An answer, and whose it is."""

    name: str
    label: str
    found: Answered

    def as_json(self) -> dict[str, Any]:
        answer = self.found.answer
        tokens = [{"ids": piece.ids, "text": piece.text, "probability": piece.probability} for piece in answer.pieces]
        picked = {"prompts": answer.prompts, "picked": self.found.picked}
        whose = {"model": self.name, "weights": self.label, "repair": self.found.repair}
        return {**whose, "answer": answer.text, "ended": answer.ended, **picked, "tokens": tokens}


def _answers(asked: Asked, runner: Runner) -> Iterator[Named]:
    from llmrepair.stages.loaded import Given, answered, is_export

    is_made = is_export(asked.model) or (_KEY.fullmatch(asked.model) and not Path(asked.model).exists())
    models, tokens, options = (_made_before if is_made else _made_now)(asked, runner)
    for name, stored in models.items():
        with runner.reporter.busy(f"asking the {name} model ..."), told_failures(f"asking the {name} model"):
            given = Given(
                runner.store.root,
                runner.runtime.device,
                asked.trusts,
                options if name == list(models)[-1] else {},
                takes_texts=True,
                note=runner.reporter.note,
            )
            found = answered(stored, given, tokens, asked.longest)
        yield Named(name, stored.label, found)


Found = tuple[Mapping[str, "Stored"], list[int], Mapping[str, Any]]
"""What is asked, by its names; the question's tokens; and options with which the last one's repair is put in place."""


def _made_now(asked: Asked, runner: Runner) -> Found:
    """What options stand for."""
    from llmrepair.stages.loaded import in_evaluations

    evaluations: dict[str, Evaluate] = asked.chosen(compared_evaluations(asked.values))
    for text in notes(list(evaluations.values())[-1], asked.values):
        runner.reporter.note(text)
    tokens: list[int] = []
    models = in_evaluations(evaluations, runner, lambda weights: tokens.extend(asked.tokens(weights.model, runner.reporter)))
    return models, tokens, {}


def _made_before(asked: Asked, runner: Runner) -> Found:
    """What a key or the folder of an export stands for."""
    from llmrepair.stages.loaded import compared

    options = {name: value for name, value in asked.values.items() if name not in _OF_ANY_MODEL}
    models = asked.chosen(compared(asked.model, runner.store.root, options.get("recovery")))
    source = ModelSource(str(next(iter(models.values())).checkpoint), None, {})
    return models, asked.tokens(source, runner.reporter), options


_OF_ANY_MODEL = frozenset({"model", "trust_remote_code", *Runtime.model_fields})
"""Options that go with a key."""


def _print_answer(each: Named, is_first: bool) -> None:
    from rich.text import Text

    out, answer = console(), each.found.answer
    told = ", ".join(text for text in (each.label, each.found.repair, each.found.picked) if text)
    out.print(Text(("" if is_first else "\n") + f"{each.name}: {told}"), style="bold")
    out.print(_shaded(answer.pieces) if answer.pieces else "(it ends the text at once)")
    if not answer.ended:
        out.print(Text(f"(cut after {sum(len(piece.ids) for piece in answer.pieces)} tokens)"))


def _shaded(pieces: Sequence[Piece]) -> Text:
    from rich.text import Text

    return Text.assemble(*((_visible(piece.text), shade_of(piece.probability).style) for piece in pieces))


def shade_of(probability: float) -> Shade:
    return next(shade for shade in SHADES if probability >= shade.least)


def _visible(text: str) -> str:
    """What a model says must not move the cursor or change the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


def _legend() -> Text:
    from rich.text import Text

    return Text.assemble(
        "\nprobability of a token: ", *(part for shade in SHADES for part in ((shade.words, shade.style), "  "))
    )
