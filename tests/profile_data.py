"""Recorded data of profiles, as the tests use them; `tests/data/README.md` says where each is from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec

from trtgate.common.accelerator import Accelerator
from trtgate.profiles.attribution import attribute
from trtgate.profiles.engine_information import in_order, layers_of
from trtgate.profiles.layer_times import timed
from trtgate.records.profile_record import TENSORRT, Layer, Part, Profile, Tensor

DATA = Path(__file__).parent / "data"
H100 = Accelerator(kind="gpu", name="NVIDIA H100 80GB HBM3", memory_bytes=85_520_809_984, uuid="GPU-1", driver="580.1")
WARM = 3
"""The first calls of the recorded ones were cold."""


def resnet18_information() -> dict[str, Any]:
    """What the inspector says of resnet18's engine."""
    found: dict[str, Any] = json.loads((DATA / "h100_resnet18_engine_information.json").read_text())
    return found


def operators(name: str) -> Part:
    """A part without layers: `resnet18` or `vit_two_blocks`."""
    return msgspec.json.decode((DATA / f"{name}_operators.json").read_bytes(), type=Part)


def resnet18_part() -> Part:
    """resnet18's engine as recorded, timed and attributed."""
    part = operators("resnet18")
    times_us = {
        name: [ms * 1e3 for ms in times]
        for name, times in json.loads((DATA / "h100_resnet18_layer_times_ms.json").read_text()).items()
    }
    part.layers = in_order(layers_of(resnet18_information()), times_us)
    timed(part, [times[WARM:] for times in times_us.values()])
    part.engine_bytes, part.verbosity = 24_000_000, "detailed"
    attribute(part)
    return part


def resnet18_profile() -> Profile:
    """The profile of it; its device latency is that of the same card."""
    return Profile(
        case_id="resnet18-dynamo-fp16-b1-mbs5", accelerator=H100, recorded="2026-01-01T00:00:00+00:00", runtime="own",
        calls=17, parts=[resnet18_part()], device_us=182.3, clock="cuda_graph",
    )  # fmt: skip


def recorded(name: str) -> Profile:
    """A profile as it was recorded, its engines attributed anew; `name` is the file's without `h100_` and ending."""
    path = DATA / f"h100_{name}.json"
    raw = path.read_bytes() if path.exists() else gzip.decompress(path.with_suffix(".json.gz").read_bytes())
    profile = msgspec.json.decode(raw, type=Profile)
    for part, layer in profile.layers():
        if part.kind == TENSORRT:
            layer.sources, layer.modules, layer.evidence = [], [], ""
    for part in profile.parts:
        if part.kind == TENSORRT:
            attribute(part)
    return profile


def vit_part() -> Part:
    """A vision transformer of two blocks, its graph real; the engine is made up as TensorRT is known to fuse."""
    part = operators("vit_two_blocks")
    layers: list[Layer] = []

    def layer(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        layers.append(Layer(name=f"{name}_myl0_{len(layers)}", type="kgen", inputs=inputs, outputs=outputs))

    image, padded, patches = _tensor("x", 1, 3, 224, 224), _tensor("p", 1, 4, 224, 224), _tensor("c", 1, 768, 14, 14)
    layer("__myl_MoveConc", [image], [padded])
    layer("__myl_CorrAdd", [padded], [patches])
    stream, normed = _tensor("s", 1, 197, 768), _tensor("n", 1, 197, 768)
    layer("__myl_ReshTranConcAddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd", [patches], [stream, normed])
    for block in range(2):
        stream, normed = _block(layer, block, stream, normed)
    last = _tensor("last", 1, 768)
    layer("__myl_Slic", [normed], [last])
    layer("__myl_FcAdd", [last], [_tensor("output0", 1, 1000)])
    part.layers = layers
    return part


def _block(layer: Any, block: int, stream: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
    def wide(name: str, *shape: int) -> Tensor:
        return _tensor(f"{name}{block}", *(shape or (1, 197, 768)))

    joined, heads, out = wide("qkv", 197, 2304), wide("heads", 1, 12, 197, 64), wide("out", 197, 768)
    layer("__myl_FcAdd", [normed], [joined])
    taken = [wide(letter, 197, 768) for letter in "qkv"]
    for tensor in taken:
        layer("__myl_TranReshMove", [joined], [tensor])
    layer("_gemm_mha_v2", taken, [heads])
    layer("__myl_TranReshMove", [heads], [out])
    projected, added, second = wide("projected", 197, 768), wide("added"), wide("second")
    layer("__myl_FcAdd", [out], [projected])
    layer("__myl_ReshTranAddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd", [projected, stream], [added, second])
    hidden, down = wide("hidden", 1, 197, 3072), wide("down")
    layer("__myl_FcAddMulCasErfCasAddMulMul", [second], [hidden])
    layer("__myl_FcAdd", [hidden], [down])
    following, next_normed = wide("following"), wide("next")
    outputs = [following, next_normed] if block == 0 else [next_normed]
    layer("__myl_AddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd", [down, added], outputs)
    return following, next_normed


def _tensor(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, shape=list(shape), dtype="float16", format="Half")
