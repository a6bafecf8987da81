"""Fixtures shared by the tests: the embedded model once per session, a held-out scene, hooks seen from outside."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Of the kernels that tests start: where more wants to run than there are cores, threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

import cmllm_tools as cm
from cmllm_tools.bench.heldout import DEMO_SCENE, HELDOUT
from cmllm_tools.data.formats.roc import read_roc

# The models are tiny: a second thread costs more than it brings, and much more on a busy machine.
torch.set_num_threads(1)


def pytest_runtest_setup():
    """Before the fixtures of each test: its figures hang on no test before it, and it may run alone or in any process."""
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """The test that leaves torch without gradients is named, and not those that come after it in its process."""
    try:
        return (yield)
    finally:
        left = "in inference mode" if torch.is_inference_mode_enabled() else "without gradients"
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            torch.set_grad_enabled(True)
            pytest.fail(f"{item.nodeid} left torch {left}.")


PLUS = cm.ControlMLLMPlus(steps=3)


@pytest.fixture(scope="session")
def mllm():
    return cm.load()


@pytest.fixture(scope="session")
def example():
    return read_roc(HELDOUT)[0]


@pytest.fixture(scope="session")
def prompt(mllm, example):
    return mllm.prepare(example.image, "describe the object.")


@pytest.fixture(scope="session")
def box(example):
    return example.region("box")


@pytest.fixture(scope="session")
def scene():
    return read_roc(HELDOUT)[DEMO_SCENE]


@pytest.fixture(scope="session")
def picture_file(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "scene.png"
    scene.image.save(path)
    return path


@pytest.fixture
def bench(mllm, picture_file, scene):
    from cmllm_tools.widgets import Workbench

    return Workbench(mllm, picture_file, regions=scene.region("box"), method=PLUS)


def snapshot(mllm):
    """Everything of a model that this package could have disturbed."""
    model = mllm.model
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "training": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [parameter.grad is None for parameter in model.parameters()],
        "attention": [getattr(c, "_attn_implementation", None) for c in (model.config, mllm.decoder.config)],
        "generation": model.generation_config.to_dict(),
    }


def assert_same(before, after):
    weights_before, weights_after = before.pop("weights"), after.pop("weights")
    assert before == after
    assert weights_before.keys() == weights_after.keys()
    assert all(torch.equal(weights_before[name], weights_after[name]) for name in weights_before)
