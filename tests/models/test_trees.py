"""Trees against brute force: what is in them, what sees what, and that nothing is lost on the way."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.models import trees
from llmrepair.models.trees import Beginning, Forest, Text, Tree, common_length, grow_trees, shared_beginnings, side_by_side

TOKENS = st.lists(st.integers(0, 2), max_size=8).map(tuple)


@st.composite
def texts(draw: st.DrawFn, prompts: int = 2) -> list[Text]:
    """Texts of few different tokens, so that many begin alike."""
    drawn = draw(st.lists(st.tuples(st.integers(0, prompts - 1), st.integers(1, 9), TOKENS.filter(bool), TOKENS), max_size=20))
    return [Text(prompt, (0, *head, 1, *tail), min(scored, 1 + len(head))) for prompt, scored, head, tail in drawn]


def read_back(tree: Tree, path: list[int]) -> list[int]:
    """The tokens that the last of a path sees, in order."""
    last = path[-1]
    return [token for place, token in enumerate(tree.tokens) if place <= last < tree.ends[place]]


@given(TOKENS, TOKENS)
def test_common_length(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    expected = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert common_length(one, other) == expected


@given(texts())
def test_a_token_of_a_tree_sees_its_text_and_nothing_else(given_texts: list[Text]) -> None:
    grown = grow_trees(set(given_texts))
    assert sorted(text for tree in grown for text in tree.paths) == sorted(set(given_texts))
    for tree in grown:
        for text, path in tree.paths.items():
            assert text.prompt == tree.prompt
            assert read_back(tree, path) == list(text.tokens[:-1])
            assert [tree.depths[place] for place in path] == list(range(text.scored - 1, len(text.tokens) - 1))


@given(texts(prompts=1))
def test_trees_side_by_side_do_not_see_each_other(given_texts: list[Text]) -> None:
    if given_texts:
        row = side_by_side(grow_trees(given_texts))
        assert all(read_back(row, path) == list(text.tokens[:-1]) for text, path in row.paths.items())


def test_the_endings_of_a_question_share_it_and_each_other() -> None:
    question = tuple(range(10, 30))
    (tree,) = grow_trees([Text(0, (*question, 1, 2, 3), 20), Text(0, (*question, 1, 2, 4), 20), Text(0, (*question, 5), 20)])
    assert tree.tokens == [*question, 1, 2]


def test_two_readings_of_a_sentence_share_its_first_half() -> None:
    start = tuple(range(10, 20))
    (tree,) = grow_trees([Text(0, (*start, 1, 50, 51), 11), Text(0, (*start, 2, 50, 51), 11)])
    assert len(tree) == len(start) + 2 * 2


def test_other_questions_and_other_prompts_are_other_trees() -> None:
    one, other = Text(0, (1, *range(10, 30)), 15), Text(0, (1, *range(30, 50)), 15)
    assert len(grow_trees([one, other])) == 2
    assert len(grow_trees([one, one._replace(prompt=1)])) == 2


def test_a_tree_does_not_grow_without_end() -> None:
    many = [Text(0, (1, 2, 3, number, *range(40), 0), 3) for number in range(10, 100)]
    assert max(map(len, grow_trees(many))) <= 512


def test_examples_in_front_of_many_questions_are_computed_once() -> None:
    system, subjects = tuple(range(100, 120)), [tuple(range(start, start + 300)) for start in (1000, 2000)]
    contexts = sorted((*system, *subject, *(question, 7, 8)) for subject in subjects for question in range(30))
    assert shared_beginnings(contexts) == [Beginning(0, 30, 320), Beginning(30, 60, 320)]


def test_a_beginning_of_few_questions_or_few_tokens_is_not_worth_it() -> None:
    assert shared_beginnings([(*range(50), question, 1) for question in range(5)]) == []
    assert shared_beginnings([(*range(5), question, 1) for question in range(200)]) == []


@given(st.lists(TOKENS.filter(bool), max_size=6, unique=True))
def test_the_best_beginnings_are_found(contexts: list[tuple[int, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "_COST_OF_BEGINNING", 2)
        patch.setattr(trees, "_LEAST_BEGINNING", 1)
        ordered = sorted(contexts)
        found = shared_beginnings(ordered)
        for start, stop, length in found:
            assert all(each[:length] == ordered[start][:length] and len(each) > length for each in ordered[start:stop])
        assert all(one.stop <= other.start for one, other in combinations(found, 2))
        assert sum(each.saved for each in found) == most_saved(ordered)


def most_saved(ordered: list[tuple[int, ...]]) -> int:
    """Over all ways to cut the list, each part with the longest beginning it can have."""
    if not ordered:
        return 0
    alone = most_saved(ordered[1:])
    with_others = [0]
    for stop in range(2, len(ordered) + 1):
        length = min(min(common_length(ordered[0], each), len(each) - 1) for each in ordered[:stop])
        if length >= 1:
            with_others.append(Beginning(0, stop, length).saved + most_saved(ordered[stop:]))
    return max(alone, *with_others)


@given(texts(), st.integers(1, 60), st.integers(0, 9), st.booleans())
def test_a_forest_gives_each_text_once(given_texts: list[Text], budget: int, past: int, shared: bool) -> None:
    forest = Forest(sorted(set(given_texts)), past=past, shared=shared)
    seen = []
    while forest:
        rows = forest.take(budget)
        assert len(rows) == 1 or len(rows) * (past + max(sum(map(len, row)) for row in rows)) <= budget
        assert all(len({tree.prompt for tree in row}) == 1 for row in rows)
        assert shared or all(len(row) == 1 and len(row[0].paths) == 1 for row in rows)
        seen += [text for row in rows for tree in row for text in tree.paths]
    assert sorted(seen) == sorted(set(given_texts))


def test_rows_are_filled() -> None:
    """Little of a batch is padding: texts of 10 to 70 tokens leave less than a twelfth."""
    lengths = [10 + (7 * number) % 61 for number in range(300)]
    forest = Forest([Text(0, tuple(range(n, n + length)), 5) for n, length in enumerate(lengths, start=100)])
    computed = 0
    while forest:
        rows = forest.take(1024)
        computed += len(rows) * max(sum(map(len, row)) for row in rows)
    assert computed <= 1.08 * sum(length - 1 for length in lengths)


def test_what_was_too_large_comes_back_smaller() -> None:
    question = tuple(range(20))
    forest = Forest([Text(0, (*question, ending, 1), 20) for ending in range(5)])
    rows = forest.take(1)
    assert [len(tree.paths) for tree in rows[0]] == [5]
    forest.put_back(rows)
    sizes = []
    while forest:
        sizes += [len(tree.paths) for row in forest.take(1) for tree in row]
    assert sizes == [1] * 5
