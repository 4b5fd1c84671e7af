"""A model that sees what it is asked for would be right about everything."""

from __future__ import annotations

import pytest

from llmrepair.models.causal_trial import refuse_looking_ahead
from llmrepair.models.failures import LooksAhead
from tests.tiny_families import tiny_model


@pytest.mark.parametrize("family", ["rembert", "xlm", "xlnet"])
def test_a_model_that_looks_ahead_is_refused(family: str) -> None:
    with pytest.raises(LooksAhead, match="does not read from left to right"):
        refuse_looking_ahead(tiny_model(family, 96))


@pytest.mark.parametrize("family", ["bert", "llama", "mamba", "mixtral"])
def test_a_model_that_does_not_is_not(family: str) -> None:
    refuse_looking_ahead(tiny_model(family, 96))
    refuse_looking_ahead(tiny_model(family, 96).bfloat16())
