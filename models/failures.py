"""What ends work on a model for a reason that its user can mend."""

from __future__ import annotations


class Failure(Exception):
    """
    Args:
        message: what is wrong.
        hint: what helps.
    """

    is_of_request = False
    """Whether what was asked for is wrong, and not what came of it."""

    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.hint = hint


class NoAnswer(Failure):
    """An answer without a token of its own: as nothing is asked of a model, its log-likelihood would be 0, the best of all."""


class LooksAhead(Failure):
    """A model that sees tokens behind the one that it speaks of, as those that fill in masks do: no language model here."""

    is_of_request = True


class WrongFile(Failure):
    """A file that the user gave is not what it should be."""

    is_of_request = True
