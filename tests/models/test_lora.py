from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SAVE = """
import sys
from pathlib import Path
from llmrepair.models.lora import new_adapter, save_adapter
from tests.conftest import tiny_model
save_adapter(new_adapter(tiny_model("llama"), 2), Path(sys.argv[1]), "compress/abc")
"""


def test_an_adapter_has_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        subprocess.run([sys.executable, "-c", SAVE, str(tmp_path / seed)], env=environment, check=True)
    folders = [tmp_path / seed / "adapter" for seed in ("1", "2")]
    assert {path.name for path in folders[0].iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    configs = [(folder / "adapter_config.json").read_bytes() for folder in folders]
    assert configs[0] == configs[1]
    assert str(tmp_path).encode() not in configs[0]
