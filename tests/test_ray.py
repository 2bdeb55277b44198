"""A run on a real Ray cluster of two local nodes: the verdicts of one machine, and what goes wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from trtgate.cli import app
from trtgate.commands import doctor_cluster
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.fleet import ray_cluster, ray_join
from trtgate.fleet import ray_nodes as nodes
from trtgate.fleet.ray_cluster import LackingError
from trtgate.fleet.ray_messages import Facts
from trtgate.pytest_plugin import kinds

from . import ray_nodes

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ray_nodes.LocalCluster]:
    pytest.importorskip("ray")
    made = ray_nodes.LocalCluster(tmp_path_factory.mktemp("nodes"))
    yield made
    made.close()


SECRET = "assert 'A_SECRET' not in os.environ, 'the secret travelled'"


def outcome_lines(run: pytest.RunResult) -> list[str]:
    """Return the lines of the table of cases: id, latency, baseline, verdict."""
    return sorted(line for line in run.outlines if "-eager-fp32-b1 " in line and "ms" in line and "test_" not in line)


HEAD_WITHOUT_TENSORRT = """
import sys
from importlib import metadata

NAMES = ("torch_tensorrt", "tensorrt")

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(NAMES):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def distribution(name, before=metadata.distribution):
    if name.replace("-", "_").startswith(NAMES):
        raise metadata.PackageNotFoundError(name)
    return before(name)

sys.meta_path.insert(0, Missing())
metadata.distribution = distribution
"""
"""A plugin of the pytest process alone: there is no torch_tensorrt and no TensorRT for it."""


@pytest.fixture
def head_without_tensorrt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a run that can load the plugin `no_tensorrt`, which no node gets."""
    elsewhere = tmp_path_factory.mktemp("head")
    (elsewhere / "no_tensorrt.py").write_text(HEAD_WITHOUT_TENSORRT)
    return {"PYTHONPATH": os.pathsep.join([str(elsewhere), *filter(None, [os.environ.get("PYTHONPATH", "")])])}


def test_two_nodes_give_the_verdicts_of_one_machine_and_get_no_secret(
    cluster: Any, folder: Any, head_without_tensorrt: dict[str, str]
) -> None:
    statements = {"alpha": "pause(0.06)", "beta": "pause(0.002)", "careful": SECRET}
    statements["dies"] = "os._exit(7) if measuring() else None"
    folder.suite(**statements)
    folder.baseline("alpha", "beta")
    options = ("--benchmark-compare",)
    here = folder.gate(*options)
    at_cluster = ("-p", "no_tensorrt", "--trtgate-prebuild=2", f"--trtgate-ray={cluster.address}")
    there = folder.gate(*options, *at_cluster, A_SECRET="hush", **head_without_tensorrt)
    output = folder.output_of(there)
    assert there.ret == here.ret == 1
    assert there.parseoutcomes() == here.parseoutcomes()
    assert outcome_lines(there) == outcome_lines(here) != []
    assert f"on 2 nodes of the Ray cluster at {cluster.address}" in output
    assert "alpha-eager-fp32-b1 is slower: host latency" in output
    assert re.search(r"dies-eager-fp32-b1: (loading|measuring): the worker ended with exit code 7", output)
    assert "careful-eager-fp32-b1" in output
    assert "the secret travelled" not in output
    ray_nodes.wait_until(lambda: cluster.actors() == [])


@pytest.mark.whole_cluster
def test_cases_of_a_node_that_is_lost_go_elsewhere_and_each_has_one_result(cluster: Any, folder: Any) -> None:
    lost = cluster.add()
    go = folder.path / "go"
    names = ("one", "two", "three", "four", "five")
    hangs = {name: hanging(folder.path / f"at-{name}", go) for name in names}
    folder.suite(**hangs)
    run = folder.start(
        f"--trtgate-ray={cluster.address}", "--trtgate-launches=1", "-m", "trtgate_latency", "-v",
    )  # fmt: skip
    ray_nodes.wait_until(lambda: len(list(folder.path.glob("at-*"))) >= 3)  # three nodes are at work
    cluster.kill(lost, known=False)  # the run is to find out by itself
    go.touch()
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert "5 passed" in output
    assert re.search(
        rf"WARNING: .*node {lost.node_id[:8]}\) is lost: .*: cases of a lost device went to others", output
    )
    (file,) = folder.path.glob(".trtgate/runs/*.json")
    with folder.edited(file) as document:
        assert sorted(one["extra_info"]["trtgate"]["case"].split("-")[0] for one in document["benchmarks"]) == sorted(
            names
        )


