"""The gate over shapes, as a user runs it: each is a case with a limit of its own, and what takes all is built once."""

from __future__ import annotations

import json
from typing import Any

from .suites import STORING

SIZED = (
    STORING
    + """

@trtgate.model(
    frontends=("aot_eager", "eager"), precisions=("fp32",), dynamic={"seq": (2, 4, 8)},
    at=[{"seq": 2}, {"seq": 4}, {"seq": 8, "limits": {"host": "400%"}}],
)
def sized(batch, seq):
    import torch

    def forward(x):
        if not torch.compiler.is_exporting():
            pause(float(os.environ.get("MS", "1")) * x.shape[1] / 1000)
        return x * 2

    return made(forward, torch.ones(batch, seq, 8))
"""
)
DYNAMIC = [f"sized-aot_eager-fp32-b1-seq2..4..8@{seq}" for seq in (2, 4, 8)]
STATIC = [f"sized-eager-fp32-b1-seq{seq}" for seq in (2, 4, 8)]


def test_shapes_are_recorded_and_judged_each_by_itself_and_built_once(folder: Any, forked_with_tensorrt: None) -> None:
    """Its processes export: those that have imported torch_tensorrt have imported torch.export with it."""
    folder.suite(more=SIZED)
    recorded = folder.gate("--trtgate-update-baselines", "--trtgate-prebuild=2", "--trtgate-no-cache")
    assert recorded.ret == 0
    assert folder.saved_cases() == {*DYNAMIC, *STATIC}
    (baseline,) = folder.path.glob("baselines/*/latency.json")
    entries = json.loads(baseline.read_text())["benchmarks"]
    records = {entry["extra_info"]["trtgate"]["case"]: entry["extra_info"]["trtgate"] for entry in entries}
    assert records[DYNAMIC[2]]["settings"]["dynamic"] == {"seq": [[2, 4, 8]]}
    assert records[DYNAMIC[2]]["settings"]["limits"] == {"host": 4.0}
    assert len((folder.path / "builds.txt").read_text().splitlines()) == 1

    slower = folder.gate(
        "--benchmark-compare", "--trtgate-shapes=seq=4,seq=8", "-k", "eager-fp32-b1-seq and eager", MS=3
    )
    output = folder.output_of(slower)
    assert slower.ret == 1
    assert f"{STATIC[1]} is slower" in output
    assert f"{STATIC[2]} is slower" not in output  # its own limit takes it
    assert STATIC[0] not in output
    assert "not stored" not in output  # nothing was going to be
    assert len((folder.path / "builds.txt").read_text().splitlines()) == 2  # one more, for two shapes


def test_a_shape_that_is_no_shape_is_refused_at_once(folder: Any) -> None:
    folder.suite(more=SIZED)
    folder.refused(folder.gate("--trtgate-shapes=seq8"), "--trtgate-shapes 'seq8'", "write DIMENSION=SIZE")
    folder.refused(folder.gate("--trtgate-shapes=sek=8"), "unknown dimension 'sek'", "did you mean 'seq'")
