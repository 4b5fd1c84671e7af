from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.stages.checkpoints.grid import Quantised
from llmrepair.stages.checkpoints.packed import pack, unpack


@given(
    rows=st.integers(1, 40),
    groups=st.integers(1, 5),
    group_size=st.integers(1, 70),
    bits=st.sampled_from([2, 3, 4, 8]),
    symmetric=st.booleans(),
    seed=st.integers(0, 99),
)
def test_unpacking_gives_what_was_packed(
    rows: int, groups: int, group_size: int, bits: int, symmetric: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (rows, groups * group_size), generator=generator).to(torch.uint8)
    zero_point = torch.randint(2**bits, (rows, groups), generator=generator).to(torch.uint8)
    if symmetric:
        zero_point.fill_(2 ** (bits - 1))
    scale = torch.rand(rows, groups, generator=generator)
    tensors = pack(Quantised(codes, scale, zero_point, bits, symmetric))
    assert tensors["weight_packed"].shape == (rows, -(-groups * group_size * bits // 32))  # no bit is wasted but the last
    back = unpack(tensors, bits, symmetric)
    assert torch.equal(back.codes, codes)
    assert torch.equal(back.zero_point, zero_point)
    assert back.scale is scale
