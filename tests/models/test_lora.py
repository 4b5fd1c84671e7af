from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from llmrepair.models.loading import compressible_layers, weight_matrix
from llmrepair.models.lora import (
    ADAPTER_FOLDER,
    _multiply_as_inputs_are,
    _of_groups,
    new_adapter,
    save_adapter,
    with_merged_adapter,
)
from llmrepair.models.training import next_token_loss
from tests.conftest import tiny_model
from tests.tiny_families import tiny_model as family_model

SAVE = """
import sys
from pathlib import Path
from llmrepair.models.lora import ADAPTER_FOLDER, new_adapter, save_adapter
from tests.conftest import tiny_model
save_adapter(new_adapter(tiny_model("llama"), 2), Path(sys.argv[1]), "compress/abc")
"""


def test_an_adapter_has_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", SAVE, str(tmp_path / "there")], env=environment, check=True)
    save_adapter(new_adapter(tiny_model("llama"), 2), tmp_path / "here", "compress/abc")
    folders = [tmp_path / place / "adapter" for place in ("here", "there")]
    assert {path.name for path in folders[0].iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    configs = [(folder / "adapter_config.json").read_bytes() for folder in folders]
    assert configs[0] == configs[1]
    assert str(tmp_path).encode() not in configs[0]


def test_layers_of_groups_have_no_adapter() -> None:
    """DeepSeek-V4's, which is linear by class, multiplies groups of heads by rows of their own."""
    assert {name.rpartition(".")[2] for name in _of_groups(family_model("deepseek_v4", 96))} == {"o_a_proj"}
    assert not _of_groups(family_model("falcon", 96))  # whose layers have code of their own too


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_products_in_the_precision_of_a_model_are_those_in_float32_but_for_its_rounding(family: str) -> None:
    adapted, rows = new_adapter(tiny_model(family).bfloat16(), 2), torch.arange(3, 33).reshape(2, 15)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    for number, parameter in enumerate(trained):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) / 10
    seen: set[torch.dtype] = set()
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.lora_A["default"].register_forward_hook(
                lambda *call: seen.update(each.dtype for each in (call[1][0], call[2]))
            )

    def logits_and_gradients() -> list[torch.Tensor]:
        logits = adapted(rows).logits
        loss = next_token_loss(logits[:, :-1], rows)
        return [logits.float(), *torch.autograd.grad(loss, trained)]

    expected = logits_and_gradients()
    assert seen == {torch.float32}
    seen.clear()
    _multiply_as_inputs_are(adapted)
    found = logits_and_gradients()
    assert seen == {torch.bfloat16}
    assert all(each.dtype == torch.float32 for each in found)
    one, other = (torch.cat([each.flatten() for each in some]) for some in (found, expected))
    assert (one - other).norm() < 0.1 * other.norm()  # as far as both are from the same model in float64


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_adds_the_product_in_float32_and_rounds_once(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    adapted = new_adapter(tiny_model(family), 2)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) / 10
    save_adapter(adapted, tmp_path, "compress/abc")
    products = {
        name: 2 * module.lora_B["default"].weight @ module.lora_A["default"].weight  # alpha / rank = 2
        for name, module in adapted.get_base_model().named_modules()
        if hasattr(module, "lora_A")
    }

    model = tiny_model(family).to(dtype)
    before = {name: weight_matrix(layer).clone() for name, layer in compressible_layers(model).items()}
    others = {name: parameter.clone() for name, parameter in model.named_parameters()}
    merged = with_merged_adapter(model, tmp_path / ADAPTER_FOLDER)
    after = {name: weight_matrix(layer) for name, layer in compressible_layers(merged).items()}
    assert after.keys() == before.keys() == products.keys()
    for name, weight in after.items():
        assert weight.dtype == dtype
        torch.testing.assert_close(weight, (before[name].float() + products[name]).to(dtype), rtol=1e-6, atol=1e-6)
    touched = {f"{name}.weight" for name in products}
    assert all(torch.equal(p, others[name]) for name, p in merged.named_parameters() if name not in touched)
    assert not any(parameter.requires_grad for parameter in merged.parameters())
