"""`factrecall`: facts of T-REx, each asked for in several paraphrases, as multiple choice over the objects of its relation.

The folder is that of LAMA as it is published, with ParaRel's patterns if they are there:

    relations.jsonl                relation, template ("[X] was born in [Y] ."); further paraphrases may stand in `patterns`
    TREx/<relation>.jsonl          sub_label, obj_label
    graphs_json/<relation>.jsonl   pattern; ParaRel's folder of that name (Elazar et al. 2021, arXiv 2102.01017)

or one file `trex_facts.jsonl` (relation, subject, object) in the place of TREx/.

A causal model can be asked where the object ends the sentence: all candidates then stand behind the same words. Templates in
which it does not, and those that end in "a" or "an", which gives the object's first letter away, are left out; so are relations
without any other.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from llmrepair.pipeline.errors import LlmrepairError, Problem, RequestError, WorkError
from llmrepair.pipeline.reading import json_lines

FACTRECALL = "factrecall"
METRICS = ("acc", "acc_norm", "consistency", "consistent_acc", "chance")
_PARAPHRASES = 4
"""Most paraphrases of a fact: the template, and some of the patterns after it, evenly spaced, for neighbours are much alike."""
_CANDIDATES = 100
"""Most objects to choose from: time grows with them, and of LAMA's relations most have fewer."""
_SEED = 0
_OBJECT_LAST = re.compile(r"(.*\[X\].*) \[Y\]\W*")
_HINT = (
    "give with --tasks-data a folder with relations.jsonl and TREx/ of LAMA (https://dl.fbaipublicfiles.com/LAMA/data.zip) "
    "and, for paraphrases, graphs_json/ of ParaRel (https://github.com/yanaiela/pararel, in data/pattern_data)"
)


class Triple(NamedTuple):
    relation: str
    subject: str
    object: str


@dataclass(frozen=True)
class FactRecall:
    """The documents of the task, one per fact, and the relations that have none."""

    documents: list[dict[str, Any]]
    left_out: list[str]


def folder_problem(folder: Path | None) -> Problem | None:
    """Says so if a folder is not the one that is needed."""
    if folder is None:
        return Problem("`factrecall` has no data on the Hub", _HINT, "tasks_data")
    missing = [name for name, found in (("relations.jsonl", _relations(folder)), ("TREx/*.jsonl", _facts(folder))) if not found]
    if missing:
        return Problem(f"`{folder}` holds no {' and no '.join(missing)} for `factrecall`", _HINT, "tasks_data")
    try:
        _read_prompts(folder)
    except LlmrepairError as error:
        return error.problems[0]
    return None


def files(folder: Path | None) -> dict[str, Path]:
    """All that `factrecall` reads of a folder, by its place there."""
    if folder is None:
        return {}
    return {str(path.relative_to(folder)): path for path in (*_relations(folder), *_facts(folder), *_patterns(folder))}


def read(folder: Path) -> FactRecall:
    """The task's documents: `relation`, `subject`, `object`, `prompts` (one per paraphrase), `choices`, `gold` (index of one).

    Relations take turns, so that a limit keeps some facts of each. What is right as well, by another fact of the same subject
    and relation, is no choice. Of more than 100 objects the wrong choices are drawn, the same for all paraphrases of a fact.

    Raises:
        RequestError: a line that is not what it should be.
        WorkError: no relation can be asked.
    """
    prompts = _read_prompts(folder)
    facts = sorted(set(_read_facts(folder)))
    objects: dict[str, set[str]] = defaultdict(set)
    right: dict[tuple[str, str], set[str]] = defaultdict(set)
    for fact in facts:
        objects[fact.relation].add(fact.object)
        right[fact.relation, fact.subject].add(fact.object)
    documents: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for fact in random.Random(_SEED).sample(facts, len(facts)):
        wrong = objects[fact.relation] - right[fact.relation, fact.subject]
        if prompts.get(fact.relation) and wrong:
            documents[fact.relation].append(_document(fact, prompts[fact.relation], wrong))
    if not documents:
        raise WorkError(Problem(f"`{folder}` holds no relation with facts and a template that ends in its object", _HINT))
    turns = zip_longest(*(documents[relation] for relation in sorted(documents)))
    return FactRecall(
        [document for turn in turns for document in turn if document is not None], sorted(objects.keys() - documents.keys())
    )


def notes(folder: Path) -> list[str]:
    """What is left out, for the user."""
    left_out = ", ".join(read(folder).left_out)
    if not left_out:
        return []
    return [f"`factrecall` leaves out {left_out}: no template ends in the object, or there is but one object"]


