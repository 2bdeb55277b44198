"""Which states a GPU has that move the latency of a CUDA graph, what brings them about, and how a clock can tell them.

    python studies/states.py                    in two minutes, with torch alone: streams, others, nodes, decay, warmup
    python studies/states.py --full             all sections, with Torch-TensorRT: half an hour on an H100
    python studies/states.py pairs server …     these sections alone
    python studies/states.py --tables FILE      the tables of what was written by `--json FILE`

Sections:
    streams   replay on several streams, after another stream did something; CUDA_DEVICE_MAX_CONNECTIONS
    others    another process: absent, idle, active before, active meanwhile
    nodes     what a node of a graph costs, by number and length of its kernels
    decay     how long a state lasts without use
    warmup    how long a graph takes to its plateau after idling and after bursts
    engines   auxiliary streams, and loading an engine beside a replay, in this process and in another
    launches  processes of one build taking turns: today's clock, one stream for all, several streams on purpose
    loads     the same builds loaded again and again, in random order, in a few processes: what a load deals out
    weights   whether the place of weights in memory sets the level of a process, of models in eager PyTorch
    pairs     what a partner does to the other side of a pair
    turns     whether a turn of `trtgate ab` sees that: a model beside itself and beside matrix products
    server    in which state a loop of plain calls leaves the GPU

Conditions are taken in random order. `±` is the half width of a 95 % interval of the mean (Student's t); standard
deviations come with their 95 % interval (chi-squared). docs/gpu-states.md says what was found. Needs a GPU that nothing
else uses. Longer than other files: one function a section.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import states_tables
from gpu_process import PROBE, PROBE_NODES, Remote, gate_states, remotes

MODELS = {
    "resnet18": "resnet18-dynamo-fp16-b1-mbs5",
    "regnet_y_400mf": "regnet_y_400mf-dynamo-fp16-b1-mbs5",
    "vit_b_16": "vit_b_16-dynamo-fp32-b1-mbs5",
    "mobilenet_v3_large": "mobilenet_v3_large-dynamo-fp16-b8-mbs5",
}
REGNET, VIT = MODELS["regnet_y_400mf"], MODELS["vit_b_16"]
IN_EAGER = ("mobilenet_v3_large-eager-fp32-b1", "resnet18-eager-fp16-b1")
WITHOUT_AUXILIARY = "-max_aux_streams=0"
RESET_S = 0.01
"""How long another process works to bring the GPU back into the state that it has after a context switch."""
TURN_S = 0.3
"""About as long as a turn of a pair takes."""
SPIN_MHZ = 1980
"""Only turns wanted microseconds into cycles."""


class Study:
    """What the sections share: how much to do, a partner process, and the builds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.full: bool = options.full
        self.repeats: int = options.repeats
        self.processes: int = options.processes
        self.folder = Path(options.builds or tempfile.mkdtemp(prefix="states-"))
        self.rng = random.Random(options.seed)
        self.builds_s: dict[str, float] = {}

    def shuffled(self, conditions: Sequence[Any]) -> list[Any]:
        """Return each condition `repeats` times, in random order within each round."""
        return [one for _ in range(self.repeats) for one in self.rng.sample(conditions, len(conditions))]

    def built(self, case_ids: Sequence[str]) -> dict[str, str]:
        """Build what is not built yet, all at once; returns the folder of each case."""
        folders = {case_id: self.folder / case_id for case_id in case_ids}
        missing = [case_id for case_id, folder in folders.items() if not (folder / "built").exists()]
        builders = [Remote() for _ in missing]
        for builder, case_id in zip(builders, missing, strict=True):
            folders[case_id].mkdir(parents=True, exist_ok=True)
            builder.send("build", case_id=case_id, folder=str(folders[case_id]))
        for builder, case_id in zip(builders, missing, strict=True):
            self.builds_s[case_id] = builder.receive()
            (folders[case_id] / "built").touch()
            builder.close()
        return {case_id: str(folder) for case_id, folder in folders.items()}


@contextlib.contextmanager
def processes(count: int, **options: Any) -> Iterator[list[Remote]]:
    """Within: so many processes, each with the probe; ended afterwards."""
    with remotes(count, **options) as made:
        for remote in made:
            remote.send("chain", name=PROBE, nodes=PROBE_NODES)
        for remote in made:
            remote.receive()
        yield made


