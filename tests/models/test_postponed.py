"""What transformers imports late, and what it reads once, works as if it had been imported at once and read twice."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from llmrepair.models import loading
from llmrepair.models.postponed import _models_read_once
from transformers import models
from transformers import utils
from transformers.generation import candidate_generator
from transformers.loss import loss_for_object_detection
from transformers.quantizers import quantizer_torchao

assert not {"sklearn", "scipy.optimize", "torchao"} & {*sys.modules}
for module in (utils, candidate_generator):
    assert module.is_sklearn_available() and "sklearn" not in sys.modules
assert loss_for_object_detection.is_scipy_available is utils.is_scipy_available
assert quantizer_torchao.is_torchao_available is utils.is_torchao_available
assert candidate_generator.roc_curve([0, 1], [0.1, 0.9])[1][-1] == 1
assert [*loss_for_object_detection.linear_sum_assignment([[1, 2], [2, 1]])[1]] == [0, 1]
assert not hasattr(utils, "roc_curve")
assert len([path for path in opened if path.endswith("configuration_albert.py")]) == 1
read = utils.import_utils.define_import_structure
assert read.__name__ == "define_import_structure"
assert _models_read_once(read)(models.__file__) == read(models.__file__)
"""


def test_what_was_put_off_is_imported_when_it_is_called() -> None:
    subprocess.run([sys.executable, "-c", CHECK], check=True)
