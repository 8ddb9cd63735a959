"""Each broken promise is found by its own requirement, and by no other."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from andon.core import ConfigError
from andon.methods import ContractReport, check_method
from andon.methods.contract_check import generated_images

SOURCE = """
import os
import random

import numpy as np
import torch

from andon.data import Transform
from andon.methods import Detector, Method, MethodConfig


class Config(MethodConfig):
    transform: Transform = Transform(size=(16, 16), normalisation="unit")


class Own(Detector):
    def __init__(self, config, mean):
        super().__init__(config)
        self.register_buffer("mean", mean)

    def forward(self, batch):
        maps = (batch - self.mean).square().sum(1)
        scores = maps.amax((1, 2))
        {forward}
        return scores, maps


class Mean(Method[Config]):
    name, title = "mean", "Mean"
    Config = Config
    {attributes}

    def learn(self, fitting):
        generator = torch.Generator().manual_seed(fitting.seed)
        total = torch.cat([b for _, b in fitting.images.batches(self.config.transform, 4)]).mean(0)
        total = total + 0.01 * torch.randn(total.shape, generator=generator)
        {learn}
        return Own(self.config, total)

    def blank(self, shapes, weights):
        {blank}
        return Own(self.config, torch.zeros(shapes["mean"]))
"""


def checked(
    tmp_path: Path, forward: str = "pass", learn: str = "pass", blank: str = "pass", attributes: str = "pass"
) -> ContractReport:
    text = SOURCE.format(forward=forward, learn=learn, blank=blank, attributes=attributes)
    (tmp_path / "mine.py").write_text(text)
    return check_method(f"{tmp_path / 'mine.py'}:Mean")


def broken(report: ContractReport) -> list[str]:
    return [item.requirement for item in report.items if item.outcome == "broken"]


def test_a_good_method_keeps_all_but_what_cannot_be_seen(tmp_path: Path) -> None:
    report = checked(tmp_path)
    assert report.kept
    assert [i.requirement for i in report.items if i.outcome == "not checked"] == ["higher = more anomalous"]
    assert len(report.items) == 18


BATCH = "the scores of an image never depend on the other images in its batch"
STATE = "forward keeps no state: the same images give the same scores"
SAME = "the same seed on the same machine gives the same detector"
OTHER = "another seed may give another detector, unless seeded is False"
GLOBAL = "no use of global random state (python, numpy, torch)"
SETTINGS = "no change of global settings (threads, grad mode, default dtype, …)"
SAVED = "save and load give the same detector (blank makes room for it)"
FINITE = "scores and maps are finite"
FEW = "it learns from one image"
OBLONG = "it works with non-square images"
FAULTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "batch's maximum": ({"forward": "scores = scores / scores.max()"}, [BATCH]),
    "batch's mean in maps": ({"forward": "maps = maps - maps.mean()"}, [BATCH]),
    "counts calls": ({"forward": "self.mean.add_(0.1)"}, [BATCH, STATE, SAME, SAVED]),
    "torch's global state": ({"learn": "total = total + torch.randn(total.shape)"}, [SAME, GLOBAL]),
    "numpy's global state": ({"learn": "total = total + np.random.rand()"}, [SAME, GLOBAL]),
    "python's global state": ({"learn": "total = total + random.random()"}, [SAME, GLOBAL]),
    "seeds the global state": ({"learn": "torch.manual_seed(fitting.seed)"}, [GLOBAL]),
    "not seeded, it says": ({"attributes": "seeded = False"}, [OTHER]),
    "threads": ({"learn": "torch.set_num_threads(torch.get_num_threads() + 1)"}, [SETTINGS]),
    "grad mode": ({"learn": "torch.set_grad_enabled(False)"}, [SETTINGS]),
    "environment": ({"learn": "os.environ['ANDON_TEST_OF_CONTRACT'] = '1'"}, [SETTINGS]),
    "errors": ({"learn": "np.seterr(all='ignore')"}, [SETTINGS]),
    "no blank": ({"blank": "raise KeyError('nothing')"}, [SAVED]),
    "not in the state": (
        {
            "forward": "scores = scores + getattr(self, 'offset', 0.0)",
            "learn": "made = Own(self.config, total); made.offset = 1.0; return made",
        },
        [SAVED],
    ),
    "NaN of one colour": ({"forward": "maps = maps / batch.std((1, 2, 3))[:, None, None]"}, [FINITE, BATCH]),
    "one image": ({"learn": "assert len(fitting.images) > 1"}, [FEW]),
    "square only": ({"forward": "assert batch.shape[2] == batch.shape[3]"}, [OBLONG]),
    "a list": ({"forward": "scores = scores.tolist()"}, ["fit gives a Detector that scores an image"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_breaks_its_requirement(tmp_path: Path, fault: str) -> None:
    options, expected = FAULTS[fault]
    report = checked(tmp_path, **options)
    found = broken(report)
    if fault == "NaN of one colour":
        assert FINITE in found
    else:
        assert found == [r for r in [i.requirement for i in report.items] if r in expected]
        assert set(found) == set(expected)
    assert not report.kept
    assert all(item.detail for item in report.items if item.outcome == "broken")


def test_nothing_of_the_caller_is_changed(tmp_path: Path) -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    expected = (random.random(), np.random.rand(), float(torch.rand(1)))  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    learn = (
        "random.seed(1); np.random.seed(1); torch.manual_seed(1); torch.set_num_threads(3); "
        "torch.set_default_dtype(torch.float64); os.environ['ANDON_TEST_OF_CONTRACT'] = '1'; os.chdir('/')"
    )
    folder = Path.cwd()
    checked(tmp_path, learn=learn)
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected  # noqa: NPY002
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == torch.float32
    assert "ANDON_TEST_OF_CONTRACT" not in os.environ
    assert Path.cwd() == folder


def test_a_config_that_refuses_a_size_is_not_a_fault(tmp_path: Path) -> None:
    report = checked(tmp_path)
    assert report.kept
    square = SOURCE.replace(
        "class Own(Detector)",
        "from pydantic import field_validator\n\n\nclass Square(Config):\n    @field_validator('transform')\n"
        "    @classmethod\n    def _square(cls, value):\n        if value.size[0] != value.size[1]:\n"
        "            raise ValueError('square only')\n        return value\n\n\nclass Own(Detector)",
    ).replace("    Config = Config", "    Config = Square")
    path = tmp_path / "square.py"
    path.write_text(square.format(forward="pass", learn="pass", blank="pass", attributes="pass"))
    (item,) = [i for i in check_method(f"{path}:Mean").items if i.requirement == OBLONG]
    assert item.outcome == "not checked"
    assert "square only" in item.detail


def test_options_and_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown method 'patchcor'"):
        check_method("patchcor")
    with pytest.raises(ConfigError, match="unknown option 'sise'"):
        check_method("thumbnail-nn", {"sise": 3})


def test_generated_images_are_those_of_their_seed() -> None:
    one, again = generated_images(4, seed=3, defect=True), generated_images(4, seed=3, defect=True)
    assert {image.shape for image in one} == {(40, 56, 3), (56, 40, 3), (48, 48, 3)}
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert all(not np.array_equal(a, b) for a, b in zip(one, generated_images(4, seed=4, defect=True), strict=True))
