"""Which tokens are computed once: texts that begin alike become trees, and trees are packed into rows.

A scorer is asked for one question with several endings, and for the same examples in front of many questions. Here texts
are token ids and nothing is computed: `shared_beginnings` finds what stands in front of many texts, `grow_trees` makes a
tree of the texts that belong together, and `Forest.take` fills rows of one width with trees, so that little of a batch is
padding.

The tokens of a tree stand in the order of a walk through it. So token i sees token j exactly where j <= i < ends[j]:
j is i itself or one of its ancestors.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import NamedTuple

Tokens = tuple[int, ...]

_LEAST_BEGINNING = 16  # tokens: a shorter one costs more as cached keys and values than as tokens
_COST_OF_BEGINNING = 512  # tokens: a forward pass of its own, and batches that are less full
_ROW_WIDTH = 256  # tokens: wide enough to be filled with short trees
_MOSTLY_SHORT = 0.75  # mean length of trees over the greatest
_WORTH_SHARING = 4  # tokens, between two questions
_LARGEST_TREE = 512  # tokens: the cost of attention grows with the square of a row


class Text(NamedTuple):
    """Token ids behind a prompt; those from `scored` on, at least 1, are to be predicted."""

    prompt: int
    tokens: Tokens
    scored: int

    @property
    def context(self) -> Tokens:
        return self.tokens[: self.scored]


class Group(NamedTuple):
    """Texts behind one prompt, or several if they share no beginning, and how many tokens all of them begin with."""

    length: int
    texts: list[Text]

    @property
    def beginning(self) -> Tokens:
        return self.texts[0].tokens[: self.length]


class Beginning(NamedTuple):
    """The first `length` tokens of the texts [start, stop) of a sorted list."""

    start: int
    stop: int
    length: int

    @property
    def saved(self) -> int:
        """Tokens that need not be computed if this is computed once."""
        return (self.stop - self.start - 1) * self.length - _COST_OF_BEGINNING


@dataclass
class Tree:
    """Texts that share what they begin with; n tokens, more than one root allowed.

    The last token of a text is only predicted: it is not in the tree.
    """

    prompt: int
    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    """[n], how many tokens stand before each."""
    ends: list[int] = field(default_factory=list)
    """[n], one past the last token that stands behind each."""
    paths: dict[Text, list[int]] = field(default_factory=dict)
    """For each text the tokens from which its scored ones are predicted."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        """Whether it is one plain sequence."""
        return self.depths == list(range(len(self)))

    def graft(self, text: Text, skip: int, shared: list[int]) -> list[int]:
        """Adds a text without its first `skip` tokens; `shared` is the place of each token it shares with what is there.

        Returns:
            the place of each of its tokens.
        """
        new = text.tokens[skip + len(shared) : -1]
        self.depths += range(len(shared), len(shared) + len(new))
        path = shared + list(range(len(self), len(self) + len(new)))
        self.tokens += new
        end = len(self)
        self.ends += [end] * len(new)
        for place in shared:
            self.ends[place] = end
        self.paths[text] = path[text.scored - 1 - skip :]
        return path


def side_by_side(trees: Sequence[Tree]) -> Tree:
    """Trees behind one prompt as one; none sees another."""
    row = Tree(trees[0].prompt)
    for tree in trees:
        start = len(row)
        row.tokens += tree.tokens
        row.depths += tree.depths
        row.ends += [start + end for end in tree.ends]
        row.paths |= {text: [start + place for place in path] for text, path in tree.paths.items()}
    return row


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts share at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def group_by_beginning(texts: Iterable[Text]) -> list[Group]:
    """What shares a beginning that is worth computing once, in groups; the rest is one more."""
    rest: list[Text] = []
    groups = [Group(0, rest)]
    contexts: dict[int, dict[Tokens, list[Text]]] = defaultdict(lambda: defaultdict(list))
    for text in sorted(texts):
        contexts[text.prompt][text.context].append(text)
    for by_context in contexts.values():
        of_contexts = list(by_context.values())
        done = 0
        for start, stop, length in shared_beginnings(list(by_context)):
            rest += chain.from_iterable(of_contexts[done:start])
            groups.append(Group(length, list(chain.from_iterable(of_contexts[start:stop]))))
            done = stop
        rest += chain.from_iterable(of_contexts[done:])
    return [group for group in groups if group.texts]


def shared_beginnings(texts: Sequence[Tokens]) -> list[Beginning]:
    """The beginnings of sorted texts that are worth computing once, such as examples in front of many questions.

    Of beginnings inside one another (a system prompt, and behind it the examples of a subject) those are taken that leave
    the fewest tokens. They do not overlap, and each is shorter than its texts.
    """
    shared = [min(common_length(a, b), len(a) - 1, len(b) - 1) for a, b in pairwise(texts)]

    def best(start: int, stop: int) -> list[Beginning]:
        inner = shared[start : stop - 1]
        if not inner or max(inner) * len(inner) <= _COST_OF_BEGINNING:
            return []
        whole = Beginning(start, stop, min(inner))
        cuts = [start, *(place + 1 for place in range(start, stop - 1) if shared[place] == whole.length), stop]
        parts = [each for a, b in pairwise(cuts) for each in best(a, b)]
        worth_it = whole.length >= _LEAST_BEGINNING and whole.saved > sum(part.saved for part in parts)
        return [whole] if worth_it else parts

    return best(0, len(texts))


def grow_trees(texts: Iterable[Text], skip: int = 0) -> list[Tree]:
    """Trees of texts with the same prompt and the same context or most of it, and small ones of texts that begin alike.

    Args:
        skip: the first tokens of all texts, cached elsewhere.
    """
    trees: list[Tree] = []
    before = None
    path: list[int] = []
    for text in sorted(texts):
        shared = common_length(before.tokens[:-1], text.tokens[:-1]) - skip if before is not None else 0
        if before is None or not _belong_together(before, text, shared, skip, len(trees[-1])):
            trees.append(Tree(text.prompt))
            shared = 0
        path = trees[-1].graft(text, skip, path[:shared])
        before = text
    return trees


def _belong_together(one: Text, other: Text, shared: int, skip: int, size: int) -> bool:
    """Whether a text that shares so many tokens with the last of a tree is better added to it than computed apart."""
    context = min(one.scored, other.scored) - skip
    length = len(other.tokens) - skip
    grown = size + length - shared
    same_question = context > 1 and shared >= context / 2 and grown <= max(_LARGEST_TREE, 2 * length)
    begins_alike = shared >= _WORTH_SHARING and grown <= _ROW_WIDTH / 2  # larger ones would leave gaps
    return one.prompt == other.prompt and (same_question or begins_alike)


class Forest:
    """Texts that wait to be computed, as trees.

    Args:
        skip: tokens that all of them begin with and that are cached.
        past: how many tokens are cached in front of them, those among them.
        shared: False where each text needs a row of its own.
        most_rows: of a batch; None for any number.
    """

    def __init__(self, texts: Sequence[Text], skip: int = 0, past: int = 0, shared: bool = True, most_rows: int | None = None):
        self._most_rows = most_rows
        self._skip = skip
        self._past = past
        self._shared = shared
        self._trees: dict[int, list[Tree]] = defaultdict(list)
        self._put(grow_trees(texts, skip) if shared else self._apart(texts))

    def __bool__(self) -> bool:
        return any(self._trees.values())

    def put_back(self, rows: Sequence[Sequence[Tree]]) -> None:
        """Takes back a batch that was too large. Of a single row each text will come alone."""
        if len(rows) > 1:
            self._put(tree for row in rows for tree in row)
        else:
            self._shared = False
            self._put(self._apart(text for tree in rows[0] for text in tree.paths))

    def _put(self, trees: Iterable[Tree]) -> None:
        for tree in trees:
            insort(self._trees[tree.prompt], tree, key=len)

    def _apart(self, texts: Iterable[Text]) -> Iterator[Tree]:
        return (tree for text in texts for tree in grow_trees([text], self._skip))

    def take(self, budget: int) -> list[list[Tree]]:
        """The next batch: rows of trees, those of a row behind one prompt, the longest trees first.

        Rows are as wide as the longest tree. Where most are shorter they are wider, for short trees fill a wide row better and
        every row pays for what is cached.

        Args:
            budget: most tokens of a batch, cached ones and padding included; there is one row even so.
        """
        lengths = [len(tree) for trees in self._trees.values() for tree in trees]
        width = max(lengths)
        if self._shared and sum(lengths) < _MOSTLY_SHORT * width * len(lengths):
            width = max(width, min(max(self._past, _ROW_WIDTH), budget - self._past))
        rows: list[list[Tree]] = []
        fits = min(budget // (self._past + width), self._most_rows or budget)
        while self and len(rows) < max(1, fits):
            longest = max(filter(None, self._trees.values()), key=lambda trees: len(trees[-1]))
            rows.append(self._fill(longest, width))
        return rows

    def _fill(self, trees: list[Tree], width: int) -> list[Tree]:
        """Takes the longest tree, and each time the longest that there is still room for."""
        row = [trees.pop()]
        room = width - len(row[0])
        while self._shared and (place := bisect_right(trees, room, key=len)):
            row.append(trees.pop(place - 1))
            room -= len(row[-1])
        return row
