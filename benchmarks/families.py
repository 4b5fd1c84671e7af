"""What becomes of every causal family of transformers: a tiny random model of each, through the real command line.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/families.py --log build/families.jsonl --page docs/families.md [FAMILY ...]

Each is compressed, evaluated and repaired. A command ends in one of three ways: it works, it says before any work why it
cannot, or it fails. Families that few sizes do not make small are left out by name. What is in the log is not asked again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers.utils.logging import set_verbosity_error

from tests.tiny_families import ASKED, TYPES, NotTiny, Outcome, outcome, tiny_folder

_PAGE = """# Families of models

What becomes of each causal family of transformers {version}, by its `model_type`: a tiny random model of two layers goes
through `llmrepair eval`. A model of your own may have sizes that these have not.

```sh
OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/families.py --log build/families.jsonl --page docs/families.md
```

| column | `llmrepair eval` with |
|---|---|
{columns}

A number leads to what was said before any work; **fails** is a bug that is known.

{table}

{notes}

Not asked, because few sizes do not make them small, they need more than text, or nobody has yet:

{left_out}
"""
_TELLING = re.compile(r"--(?:method|recovery|format) \w+")
_OF_ONE_MODEL = {r"`\S*/model`": "the model", r"\d+%": "...", r" \(\w+( and \w+)*\)$": ""}
"""Its name, shares and classes in what is said, and what stands for them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("families", nargs="*", default=TYPES)
    parser.add_argument("--log", type=Path, required=True, help="a line of JSON for each family")
    parser.add_argument("--page", type=Path, help="the page of the documentation to write")
    arguments = parser.parse_args()
    set_verbosity_error()
    done = _read(arguments.log)
    with arguments.log.open("a") as log:
        for family in arguments.families:
            if family not in done:
                done[family] = _asked(family)
                print(json.dumps({"family": family, "found": done[family]}), file=log, flush=True)
    if arguments.page:
        arguments.page.write_text(_page({family: done[family] for family in sorted(done)}))


def _read(log: Path) -> dict[str, Any]:
    """Family -> what was asked -> how it ended; or why it was not asked."""
    lines = log.read_text().splitlines() if log.exists() else []
    return {line["family"]: line["found"] for line in map(json.loads, lines)}


def _asked(family: str) -> dict[str, Outcome] | str:
    folder = Path(tempfile.mkdtemp())
    try:
        tiny_folder(folder / "model", family)
        return {name: outcome(folder / "model", folder / "runs", name) for name in ASKED}
    except NotTiny as error:
        return str(error)
    finally:
        shutil.rmtree(folder)


def _page(found: Mapping[str, Any]) -> str:
    import transformers

    numbers: dict[str, int] = {}
    asked = {family: each for family, each in found.items() if not isinstance(each, str)}
    rows = [f"| {' | '.join([f'`{family}`', *_cells(each, numbers)])} |" for family, each in asked.items()]
    return _PAGE.format(
        version=transformers.__version__,
        columns="\n".join(f"| {name} | `{' '.join(_TELLING.findall(asked))}` |" for name, asked in ASKED.items()),
        table="\n".join([f"| family | {' | '.join(ASKED)} |", f"|---|{'---|' * len(ASKED)}", *rows]),
        notes="\n".join(_wrapped(f"{number}. {said}") for said, number in numbers.items()),
        left_out=_wrapped(", ".join(f"`{family}`" for family in sorted(TYPES) if family not in asked)),
    )


def _general(said: str) -> str:
    for pattern, general in _OF_ONE_MODEL.items():
        said = re.sub(pattern, general, said)
    return said


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118, subsequent_indent="   ", break_on_hyphens=False)


def _cells(outcomes: Mapping[str, Any], numbers: dict[str, int]) -> Iterator[str]:
    """Of a row; what is said gets the number that it had in another row."""
    for state, said in outcomes.values():
        if state == "refused":
            yield str(numbers.setdefault(_general(said), len(numbers) + 1))
        else:
            yield "works" if state == "works" else "**fails**"


if __name__ == "__main__":
    main()
