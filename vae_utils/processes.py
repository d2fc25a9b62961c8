"""How do several processes train one model together?

torchrun starts them, on one machine or many, and tells each who it is; PyTorch's DistributedDataParallel averages their
gradients. Without torchrun there is one process, and everything here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def together() -> Iterator[None]:
    """Inside the block, the processes that torchrun started know each other; each has its own GPU where there are enough."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        os.environ["VAE_DEVICE"] = "cpu"  # several processes on one GPU would only wait for each other
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    """How many processes train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; the first one speaks and writes for all."""
    return dist.get_rank() if dist.is_initialized() else 0


def parallel(network: nn.Module) -> nn.Module:
    """`network` with gradients averaged over all processes, and the first one's weights everywhere."""
    return DistributedDataParallel(network) if count() > 1 else network


def from_first(value: object) -> object:
    """What the first process has for `value`, in every process: a tensor (in place), or anything that can be pickled."""
    if count() == 1:
        return value
    if isinstance(value, Tensor):
        dist.broadcast(value, src=0)
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def mean(values: Tensor) -> Tensor:
    """The mean of `values` over all processes, in every process."""
    if count() > 1:
        dist.all_reduce(values)
        values /= count()
    return values