@contextlib.contextmanager
def measured_and_partner(**options: Any) -> Iterator[tuple[Remote, Remote]]:
    """Within: a process that is measured, and another that can take the GPU from it."""
    with processes(1, **options) as (measured,), processes(1) as (partner,):
        yield measured, partner


def reset(partner: Remote) -> None:
    """Let another process use the GPU for a moment: a context switch."""
    partner.ask("work", seconds=RESET_S)


STREAMS = ("default", "own", "capture")
TOUCHES = (
    ("nothing", 0), ("event", 0), ("copy", 0), ("kernels", 1), ("kernels", 2), ("kernels", 4), ("kernels", 10),
    ("kernels", 400),
)  # fmt: skip


def streams(study: Study) -> Iterator[dict[str, Any]]:
    """Replay on each stream before and after another stream did something; the state is reset before each trial."""
    for connections in (None, 1, 8, 32) if study.full else (None, 1):
        conditions: list[Any] = [(stream, touch) for stream in STREAMS for touch in TOUCHES]
        if connections is not None:
            conditions = [(stream, touch) for stream in STREAMS[:2] for touch in (TOUCHES[0], TOUCHES[3], TOUCHES[-1])]
        with measured_and_partner(connections=connections) as (measured, partner):
            for stream, (what, count) in study.shuffled(conditions):
                reset(partner)
                before, after = measured.ask(
                    "after_touch", stream=stream, what=what, count=count, name=PROBE, seconds=0.04
                )
                yield {"connections": connections, "stream": stream, "touch": what, "count": count, "before": before,
                     "after": after}  # fmt: skip


def others(study: Study) -> Iterator[dict[str, Any]]:
    """Let another stream make the graphs slow, then see what another process changes about that."""
    with processes(1) as (measured,):
        graphs = [PROBE, "regnet eager", "matmul"]
        measured.ask("eager", name="regnet eager", model="regnet_y_400mf")
        measured.ask("chain", name="matmul", nodes=100, kernel="matmul", size=2048)
        for condition in study.shuffled(("absent", "idle", "before", "meanwhile")):
            with processes(0 if condition == "absent" else 1) as partners:
                measured.ask("touch", count=10)
                if condition == "before":
                    reset(partners[0])
                if condition == "meanwhile":
                    partners[0].send("work_now_and_then", seconds=0.5)
                read = measured.ask("read_all", names=study.rng.sample(graphs, 3), seconds=0.1)
                if condition == "meanwhile":
                    partners[0].receive()
            yield {"condition": condition, **read}


LENGTHS_US, NODES = (1, 5, 20, 50), (50, 100, 200, 400, 800)
ADDED, SQUARES = (10, 14, 18, 20, 22, 24), (256, 512, 1024, 2048)


def nodes(study: Study) -> Iterator[dict[str, Any]]:
    """Read graphs of many kinds in the state after a context switch, and after another stream ran a kernel."""
    lengths, counts = (LENGTHS_US, NODES) if study.full else (LENGTHS_US[:3], NODES[:4])
    with measured_and_partner() as (measured, partner):
        graphs: dict[str, dict[str, Any]] = {
            f"spin {us} {count}": {"kernel": "spin", "size": us * SPIN_MHZ, "nodes": count}
            for us in lengths for count in counts
        }  # fmt: skip
        graphs |= {f"add {2**power} 100": {"kernel": "add", "size": 2**power, "nodes": 100} for power in ADDED}
        graphs |= {f"matmul {size} 100": {"kernel": "matmul", "size": size, "nodes": 100} for size in SQUARES}
        graphs |= {f"tiny 0 {count}": {"kernel": "tiny", "nodes": count} for count in counts}
        for name, graph in graphs.items():
            measured.ask("chain", name=name, **graph)
        for state in study.shuffled(("switched", "touched")):
            reset(partner)
            if state == "touched":
                measured.ask("touch", count=10)
            read = measured.ask("read_all", names=study.rng.sample(list(graphs), len(graphs)), seconds=0.025)
            yield {"state": state, **read}


