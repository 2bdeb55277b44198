"""Well-known models with random weights, to ask for their coverage; nothing is downloaded.

Names are written out, so that collecting them imports neither torch nor a library; a test holds torchvision's
classifiers against its own registry. `zoo_models.py` has the models of other kinds and libraries.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from . import zoo_models
from .cases import Model
from .declaring import grid

CLASSIFICATION = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf
regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf
regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50
resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13
vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 wide_resnet50_2
""".split()

SEGMENTATION = """
deeplabv3_mobilenet_v3_large deeplabv3_resnet101 deeplabv3_resnet50 fcn_resnet101 fcn_resnet50
lraspp_mobilenet_v3_large
""".split()

LARGER = """
convnext_base convnext_large convnext_small densenet161 densenet169 densenet201 efficientnet_b1 efficientnet_b2
efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l efficientnet_v2_m
mnasnet0_75 mnasnet1_0 mnasnet1_3 regnet_x_16gf regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf regnet_x_800mf
regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_800mf regnet_y_8gf
resnet101 resnet152 resnet34 resnet50 resnext101_32x8d resnext101_64x4d shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 swin_b swin_s swin_v2_b swin_v2_s vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_32 vit_h_14
vit_l_16 vit_l_32 wide_resnet101_2 deeplabv3_resnet101 fcn_resnet101
""".split()
"""Larger ones of their families, which a run asks in fp16 alone: in fp32 they have the operators of the smaller."""

IMAGE = (3, 224, 224)
SEED = 20240229


def models(*, conditioned: bool = False) -> list[Model]:
    """Return the zoo: torchvision's classification and segmentation models, and those of `zoo_models.py`.

    All are seeded. `conditioned` ones are to be run: weights of networks of images are made to compute something.
    """
    classifiers: dict[str, Callable[[int], Any]] = {name: partial(_torchvision, name) for name in CLASSIFICATION}
    classifiers |= {name: partial(_segmentation, name) for name in SEGMENTATION}
    every = {
        name: zoo_models.ZooModel(factory, ("fp16",) if name in LARGER else ("fp16", "fp32"))
        for name, factory in classifiers.items()
    } | zoo_models.ALL
    made = _conditioned if conditioned else _seeded
    return [
        Model(name, partial(made, one.factory), grid(["dynamo"], one.precisions, [1])) for name, one in every.items()
    ]


def _seeded(factory: Callable[..., Any], batch: int) -> tuple[Any, ...]:
    import torch

    torch.manual_seed(SEED)
    module, *inputs = factory(batch)
    return module.eval(), *inputs


def _conditioned(factory: Callable[..., Any], batch: int) -> tuple[Any, ...]:
    import torch

    from .random_weights import condition

    module, *inputs = _seeded(factory, batch)
    images = inputs[0]
    if isinstance(images, torch.Tensor) and images.is_floating_point():
        condition(module, torch.randn(2, *images.shape[1:]))
        return module, torch.randn(images.shape)
    return module, *inputs


def unavailable(name: str, precision: str = "") -> str:
    """Return why a model of the zoo can't be made here, or not in a precision; the empty string if it can."""
    package = name.partition(".")[0] if "." in name else "torchvision"
    if not importlib.util.find_spec(package):
        return f"{package} is not installed: pip install {package}"
    known = zoo_models.ALL.get(name)
    if precision and known and known.no_other and precision not in known.precisions:
        return f"{name} is asked in {', '.join(known.precisions)} only: {known.no_other}"
    return ""


def left_out(precisions: Iterable[str]) -> list[str]:
    """Return a line for each reason why cases of the zoo can't be made here in some precisions."""
    cases = [(model.name, precision) for precision in precisions for model in models()]
    reasons = Counter(reason for name, precision in cases if (reason := unavailable(name, precision)))
    return [f"{count} of the zoo left out: {reason}" for reason, count in sorted(reasons.items())]


def _torchvision(name: str, batch: int) -> tuple[Any, Any]:
    import torch
    import torchvision

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **options), torch.zeros(batch, *IMAGE)


def _segmentation(name: str, batch: int) -> tuple[Any, Any]:
    import torch
    import torchvision

    return torchvision.models.get_model(name, weights=None, weights_backbone=None), torch.zeros(batch, *IMAGE)
