"""The devices of these tests: a GPU with ``-m gpu``, and the CPU in the ordinary run."""

import pytest
import torch

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    ],
)


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    return request.param


@pytest.fixture(params=[CUDA])
def cuda(request):
    """A device of tests that only a GPU can run."""
    return request.param