def decay(study: Study) -> Iterator[dict[str, Any]]:
    """Leave the GPU alone in either state, and read the probe in one block when it is used again."""
    idle_s = (0.01, 1.0) if study.full else (0.01, 0.1)
    states = ("switched", "touched")
    conditions = study.shuffled([(state, idle) for state in states for idle in idle_s])
    if study.full:
        conditions += [(state, 10.0) for state in states] + [("touched", 60.0)]
    with measured_and_partner() as (measured, partner):
        for state, idle in conditions:
            reset(partner)
            if state == "touched":
                measured.ask("touch", count=10)
            before = measured.ask("settled", name=PROBE, seconds=0.15)
            yield {"state": state, "idle_s": idle, "before": before,
                 "after": measured.ask("after_idle", idle_s=idle, name=PROBE)}  # fmt: skip
        for state, settled_s in study.shuffled([("touched", 0.0), ("touched", 0.2), ("switched", 0.0)]):
            reset(partner)
            blocks = measured.ask("after_reset", touched=state == "touched", settled_s=settled_s)
            yield {"state": state, "settled_s": settled_s, "onset": blocks}
        measured.ask("touch", count=10)
        used = measured.ask("blocks", name=PROBE, seconds=10 if study.full else 3)
        yield {"state": "touched", "used": used[:: max(1, len(used) // 200)]}


BEFORE = (
    ("idle", 0.01), ("idle", 0.1), ("idle", 1.0), ("capture", 0.0), ("matmul", 0.3), ("copy", 0.3),
    ("partner", 0.3),
)  # fmt: skip


def warmup(study: Study) -> Iterator[dict[str, Any]]:
    """Replay for a second after idling, after a burst and after a capture, and keep every block."""
    before = BEFORE if study.full else BEFORE[1:5]
    conditions = study.shuffled(before) if study.full else [one for one in before for _ in range(3)]
    conditions += [("idle", 10.0)] * 2 if study.full else []
    with measured_and_partner() as (measured, partner):
        measured.ask("eager", name="regnet eager", model="regnet_y_400mf")
        name = "regnet eager"
        if study.full:
            measured.ask("load", case_id=REGNET, folder=study.built([REGNET])[REGNET])
            measured.ask("capture_loaded", seeds=[1])
            name = "capture 0"
        for what, amount in conditions:
            measured.ask("blocks", name=name, seconds=0.2)
            if what == "partner":
                partner.ask("work", seconds=amount)
            blocks = measured.ask("trajectory", name=name, before=what, amount=amount, seconds=1.2)
            yield {"graph": name, "before": what, "amount": amount, "blocks": blocks}


def engines(study: Study) -> Iterator[dict[str, Any]]:
    """Engines with and without auxiliary streams in both states; loading another engine beside a replay."""
    cases = [REGNET, REGNET + WITHOUT_AUXILIARY, VIT, VIT + WITHOUT_AUXILIARY]
    loaded_aside = MODELS["resnet18"]
    folders = study.built([*cases, loaded_aside])
    for case_id in study.rng.sample(cases, len(cases)):
        with measured_and_partner() as (measured, partner):
            measured.ask("load", case_id=case_id, folder=folders[case_id])
            measured.ask("capture_loaded", seeds=[1, 2, 3, 4], keep=True)
            yield {"case": case_id, "shape": measured.ask("shape", name="capture 0")}
            for state in study.shuffled(("switched", "touched")):
                measured.ask("blocks", name="capture 0", seconds=0.1)
                reset(partner)
                if state == "touched":
                    measured.ask("touch", count=10)
                names = [f"capture {number}" for number in range(4)]
                read = measured.ask("read_all", names=study.rng.sample(names, 4), seconds=0.05)
                yield {"case": case_id, "state": state, **read}
    yield from _loading_beside(study, folders, loaded_aside)


def _loading_beside(study: Study, folders: dict[str, str], aside: str) -> Iterator[dict[str, Any]]:
    with processes(1, one_stream=True) as (measured,), processes(2) as (partner, switching):
        measured.send("load", case_id=REGNET, folder=folders[REGNET])
        partner.ask("load", case_id=aside, folder=folders[aside])
        measured.receive()
        measured.ask("capture_loaded", seeds=[1])
        for where in study.shuffled(("a thread", "a thread, one stream", "another process")):
            reset(switching)
            measured.ask("blocks", name="capture 0", seconds=0.5)
            if where != "another process":
                stream = "own" if where == "a thread, one stream" else "another"
                read = measured.ask(
                    "load_meanwhile", name="capture 0", case_id=aside, folder=folders[aside], seconds=0.3, stream=stream
                )
                yield {"loading": where, "blocks": read}
                continue
            quiet = measured.ask("blocks", name="capture 0", seconds=0.15)
            partner.send("load", case_id=aside, folder=folders[aside])
            busy = measured.ask("blocks", name="capture 0", seconds=1.0)
            took = partner.receive()
            after = measured.ask("blocks", name="capture 0", seconds=0.2)
            blocks = [(t, us, False) for t, us, _ in quiet] + [(t, us, t < took) for t, us, _ in busy]
            yield {"loading": where, "took_s": took, "blocks": blocks + [(t, us, False) for t, us, _ in after]}


TRACED_PROCESSES, TRACED = 4, (VIT, MODELS["resnet18"])
SAME_PLACES, OTHER_PLACES = 4, 4
"""Captures that lie behind the same padding in every process, made first; and others that do not."""


def launches(study: Study) -> Iterator[dict[str, Any]]:
    """Processes of one build take turns with each model, in random order, in batches that the host's memory holds.

    Half of them put everything on one stream. The others are measured by trtgate's clock, and on the plateau with
    another stream touched before each block.
    """
    folders = study.built(list(MODELS.values()))
    batch = min(study.processes, 10)
    for first in range(0, study.processes, batch):
        with processes(batch) as many, processes(batch, one_stream=True) as one:
            everybody = [("many", number, remote) for number, remote in enumerate(many, first)]
            everybody += [("one", number, remote) for number, remote in enumerate(one, first)]
            for case_id in study.rng.sample(list(folders), len(folders)):
                for _, _, remote in everybody:
                    remote.send("load", case_id=case_id, folder=folders[case_id])
                for _, _, remote in everybody:
                    remote.receive()
                for kind, number, remote in study.rng.sample(everybody, len(everybody)):
                    read = _one_launch(study, kind, number, case_id, remote)
                    yield {"case": case_id, "process": number, "streams": kind, **read}


def _one_launch(study: Study, kind: str, number: int, case_id: str, remote: Remote) -> dict[str, Any]:
    read: dict[str, Any] = {}
    seed = study.rng.getrandbits(30)
    if kind == "many":
        read["today"] = remote.ask("today", seed=seed)
    seeds = [*range(SAME_PLACES), *(seed + number for number in range(OTHER_PLACES))]
    read["plateau"] = remote.ask("plateau", seeds=seeds, rounds=3, order=seed, touched=kind == "many")
    if number < TRACED_PROCESSES and case_id in TRACED and study.full:
        read["kernels"] = remote.ask("kernels", name="capture 0")
    return read


def loads(study: Study) -> Iterator[dict[str, Any]]:
    """Load each model again and again in a few processes, in random order, and read what each load gives."""
    folders = study.built(list(MODELS.values()))
    with processes(4, one_stream=True) as loaded:
        before: list[str] = [""] * len(loaded)
        for repeat in range(study.repeats):
            for number, remote in enumerate(loaded):
                for case_id in study.rng.sample(list(folders), len(folders)):
                    remote.ask("load", case_id=case_id, folder=folders[case_id])
                    read = remote.ask("plateau", seeds=[1, 2, 3], rounds=2, order=repeat, touched=False, warm_s=0.3)
                    row = {"case": case_id, "process": number, "repeat": repeat, "after": before[number]}
                    traced = {"kernels": remote.ask("kernels", name="capture 0")} if case_id in TRACED else {}
                    yield {**row, "plateau": read, **traced}
                    before[number] = case_id


def weights(study: Study) -> Iterator[dict[str, Any]]:
    """Time models in a few processes by trtgate's clock, with their weights where they are or copied before."""
    with gate_states() as switcher, processes(4, switcher=switcher) as loaded:
        for case_id in IN_EAGER:
            for remote in loaded:
                remote.send("load", case_id=case_id, folder=None)
            for remote in loaded:
                remote.receive()
            for number in study.shuffled(range(len(loaded))):
                for placed in study.rng.sample(("as before", "anew"), 2):
                    if placed == "anew":
                        loaded[number].ask("place_weights", seed=study.rng.getrandbits(30))
                    read = loaded[number].ask("clocks", seed=study.rng.getrandbits(30), others=False)
                    yield {"case": case_id, "process": number, "placed": placed, "us": read["trtgate"]}


def pairs(study: Study) -> Iterator[dict[str, Any]]:
    """Replay a model in turns with a partner: itself in another process, or matrix products."""
    with beside_partners(study, one_stream=True) as (measured, partners):
        for remote in (measured, partners["same"]):
            remote.ask("capture_loaded", seeds=[1])
        for partner in study.shuffled(tuple(partners)):
            for _ in range(6):
                partners[partner].ask("blocks", name="capture 0", seconds=0.02)
                yield {"partner": partner, "blocks": measured.ask("blocks", name="capture 0", seconds=0.1)}


def turns(study: Study) -> Iterator[dict[str, Any]]:
    """Read turns of a pair as `trtgate ab` does: one after the partner's turn, or matrix products, and one after that.

    The partner works as long before the next two: so a side of a quadruple meets the other one, and itself.
    """
    with gate_states() as switcher, beside_partners(study, switcher=switcher) as (measured, partners):
        for partner in study.shuffled(tuple(partners)):
            for _ in range(4):
                if partner == "same":
                    for after_other in (True, False):
                        partners[partner].ask("turn", seed=study.rng.getrandbits(30), after_other=after_other)
                else:
                    partners[partner].ask("blocks", name="capture 0", seconds=2 * TURN_S)
                for after_other in (True, False):
                    read = measured.ask("turn", seed=study.rng.getrandbits(30), after_other=after_other)
                    yield {"partner": partner, "after": "the partner" if after_other else "itself", **read}


@contextlib.contextmanager
def beside_partners(study: Study, **options: Any) -> Iterator[tuple[Remote, dict[str, Remote]]]:
    """Within: a process that has loaded a model, and its partners: another one that has, and one that multiplies."""
    folder = study.built([REGNET])[REGNET]
    with processes(2, **options) as (measured, same), processes(1) as (matmul,):
        for remote in (measured, same):
            remote.send("load", case_id=REGNET, folder=folder)
        for remote in (measured, same):
            remote.receive()
        matmul.ask("chain", name="capture 0", nodes=20, kernel="matmul", size=4096)
        yield measured, {"same": same, "matmul": matmul}


def server(study: Study) -> Iterator[dict[str, Any]]:
    """Call a compiled module as a server does, on the default stream and on another, and read the probe after it."""
    folders = study.built([REGNET])
    with measured_and_partner() as (measured, partner):
        measured.ask("load", case_id=REGNET, folder=folders[REGNET])
        for doing in study.shuffled(("nothing", "touch", "calls default", "calls own")):
            reset(partner)
            stream = doing.split()[1] if doing.startswith("calls") else "default"
            call = {}
            if doing == "touch":
                measured.ask("touch", count=10)
            if doing.startswith("calls"):
                probe = measured.ask("serve_calls", stream=stream, calls=100)
                call = {"queued": measured.ask("queued_calls", stream=stream)}
            else:
                probe = measured.ask("settled", name=PROBE)
            yield {"doing": doing, "probe": probe, **call}


SECTIONS: dict[str, Callable[[Study], Iterator[dict[str, Any]]]] = {
    one.__name__: one
    for one in (streams, others, nodes, decay, warmup, engines, launches, loads, weights, pairs, turns, server)
}
QUICK = ("streams", "others", "nodes", "decay", "warmup")


def main() -> int:
    """Run the sections, one after the other, and print a table of each; returns 1 when one of them failed."""
    options = _options()
    if options.tables:
        document = json.loads(options.tables.read_text())
        states_tables.print_all(document)
        return 0
    study, failed = Study(options), []
    with processes(1) as (remote,):
        document = {"versions": remote.ask("versions"), "sections": {}}
    names = options.sections or (list(SECTIONS) if options.full else QUICK)
    with contextlib.suppress(KeyboardInterrupt):  # what was measured until then is shown
        for name in names:
            start = time.perf_counter()
            rows = document["sections"].setdefault(name, [])
            try:
                rows.extend(SECTIONS[name](study))
            except RuntimeError as error:
                failed.append(name)
                print(f"section {name} failed: {error}", file=sys.stderr)
            print(f"# {name}: {time.perf_counter() - start:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(document))
    states_tables.print_all(document)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="which sections; default: those that need torch alone")
    parser.add_argument("--full", action="store_true", help="all sections and all conditions")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--processes", type=int, default=20, help="of section launches, of each kind")
    parser.add_argument("--builds", help="folder to keep builds in, and to take them from")
    parser.add_argument("--json", type=Path, help="also write all that was measured to this file")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of a file written by --json")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; there are: {', '.join(SECTIONS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
