"""What an evaluation gives its repair to put itself in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmrepair.models.answers import AnswerFile
from llmrepair.models.prompt_cache import PromptCache
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import Score
from llmrepair.models.trees import Text
from llmrepair.stages.repairs.placed import Placing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.pipeline.progress import Bar
    from llmrepair.pipeline.stage import Context
    from llmrepair.stages.evaluate.stage import Evaluate


def placing_of(
    stage: Evaluate, context: Context, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, bar: Bar
) -> Placing:
    tuned, measured = context.inputs.get("repair"), context.inputs.get("measured")
    return Placing(
        model=model,
        tokenizer=tokenizer,
        options=stage.placing,
        tuned=stage.repair.files.stored(tuned.path) if tuned is not None else None,
        seed=stage.tuned.config.seed if stage.tuned is not None else 0,
        measured=measured.path if measured is not None else None,
        scoring=lambda cache: _scoring(context, model, cache, bar),
        sources=stage.repair_sources,
        sequences=context.runtime.sequences,
        note=context.reporter.note,
    )


def _scoring(context: Context, model: PreTrainedModel, cache: PromptCache, bar: Bar) -> Score:
    """Scores questions, and keeps the scores in a file of their own."""
    scorer = Scorer(model, cache, context.runtime.sequences, AnswerFile(context.work / "questions.jsonl"), bar.advance)

    def score(texts: Sequence[Text]) -> list[tuple[float, bool]]:
        bar.extend(len(texts))
        return scorer.score(texts)

    return score
