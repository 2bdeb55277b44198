"""Well-known models with random weights, to ask for their coverage; nothing is downloaded.

Names are written out, so that collecting them imports neither torch nor torchvision; a test holds them against
torchvision's own registry.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

from .cases import Model, grid

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

TIMM = ("convmixer_768_32", "deit3_small_patch16_224", "mixer_s16_224", "mobilevit_s", "regnety_002")
TRANSFORMERS = {"bert": "Bert", "distilbert": "DistilBert", "gpt2": "GPT2"}

PRECISIONS = ("fp16", "fp32")
IMAGE = (3, 224, 224)
SEED = 20240229
TOKENS = 128


def models(*, conditioned: bool = False) -> list[Model]:
    """Return the zoo: torchvision's classification and segmentation models, and some of timm and transformers.

    `conditioned` ones are to be run: their weights are seeded and compute something, their inputs are noise.
    """
    factories: dict[str, Callable[..., Any]] = {name: partial(_torchvision, name) for name in CLASSIFICATION}
    factories |= {name: partial(_segmentation, name) for name in SEGMENTATION}
    factories |= {f"timm.{name}": partial(_timm, name) for name in TIMM}
    factories |= {f"transformers.{name}": partial(_transformers, name) for name in TRANSFORMERS}
    settings = grid(["dynamo"], PRECISIONS, [1])
    wrapped = (
        {name: partial(_conditioned, factory) for name, factory in factories.items()} if conditioned else factories
    )
    return [Model(name, factory, settings) for name, factory in wrapped.items()]


def _conditioned(factory: Callable[..., Any], batch: int) -> tuple[Any, Any]:
    import torch

    from .random_weights import condition

    torch.manual_seed(SEED)
    module, inputs = factory(batch)
    if inputs.is_floating_point():
        condition(module, torch.randn(2, *inputs.shape[1:]))
        inputs = torch.randn(inputs.shape)
    return module, inputs


def unavailable(name: str) -> str:
    """Return why a model of the zoo can't be made here: its package is not installed. Else the empty string."""
    package = name.partition(".")[0] if "." in name else "torchvision"
    return "" if importlib.util.find_spec(package) else f"{package} is not installed: pip install {package}"


def _torchvision(name: str, batch: int) -> tuple[Any, Any]:
    import torch
    import torchvision

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **options).eval(), torch.zeros(batch, *IMAGE)


def _segmentation(name: str, batch: int) -> tuple[Any, Any]:
    import torch
    import torchvision

    module = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    return module.eval(), torch.zeros(batch, *IMAGE)


def _timm(name: str, batch: int) -> tuple[Any, Any]:
    import timm
    import torch

    module = timm.create_model(name, pretrained=False)
    return module.eval(), torch.zeros(batch, *module.default_cfg["input_size"])


def _transformers(name: str, batch: int) -> tuple[Any, Any]:
    import torch
    import transformers

    prefix = TRANSFORMERS[name]
    config = getattr(transformers, f"{prefix}Config")()
    config.use_cache = False
    config.return_dict = False
    module = getattr(transformers, f"{prefix}Model")(config)
    return module.eval(), torch.ones(batch, TOKENS, dtype=torch.int64)