def _document(fact: Triple, prompts: Sequence[str], wrong: set[str]) -> dict[str, Any]:
    generator = random.Random("\n".join(fact))
    choices = sorted([fact.object, *generator.sample(sorted(wrong), min(len(wrong), _CANDIDATES - 1))])
    asked = [prompt.replace("[X]", fact.subject) for prompt in prompts]
    return {**fact._asdict(), "prompts": asked, "choices": choices, "gold": choices.index(fact.object)}


def score(document: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Metrics of one fact.

    Args:
        results: log-likelihood in nats of each choice after each prompt, the choices of the first prompt first.

    Returns:
        `acc`, the share of paraphrases in which the right object is the likeliest; `acc_norm`, the same by log-likelihood per
        character, as in lm-eval; `consistent_acc`, 1 where all paraphrases are right; `consistency`, where there are several,
        the share of their pairs in which the same object is the likeliest, right or wrong (Elazar et al. 2021); `chance`, the
        `acc` of guessing.
    """
    choices, gold = document["choices"], document["gold"]
    loglikelihoods = [loglikelihood for loglikelihood, _ in results]
    rows = [loglikelihoods[start : start + len(choices)] for start in range(0, len(results), len(choices))]
    answers = [_likeliest(row) for row in rows]
    normalised = [_likeliest([value / len(choice) for value, choice in zip(row, choices, strict=True)]) for row in rows]
    metrics = {
        "acc": answers.count(gold) / len(rows),
        "acc_norm": normalised.count(gold) / len(rows),
        "consistent_acc": float(set(answers) == {gold}),
        "chance": 1 / len(choices),
    }
    pairs = list(combinations(answers, 2))
    return metrics | ({"consistency": sum(a == b for a, b in pairs) / len(pairs)} if pairs else {})


def _likeliest(loglikelihoods: Sequence[float]) -> int:
    return max(range(len(loglikelihoods)), key=loglikelihoods.__getitem__)


def prompt_of(pattern: str) -> str | None:
    """A pattern without its object, which must come last: "[X] was born in [Y] ." -> "[X] was born in"; else None."""
    found = _OBJECT_LAST.fullmatch(" ".join(pattern.split()))
    prompt = found.group(1) if found else ""
    return prompt if prompt and "[Y]" not in prompt and not prompt.endswith((" a", " an")) else None


def _read_prompts(folder: Path) -> dict[str, list[str]]:
    """Relation -> its paraphrases as prompts, the template first."""
    patterns: dict[str, list[str]] = {}
    for row in _rows(_relations(folder)[0], "relation", "template"):
        patterns[row["relation"]] = [row["template"], *row.get("patterns", [])]
    for path in _patterns(folder):
        patterns.setdefault(path.stem, []).extend(row["pattern"] for row in _rows(path, "pattern"))
    return {relation: _prompts(of_relation) for relation, of_relation in patterns.items()}


def _prompts(patterns: Sequence[str]) -> list[str]:
    prompts = list(dict.fromkeys(prompt for prompt in map(prompt_of, patterns) if prompt))
    kept = min(len(prompts), _PARAPHRASES)
    return [prompts[index * len(prompts) // kept] for index in range(kept)]


def _read_facts(folder: Path) -> Iterator[Triple]:
    for path in _facts(folder):
        if path.parent.name == "TREx":
            yield from (Triple(path.stem, row["sub_label"], row["obj_label"]) for row in _rows(path, "sub_label", "obj_label"))
        else:
            yield from (Triple(row["relation"], row["subject"], row["object"]) for row in _rows(path, *Triple._fields))


def _relations(folder: Path) -> list[Path]:
    return sorted(folder.glob("relations.jsonl"))


def _facts(folder: Path) -> list[Path]:
    return sorted(folder.glob("TREx/*.jsonl")) or sorted(folder.glob("trex_facts.jsonl"))


def _patterns(folder: Path) -> list[Path]:
    return sorted(folder.glob("graphs_json/*.jsonl"))


def _rows(path: Path, *fields: str) -> Iterator[dict[str, Any]]:
    hint = f"each line is a JSON object with the fields {' and '.join(fields)}, texts all"
    for number, row in json_lines(path, hint, "tasks_data"):
        if not all(isinstance(row.get(field), str) for field in fields):
            raise RequestError(Problem(f"{path}:{number} is not what `factrecall` reads", hint, "tasks_data"))
        yield row
