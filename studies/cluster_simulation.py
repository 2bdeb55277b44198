"""Where the time of 5,000 cases on 64 GPUs goes, and what the head must hold.

    python studies/cluster_simulation.py [--cases 5000] [--hosts 8] [--cards 8] [--cpus 128] [--seed 1]

A simulation with measured costs: what building takes on an H100 (3 to 23 s a case, by model), what a case takes to be
measured there by three launches (10 s when it was alone: 266 s for 24 cases, `studies/two_cards.py`), what Ray adds
(`studies/cluster.py overhead`). Eight builders of one card on 16 CPUs built 24 cases in 50 s, one in 203 s
(docs/how-to/build-ahead.md): 4.1 times as fast. That is all that is known of several builders, so between one and eight
the gain is taken as builders ** 0.68, which fits these two; that eight cards of one host with 16 CPUs each gain as much
as one is an assumption. Who builds and who measures when is as in `gate/gpu_queue.py`: all cards take from one queue,
the one with the least to measure first, and no card of a host is timed while one of it builds.
What the head does of a case, and what it holds, is
measured here, on an evidence of the usual size. Prints the table and the assumptions.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import resource
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from trtgate.common import machine
from trtgate.common.accelerator import Accelerator, detect
from trtgate.common.text_columns import TextTable
from trtgate.launches.prebuild import builders_for
from trtgate.records.measurement import Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.report.terminal_table import describe

BUILD_S = {"resnet18": 3.0, "resnet50": 10.5, "mobilenet_v3_large": 14.0, "vit_b_16": 13.5, "swin_t": 23.0}
"""What building took on an H100, seconds."""
MEASURE_S, SUSPECTED, AGAIN = 266 / 24, 0.03, 2.5
"""Seconds a case there; the share that is measured again, and by how much longer it takes then."""
GAIN = math.log(203 / 50) / math.log(8)
"""Builders of a card build builders ** GAIN times as fast as one."""
LAUNCHES, CAPTURES, BLOCKS, TURNS = 3, 6, 12, 2


class Cost(NamedTuple):
    """Seconds that a case takes to be built, and to be measured until it is judged."""

    build_s: float
    measure_s: float


class Outcome(NamedTuple):
    """Seconds until all is built, until all is done; seconds of all cards by what they were at."""

    built_s: float
    done_s: float
    spent_s: dict[str, float]


def costs(cases: int, ray_s: float, rng: random.Random) -> list[Cost]:
    """Return the costs of cases of all models alike, each with 10 % of chance."""
    found = []
    for number in range(cases):
        build_s = list(BUILD_S.values())[number % len(BUILD_S)] * rng.uniform(0.9, 1.1)
        again = AGAIN if rng.random() < SUSPECTED else 1.0
        found.append(Cost(build_s + ray_s / 2, MEASURE_S * again * rng.uniform(0.9, 1.1) + ray_s / 2))
    return found


def simulated(given: Sequence[Cost], hosts: int, cards: int, builders: int) -> Outcome:
    """Return what comes of cases that all cards build from one queue, then measure where they were built."""
    slower = builders / builders**GAIN
    waiting = sorted(given, key=lambda cost: cost.measure_s)
    names = [(host, card) for host in range(hosts) for card in range(cards)]
    free = [(0.0, name) for name in names for _ in range(builders)]
    heapq.heapify(free)
    measuring, built_at = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    while waiting:
        now = free[0][0]
        at_once = [heapq.heappop(free)]
        while free and free[0][0] <= now:
            at_once.append(heapq.heappop(free))
        taker = min(at_once, key=lambda one: (measuring[one[1]], one[1]))
        for other in at_once:
            if other is not taker:
                heapq.heappush(free, other)
        cost, name = waiting.pop(), taker[1]
        end = now + cost.build_s * slower
        measuring[name] += cost.measure_s
        built_at[name] = max(built_at[name], end)
        heapq.heappush(free, (end, name))
    begin = {host: max(built_at[host, card] for card in range(cards)) for host in range(hosts)}
    end = max(begin[name[0]] + seconds for name, seconds in measuring.items())
    spent = {"building": sum(built_at.values()), "measuring": sum(measuring.values())}
    spent["waiting for a host's builds, or for the last card"] = len(names) * end - sum(spent.values())
    return Outcome(max(built_at.values()), end, spent)


def evidence(number: int) -> bytes:
    """Return what a node sends of a case: launches, turns, captures and blocks as usual, as JSON."""
    rng = random.Random(number)
    turns = [
        Turn(
            clock="cuda graph",
            captures=[
                Capture(replays=30, blocks_us=[180 + rng.random() for _ in range(BLOCKS)])
                for _ in range(CAPTURES // TURNS)
            ],
            host_us=[300 + rng.random() for _ in range(200)],
            enqueue_us=[100 + rng.random() for _ in range(200)],
        )
        for _ in range(TURNS)
    ]
    launches = [Launch(loaded=Loaded(seconds=1.0), turns=turns) for _ in range(LAUNCHES)]
    return msgspec.json.encode(CaseMeasurement(case_id=f"case{number}", launches=launches, uuid="GPU-1", seconds=11.0))


def head(cases: int) -> tuple[float, int, int]:
    """Return what the head takes to read a case, seconds, its bytes, and what all take of memory, bytes."""
    content = evidence(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    held = [msgspec.json.decode(content, type=CaseMeasurement) for _ in range(cases)]
    seconds = (time.process_time() - start) / len(held)
    return seconds, len(content), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def main() -> None:
    """Simulate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("cases", 5000), ("hosts", 8), ("cards", 8), ("cpus", 128), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ray-s", type=float, default=0.5, help="what Ray adds a case, seconds")
    asked = parser.parse_args()
    print(f"{describe(detect())}, {machine.cpus()} CPUs")
    print(f"assumed: build {min(BUILD_S.values()):g} to {max(BUILD_S.values()):g} s, measure {MEASURE_S:.1f} s, "
          f"{SUSPECTED:.0%} suspected and {AGAIN:g} times as long, Ray {asked.ray_s:g} s a case\n")  # fmt: skip
    head_row = ("devices", "builders each", "all built", "all done", "building", "measuring", "waiting", "one device")
    rows: list[tuple[str, ...]] = [head_row]
    given = costs(asked.cases, asked.ray_s, random.Random(asked.seed))
    alone_s = sum(map(sum, given))
    card = Accelerator(kind="gpu", name="NVIDIA H100 80GB HBM3", memory_bytes=80 << 30)
    most = builders_for([card], max(1, asked.cpus // asked.cards))
    for hosts in sorted({1, 2, 4, asked.hosts}):
        for builders in sorted({1, most}):
            one = simulated(given, hosts, asked.cards, builders)
            whole = hosts * asked.cards * one.done_s
            shares = [f"{spent / whole:.0%}" for spent in one.spent_s.values()]
            rows.append(
                (f"{hosts} x {asked.cards}", str(builders), f"{one.built_s / 60:.0f} min", f"{one.done_s / 60:.0f} min",
                 *shares, f"{alone_s / one.done_s:.1f} times as long")
            )  # fmt: skip
    print(TextTable(rows))
    seconds, size, memory = head(asked.cases)
    print(
        f"\nthe head reads {size / 1e3:.0f} kB a case in {seconds * 1e3:.1f} ms, {asked.cases * seconds:.0f} s in all"
    )
    print(f"it holds {memory / 2**20:.0f} MiB of measurements for {asked.cases} cases, and has a thread a device")


if __name__ == "__main__":
    main()