def hanging(file: Path, go: Path) -> str:
    """Return a statement that says when a worker is at it, and waits until another file is there."""
    waits = f"while not os.path.exists({str(go)!r}): time.sleep(0.05)"
    return f"exec({f'open({str(file)!r}, chr(97)).close()' + chr(10) + waits!r}) if IN_WORKER else None"


@pytest.mark.whole_cluster
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_no_actor_is_left_behind(cluster: Any, folder: Any, sent: signal.Signals) -> None:
    folder.suite(alpha=hanging(folder.path / "at-alpha", folder.path / "never"))
    run = folder.start(f"--trtgate-ray={cluster.address}", "--trtgate-launches=1", "-m", "trtgate_latency")
    ray_nodes.wait_until((folder.path / "at-alpha").exists)
    assert cluster.actors() != []
    run.send_signal(sent)
    output, _ = run.communicate(timeout=60)
    ray_nodes.wait_until(lambda: cluster.actors() == [])
    assert run.returncode == (pytest.ExitCode.INTERRUPTED if sent is signal.SIGINT else -signal.SIGKILL), output


@pytest.fixture
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ray_nodes.LocalCluster]:
    """A cluster of one node for one test, made before that test has a folder for temporary files."""
    made = ray_nodes.LocalCluster(tmp_path_factory.mktemp("own"), nodes=1)
    yield made
    made.close()


