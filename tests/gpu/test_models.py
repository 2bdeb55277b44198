"""Models that people ship, as a user gates them: recorded, unchanged, and red with twice as many layers.

Keyword arguments and output classes of transformers and diffusers, dicts, a model of two parts with a cache that is
passed along, a dynamic sequence length at three shapes, and a callable that the suite compiled itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtgate.torch_trt import releases

from .conftest import Run

HEAD = """
import os

import torch
import trtgate

DEPTH = int(os.environ.get("DEPTH", "2"))
GATED = {"frontends": ("dynamo",), "precisions": ("fp16",), "min_block_size": 1}
"""
BERT = """

@trtgate.model(**GATED)
def bert():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "vocab_size": 500}
    ids = torch.randint(0, 500, (1, 64))
    module = BertModel(BertConfig(num_hidden_layers=DEPTH, **sizes)).eval()
    return module, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
"""
UNET = """

@trtgate.model(tolerances={"output[0]": 0.06}, **GATED)  # random weights, four layers a block: 0.031 off in fp16
def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    module = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=DEPTH, cross_attention_dim=32, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
    )
    return module.eval(), (torch.randn(1, 4, 16, 16), torch.tensor([7.0])), {
        "encoder_hidden_states": torch.randn(1, 8, 32), "return_dict": False,
    }
"""
LAYER = """

class Layer(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)

    def forward(self, x, past=None, mask=None):
        q, k, v = self.qkv(x).chunk(3, -1)
        if past is not None:
            k, v = torch.cat([past["k"], k], 1), torch.cat([past["v"], v], 1)
        scores = q @ k.transpose(1, 2) / 8
        if mask is not None:
            scores = scores + mask
        return torch.relu(x + self.out(torch.softmax(scores, -1) @ v)), {"k": k, "v": v}
"""
PARTS = """

class Decoder(torch.nn.Module):
    def __init__(self, depth, width=128):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(100, width), torch.nn.Linear(width, 100)
        self.layers = torch.nn.ModuleList([Layer(width) for _ in range(depth)])

    def forward(self, ids, *, cache=None, mask=None):
        x, caches = self.embed(ids), []
        for number, layer in enumerate(self.layers):
            x, made = layer(x, None if cache is None else cache[number], mask)
            caches.append(made)
        return {"logits": self.head(x), "cache": caches}


@trtgate.model(parts=("prefill", "decode"), **GATED)
def lm():
    torch.manual_seed(0)
    module = Decoder(2 * DEPTH).eval()
    mask = torch.full((32, 32), -1e4).triu(1)
    cache = [{name: torch.randn(1, 32, 128) for name in "kv"} for _ in range(2 * DEPTH)]
    return {
        "prefill": (module, (torch.arange(32)[None],), {"mask": mask}),
        "decode": (module, (torch.tensor([[3]]),), {"cache": cache}),
    }
"""
SHAPES = """

def tokens(batch, seq):
    return torch.linspace(-1, 1, batch * seq * 64).reshape(batch, seq, 64)


@trtgate.model(inputs=tokens, dynamic={"seq": (16, 64, 256)}, at=[{"seq": size} for size in (16, 64, 256)], **GATED)
def encoder():
    torch.manual_seed(0)

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([Layer(64) for _ in range(2 * DEPTH)])

        def forward(self, x):
            for layer in self.layers:
                x, _ = layer(x)
            return x

    return Encoder().eval()
"""
RECOMMENDER = """

class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.user, self.item = torch.nn.Linear(12, 64), torch.nn.Linear(7, 64)
        layers = [layer for _ in range(4 * DEPTH) for layer in (torch.nn.Linear(128, 128), torch.nn.ReLU())]
        self.head = torch.nn.Sequential(*layers, torch.nn.Linear(128, 4))

    def forward(self, features, *, scale=1.0):
        both = torch.cat([self.user(features["user"]), self.item(features["item"]).expand(8, -1)], 1)
        return {"score": self.head(both) * scale}


@trtgate.model(**GATED)
def recommender():
    torch.manual_seed(0)
    return Tower().eval(), ({"user": torch.randn(8, 12), "item": torch.randn(1, 7)},), {"scale": 0.5}
"""
OWN = """

def compile_for_prod(module):
    import torch_tensorrt  # noqa: F401 - registers the backend

    return torch.compile(module, backend="torch_tensorrt", options={"min_block_size": 1}, dynamic=False)


@trtgate.model(frontends=("own",), needs_gpu=True)
def prod():
    torch.manual_seed(0)
    layers = [layer for _ in range(6 * DEPTH) for layer in (torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU())]
    module = torch.nn.Sequential(*layers).eval().half().cuda()
    return trtgate.Compiled(compile_for_prod(module), reference=module), torch.randn(1, 32, 32, 32).half().cuda()
"""
MODELS = {
    "transformers": (BERT, ["bert-dynamo-fp16-mbs1"]),
    "diffusers": (UNET, ["unet-dynamo-fp16-mbs1"]),
    "parts": (LAYER + PARTS, ["lm.prefill-dynamo-fp16-mbs1", "lm.decode-dynamo-fp16-mbs1"]),
    "shapes": (LAYER + SHAPES, [f"encoder-dynamo-fp16-b1-seq16..64..256@{size}-mbs1" for size in (16, 64, 256)]),
    "recommender": (RECOMMENDER, ["recommender-dynamo-fp16-mbs1"]),
    "own": (OWN, ["prod-own-as_is"]),
}
"""Their source and cases; the first two need the package of that name."""
LATENCY = ("suite_of_mine.py", "-m", "trtgate_latency")


def verdicts(folder: Path) -> dict[str, str]:
    newest = sorted((folder / ".trtgate" / "runs").glob("*.json"))[-1]
    entries = [entry["extra_info"]["trtgate"] for entry in json.loads(newest.read_text())["benchmarks"]]
    return {entry["case"]: entry["verdict"] for entry in entries}


@pytest.mark.parametrize("kind", MODELS)
def test_they_record_compare_unchanged_and_turn_red(gate_run: Run, tmp_path: Path, kind: str) -> None:
    source, cases = MODELS[kind]
    if kind in ("transformers", "diffusers"):
        pytest.importorskip(kind)
    if kind == "diffusers" and releases.version().startswith("2.11"):
        pytest.skip("TensorRT-RTX 1.4 gives no execution context for the UNet's engine")
    (tmp_path / "suite_of_mine.py").write_text(HEAD + source)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite_of_mine.py\ntrtgate_require = gpu\n")

    recorded = gate_run(*LATENCY, "--trtgate-update-baselines", "--trtgate-launches=3")
    assert recorded.returncode == 0
    (baseline,) = (tmp_path / "baselines").glob("*/latency.json")
    entries = json.loads(baseline.read_text())["benchmarks"]
    assert sorted(entry["extra_info"]["trtgate"]["case"] for entry in entries) == sorted(cases)

    same = gate_run(*LATENCY, "--benchmark-compare", "--trtgate-require=gpu,baseline")
    found = verdicts(tmp_path)
    print(found)
    assert same.returncode == 0
    assert found.keys() == set(cases)
    assert set(found.values()) <= {"unchanged", "underpowered"}  # one session of a small model may say no more

    slower = gate_run(*LATENCY, "--benchmark-compare", DEPTH="4")
    assert slower.returncode == 1
    assert verdicts(tmp_path) == dict.fromkeys(cases, "regressed")
