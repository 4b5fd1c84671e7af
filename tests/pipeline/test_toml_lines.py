from __future__ import annotations

import pytest

from llmrepair.pipeline.toml_lines import Place, line_of

TEXT = """name = "x"
a.b = 1

[grid]
models = ["lab", 'other']   # two
compressions = [
  # first
  { method = "gptq", bits = 3 },

  "rtn", { method = "wanda",
           sparsity = 0.5 },
]
text = '''
[not.a.table]
'''

[[include]]
"model" = "lab"

[[include]]
x.y = 1
[defaults.deep]
z = 1
"""


@pytest.mark.parametrize(
    "place, line",
    [
        (("name",), 1),
        (("a", "b"), 2),
        (("grid",), 4),
        (("grid", "models"), 5),
        (("grid", "models", 1), 5),
        (("grid", "compressions", 0, "bits"), 8),
        (("grid", "compressions", 1), 10),
        (("grid", "compressions", 2, "sparsity"), 11),
        (("grid", "text"), 13),
        (("include", 0), 17),
        (("include", 0, "model"), 18),
        (("include", 1, "x", "y"), 21),
        (("defaults", "deep", "z"), 23),
        ((), 1),
        (("grid", "nowhere"), 4),
        (("nowhere",), 1),
    ],
)
def test_where_it_stands(place: Place, line: int) -> None:
    assert line_of(TEXT, place) == line