@pytest.mark.whole_cluster
def test_a_run_whose_head_is_gone_says_so_and_ends(own_cluster: Any, folder: Any) -> None:
    """Ray itself would end the pytest process after a minute, without a word."""
    folder.suite(alpha=hanging(folder.path / "at-alpha", folder.path / "never"))
    address = own_cluster.address
    run = folder.start(f"--trtgate-ray={address}", "--trtgate-launches=1", "-m", "trtgate_latency")
    ray_nodes.wait_until((folder.path / "at-alpha").exists)
    own_cluster.kill_head()
    output, _ = run.communicate(timeout=120)
    ray_nodes.wait_until(lambda: own_cluster.actors() == [])
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, output
    assert f"is lost: the head of the Ray cluster at {address} is gone; no card is left" in output
    assert "Traceback" not in output


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trtgate-ray",), ("names no cluster", "RAY_ADDRESS")),
        (("--trtgate-ray=auto",), ("--trtgate-ray=auto", "no cluster is looked for")),
        (("--trtgate-ray=ray://head:10001",), ("Ray's client is not used",)),
        (("--trtgate-ray=127.0.0.1:1",), ("there is no Ray cluster at 127.0.0.1:1", "refused")),
        (("--trtgate-ray=127.0.0.1:1", "-n2"), ("--trtgate-ray", "drop -n")),
        (("--trtgate-ray=127.0.0.1:1", "--trtgate-gpus=all"), ("--trtgate-gpus", "drop one")),
        (("--trtgate-ray=127.0.0.1:1", "--trtgate-base=HEAD"), ("--trtgate-ray", "a base", "drop one")),
        (("--trtgate-accelerators=h100",), ("--trtgate-accelerators", "--trtgate-ray")),
    ],
)
def test_what_can_not_be_is_refused(folder: Any, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    folder.suite("alpha")
    folder.refused(folder.gate(*options), *words)


def test_what_listens_and_is_no_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_join, "PROBE_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(TrtgateError, match=f"what listens at {address} is no Ray cluster"):
            ray_join.joined(address, Path.cwd())


@pytest.mark.parametrize(
    ("here", "words"), [(("1.2.3", "3.11.7"), r"Ray: 1\.2\.3"), ((None, "3.99.1"), r"Python: 3\.99\.1")]
)
def test_a_cluster_of_another_ray_or_python_is_refused_in_a_line(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, here: tuple[str | None, str], words: str
) -> None:
    import ray

    monkeypatch.setattr("ray._private.utils.compute_version_info", lambda: (here[0] or ray.__version__, here[1]))
    with pytest.raises(TrtgateError, match=f"can't be joined: Version mismatch.*{words}") as raised:
        ray_join.joined(cluster.address, None)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_too_large_is_refused_in_a_line(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "weights.bin").write_bytes(os.urandom(6 << 20))
    monkeypatch.setattr("ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE", 4 << 20)
    with pytest.raises(TrtgateError, match=r"can't be joined: .*maximum size.*let git ignore what of"):
        ray_join.joined(cluster.address, tmp_path)


def test_a_cluster_without_the_kind_says_what_it_has_and_one_of_several_asks_which() -> None:
    cpu, l4, h100 = "cpu-xeon-8-cpus", "nvidia-l4-24gib", "nvidia-h100-80gb-hbm3-80gib"
    with pytest.raises(LackingError, match=f"^the Ray cluster at head:1 has no h100 or a100: it has {cpu}, {l4}$"):
        ray_cluster.chosen({cpu, l4}, ["h100", "a100"], "head:1")
    with pytest.raises(TrtgateError, match=f"several kinds of accelerators .{h100}, {l4}.*--trtgate-accelerators"):
        ray_cluster.chosen({cpu, l4, h100}, [], "head:1")
    assert ray_cluster.chosen({cpu, l4}, [], "head:1") == l4
    assert ray_cluster.chosen({cpu}, [], "head:1") == cpu


@pytest.mark.parametrize(
    ("name", "key", "found"),
    [
        ("h100", "nvidia-h100-80gb-hbm3-80gib", True),
        ("H100 80GB", "nvidia-h100-80gb-hbm3-80gib", True),
        ("h10", "nvidia-h100-80gb-hbm3-80gib", False),
        ("l4", "nvidia-l40s-48gib", False),
        ("", "nvidia-l4-24gib", False),
        ("nvidia-l4-24gib", "nvidia-l4-24gib", True),
    ],
)
def test_a_kind_is_named_by_whole_words_of_its_key(name: str, key: str, found: bool) -> None:
    assert nodes.is_kind(key, name) is found


CONVOLUTION = """

@trtgate.model(frontends=("dynamo",), precisions=("fp32",))
def conv(batch):
    import torch

    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval(), torch.ones(batch, 3, 8, 8)
"""


@pytest.mark.whole_cluster
def test_coverage_is_asked_by_tasks_and_then_the_devices_measure_for_a_head_without_torch_tensorrt(
    cluster: Any, folder: Any, head_without_tensorrt: dict[str, str]
) -> None:
    folder.suite("alpha", more=CONVOLUTION)
    run = folder.gate("-p", "no_tensorrt", f"--trtgate-ray={cluster.address}", **head_without_tensorrt)
    output = folder.output_of(run)
    assert run.ret == 0, output
    assert "coverage of 1 case asked on 2 nodes" in output
    run.assert_outcomes(passed=3, skipped=3)  # what of the other needs a GPU
    run.stdout.re_match_lines([r"conv-dynamo-fp32-b1-mbs5 +0 of 2 +0 +new"])
    assert folder.saved_cases() == {"alpha-eager-fp32-b1"}


@pytest.mark.whole_cluster
def test_a_node_without_a_package_is_named_and_left_out(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise ModuleNotFoundError(\"No module named 'msgspec'\")")
    node = cluster.add(PYTHONPATH=str(tmp_path))
    joined = nodes.Nodes(cluster.address, None)
    found, problems = joined.facts(), joined.problems
    joined.close()
    cluster.kill(node)
    assert len(found) == 2
    (said,) = problems
    assert node.node_id[:8] in said
    assert said.endswith("ModuleNotFoundError: No module named 'msgspec'")


# GPUs that NVML describes and nobody can use: which actor has which

FAKE_NVML = """
import os

class NVMLError(Exception): pass
class NVMLError_LibraryNotFound(NVMLError): pass
class NVMLError_DriverNotLoaded(NVMLError): pass

NVML_DEVICE_MIG_ENABLE, NVML_CLOCK_SM = 1, 1

def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(number): return number
def nvmlDeviceGetHandleByUUID(name): return int(name[-1])
def nvmlDeviceGetName(handle): return "NVIDIA H100 80GB HBM3"
def nvmlDeviceGetUUID(handle): return f"GPU-{handle}"
def nvmlSystemGetDriverVersion(): return "580.1"
"""
HOLDS_A_GPU = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_gpus=1)
class Holder:
    def has(self): return True

holder = Holder.remote()
assert ray.get(holder.has.remote(), timeout=60)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def two_gpus(cluster: Any, tmp_path: Path) -> Iterator[Any]:
    """A node whose NVML describes two GPUs of one kind."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "pynvml.py").write_text(FAKE_NVML)
    node = cluster.add(gpus=2, PYTHONPATH=str(tmp_path / "fake"))
    yield node
    cluster.kill(node)


@pytest.mark.whole_cluster
def test_each_gpu_of_a_node_has_an_actor_and_one_that_another_job_holds_is_named(
    cluster: Any, two_gpus: Any, tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    joined = ray_cluster.Cluster(cluster.address, tmp_path / "root", ["h100"])
    found = [card.facts.accelerator for card in joined.cards]
    joined.close()
    assert sorted(one.uuid for one in found) == ["GPU-0", "GPU-1"]
    assert {one.key for one in found} == {"nvidia-h100-80gb-hbm3-0gib"}
    command = [sys.executable, "-c", HOLDS_A_GPU, cluster.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert "held\n" in holder.stdout.readline()
        joined = ray_cluster.Cluster(cluster.address, tmp_path / "root", ["h100"])
        found = [card.facts.accelerator for card in joined.cards]
        problems = joined.problems
        joined.close()
        holder.kill()
    assert len(found) == 1
    assert [said for said in problems if said.endswith("another job of the cluster holds 1 of 2 GPUs")]


# Several kinds of accelerators, and what trtgate doctor says of them


@pytest.fixture(scope="module")
def other_kind(cluster: Any) -> Iterator[str]:
    """A node more, of one CPU, where the others have all of this machine: another kind. Returns words of its key."""
    here = os.sched_getaffinity(0)
    if len(here) < 2:
        pytest.skip("needs two CPUs")
    os.sched_setaffinity(0, {min(here)})
    try:
        node = cluster.add()
    finally:
        os.sched_setaffinity(0, here)
    yield "1 cpus"
    cluster.kill(node)


@pytest.mark.whole_cluster
def test_several_kinds_have_a_table_each_and_what_is_lacking_is_red_where_it_is_required(
    cluster: Any, other_kind: str, folder: Any
) -> None:
    folder.suite("alpha")
    folder.baseline("alpha")
    both = f"{other_kind.replace(' ', '-')},{len(os.sched_getaffinity(0))}-cpus"
    run = folder.gate(
        "--benchmark-compare", f"--trtgate-ray={cluster.address}", f"--trtgate-accelerators={both},h100",
        "--trtgate-require=gpu", "--trtgate-report=report.json", "-m", "trtgate_latency",
    )  # fmt: skip
    output = folder.output_of(run)
    assert run.ret == 1
    assert output.count("===== cpu-") == 2
    assert "1 case: 1 new" in output  # nothing is stored of the other kind
    assert "has no h100, so that nothing was measured on it: it has cpu-" in output
    assert len(list(folder.path.glob("report-cpu-*-cpus.json"))) == 2
    assert len(list(folder.path.glob(".trtgate/runs/*-cpu-*.json"))) == 2
    ray_nodes.wait_until(lambda: cluster.actors() == [])


def test_doctor_names_nodes_and_devices(cluster: Any) -> None:
    done = CliRunner().invoke(app, ["doctor", "--ray", cluster.address])
    assert done.exit_code == 0, done.output
    assert f"Ray cluster at {cluster.address}" in done.output
    assert [node.node_id[:8] for node in cluster.nodes() if node.node_id[:8] not in done.output] == []
    assert "Nothing is broken, and devices of a kind are alike." in done.output


def test_doctor_tells_apart_what_can_not_be_compared() -> None:
    card = Accelerator(
        kind="gpu", name="NVIDIA L4", memory_bytes=24 << 30, driver="580.1", libraries={"torch": "2.14.0"}
    )
    replace = msgspec.structs.replace
    cards = [
        replace(card, uuid="GPU-1"), replace(card, uuid="GPU-2"),
        replace(card, uuid="GPU-3", driver="575.9", libraries={"torch": "2.13.0"}),
    ]  # fmt: skip
    found = [Facts(host=f"h{n}", node=f"node{n}", accelerator=one, python="3.12.1") for n, one in enumerate(cards)]
    said = doctor_cluster.problems_of(found, {"node0": 1, "node1": 4, "node2": 1})
    assert said == [
        "nvidia-l4-24gib: h0 (GPU-1, node node0) and h2 (GPU-3, node node2) differ, and are not measured in one run: "
        "driver 580.1 / 575.9, torch 2.14.0 / 2.13.0",
        "h1 (node node1): Ray counts 4 GPUs, and NVML sees 1",
    ]


def test_nodes_with_another_python_or_library_are_not_measured_in_one_run() -> None:
    card = Accelerator(kind="gpu", name="NVIDIA L4", uuid="GPU-1", libraries={"torch": "2.14.0"})
    one = Facts(host="a", node="0", accelerator=card, python="3.12.1")
    other = msgspec.structs.replace(one, host="b", python="3.11.7")
    with pytest.raises(TrtgateError, match=r"a \(GPU-1, node 0\) and b .* differ \(Python 3\.12\.1 / 3\.11\.7\)"):
        ray_cluster.check_alike([one, one, other])
    ray_cluster.check_alike([one, one])


def test_each_run_of_a_kind_gets_files_of_its_own() -> None:
    given = ["suite", "--trtgate-accelerators", "a,b", "--trtgate-report=out/r.json", "--junit-xml", "j.xml", "-v"]
    assert kinds.of_kind(given, "key") == [
        "--trtgate-accelerators=key", "suite", "--trtgate-report=out/r-key.json", "--junit-xml", "j-key.xml", "-v",
    ]  # fmt: skip
