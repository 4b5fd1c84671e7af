"""How prompts of a pool were chosen, and what that gains over the best prompt for all inputs and lacks of the best for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from math import log2
from typing import Any

from llmrepair.stages.drawing.html import bar, cell, head, table
from llmrepair.stages.drawing.numbers import factor

_ALIKE = 0.01
"""Nats a token: what a perfect choice gains at most among prompts that are all good for the same."""
_TITLE = "How often each prompt was chosen, and what that gains"
_NOTE = (
    "Entropy is 0 where one prompt got all inputs. Held-out: by how many nats a token the choice, where it was tried, and "
    "a perfect one for each row lower the loss of the best single prompt on held-out tuning rows. Prompts are alike where a "
    f"perfect choice gains less than {_ALIKE}: then no way to choose gains much. Against: the score minus that of the best "
    "single prompt, or of the oracle, of the same pool, where these were evaluated."
)


def selection(document: Mapping[str, Any]) -> str:
    """A line for each seed: the prompts of one are not those of another."""
    chosen = [(row, each) for row in document["rows"] for each in row["evaluations"] if _is_choice(document, row, each)]
    if not chosen:
        return ""
    columns = [each for each in document["columns"] if any(each["name"] in evaluation["scores"] for _, evaluation in chosen)]
    heads = ["entropy, bits", "held-out: the choice gains", "held-out: a perfect one gains"]
    heads += [f"{escape(each['title'])}: against {other}" for each in columns for other in ("one prompt", "the oracle")]
    lines = [
        f"<tr>{head(row)}<td>{each['seed']}</td><td class=shares>{_shares(each['prompt_shares'])}</td>"
        f"{''.join([*_held_out(each), *_against_others(document, each, columns)])}</tr>"
        for row, each in chosen
    ]
    content = table(_TITLE, ["compression", "repair", "seed", "prompts"], heads, lines)
    return f"<h2>{_TITLE}</h2><p class=notes>{_NOTE}</p>{content}"


def _is_choice(document: Mapping[str, Any], row: Mapping[str, Any], evaluation: Mapping[str, Any]) -> bool:
    shares = evaluation["prompt_shares"]
    return shares is not None and (document["kinds"][row["kind"]]["chooses"] or max(shares) < 1)


def _shares(shares: Iterable[float]) -> str:
    return bar([(f"prompt {number}", f"part{number % 6}", share, "") for number, share in enumerate(shares)])


def entropy(shares: Iterable[float]) -> float:
    """In bits."""
    return sum(-share * log2(share) for share in shares if share > 0)


def _held_out(evaluation: Mapping[str, Any]) -> Iterator[str]:
    shares, routing, gap = (evaluation[name] for name in ("prompt_shares", "routing", "oracle_gap"))
    bits = entropy(shares)
    yield cell(f"{bits:.2f} <small>of {log2(len(shares)):.2f}</small>", bits)
    gain = routing["loss"]["best_prompt"] - routing["loss"]["routed"] if routing is not None else None
    yield cell("" if gain is None else f"{gain:+.4f}", gain)
    alike = " <small>alike</small>" if gap is not None and gap < _ALIKE else ""
    yield cell("" if gap is None else f"{gap:.4f}{alike}", gap)


def _against_others(
    document: Mapping[str, Any], evaluation: Mapping[str, Any], columns: Iterable[Mapping[str, Any]]
) -> Iterator[str]:
    """For each task the score minus that of the best prompt for all, and minus that of the best for each."""
    pool = [(row, each) for row in document["rows"] for each in row["evaluations"] if _pool(each) == _pool(evaluation)]
    singles = [each for row, each in pool if each["prompt_shares"] is not None and not _is_choice(document, row, each)]
    oracles = [each for _, each in pool if each["is_bound"]]
    for column in columns:
        best: Callable[..., Any] = max if column["higher_is_better"] else min
        for others in (singles, oracles):
            scores = [each["scores"][column["name"]] for each in others if column["name"] in each["scores"]]
            own = evaluation["scores"].get(column["name"])
            difference = factor(column) * (own - best(scores)) if scores and own is not None else None
            yield cell("" if difference is None else f"{difference:+.3g}", difference)


def _pool(evaluation: Mapping[str, Any]) -> tuple[Any, Any]:
    return evaluation["inputs"]["compressed"], evaluation["inputs"].get("repair")
