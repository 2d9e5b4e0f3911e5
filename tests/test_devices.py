"""A device asked for by name is that device, and auto is always one."""

import pytest
import torch

from mhvae_cli.devices import resolve_device, resolve_dtype
from mhvae_cli.errors import DeviceError


@pytest.mark.parametrize("name", ["tpu9", "abacus", "cuda:99", "meta", ""])
def test_a_device_asked_for_by_name_never_falls_back(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        resolve_device(name)
    assert caught.value.hint


def test_auto_is_always_something() -> None:
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    assert resolve_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(DeviceError, match="float16"):
        resolve_dtype("float16", torch.device("cpu"))
