"""What torch and Python raise where memory is short."""

import torch

SHORT = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: not enough memory: you tried to"
        " allocate 1 bytes."
    ),
    "python": MemoryError(),
}
