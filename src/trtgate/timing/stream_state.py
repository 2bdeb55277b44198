"""The state of the GPU in which a graph is replayed: one stream of the process at work, or several.

Once another stream of a process ran some kernels, every kernel of a later graph takes longer to launch (0.18 µs on an
H100: 2 to 7 % of a model), until another process uses the GPU. Either state can be brought about, and a *probe*, a
graph of many tiny kernels, tells them apart. docs/gpu-states.md has the measurements.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from itertools import pairwise

import torch

from .context_switch import ContextSwitcher, SwitchError, switch
from .device_state import MANY, ONE, Reading
from .spin_kernel import Spin

PROBE_NODES = 400
OTHER_KERNELS = 10
"""Kernels of another stream that bring the state of several streams about; 4 do not."""
ONSET_READINGS = 20
"""It begins within 10 ms of a context switch."""
APART = 1.05
"""From which ratio of the probe's readings in the two states on they are told apart: it is 1.18 on an H100. Readings of
two processes can't be compared, they lie up to 11 % apart in one state."""
SWITCHES = 3
UNSET = "the GPU's state can't be set"
CLOCK_CYCLES = 800_000
"""Of the spin kernel that shows the SM clock: 0.4 ms."""


class StreamState:
    """Brings about and verifies that one stream, or many, are at work; `switcher` is another process's name.

    Make it, and call it, where `on_stream` is entered: all that it queues is on that stream.
    """

    def __init__(self, spin: Spin, streams: str, switcher: str) -> None:
        self.spin = spin
        self.streams = streams
        self._switcher = switcher
        self._own, self._other = torch.cuda.Stream(), torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._tiny = torch.zeros(32, device="cuda")
        self._border_us = 0.0
        """The probe reads more in the state of many streams, less in that of one; 0 while they can't be told apart."""
        self._stuck = ""
        """Why the state of one stream could not be brought about though another process could."""

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        """Within: everything is queued on the one stream."""
        torch.cuda.synchronize()
        with torch.cuda.stream(self._own):
            yield
            torch.cuda.synchronize()

    def set(self, *, anew: bool) -> str:
        """Leave the GPU in the wanted state; returns why that can't be. `anew` reads the probe in both states first."""
        if anew or not self._border_us:
            return self._set_anew()
        if not self.wrong(self.read()):
            return ""
        try:
            if self.streams == MANY:
                self._touched_us()
            else:
                switch(self._switcher)
        except SwitchError as error:
            return f"{UNSET}: {error}"
        return ""

    def _set_anew(self) -> str:
        self._border_us, self._stuck = 0.0, ""
        many_us = self._touched_us()
        ratio = largest = 0.0
        try:
            switch(self._switcher)
            for _ in range(SWITCHES):
                one_us = min(self.read().probe_us, self.read().probe_us)
                ratio = many_us / one_us
                largest = switch(self._switcher, ratio)
                if ratio >= APART or largest < APART:
                    break
        except SwitchError as error:
            return f"{UNSET}: {error}"
        if ratio >= APART:
            self._border_us = math.sqrt(one_us * many_us)
            if self.streams == MANY:
                self._touched_us()
        elif largest >= APART:  # else this GPU has no such states
            self._stuck = f"{UNSET}: another process's work changes nothing here, and does in another process"
        return self._stuck

    def read(self) -> Reading:
        """Time a spin kernel and the probe, 1 ms in all."""
        graph = self._probe()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        torch.cuda._sleep(CLOCK_CYCLES // 8)
        events[0].record()
        torch.cuda._sleep(CLOCK_CYCLES)
        events[1].record()
        graph.replay()
        events[2].record()
        events[2].synchronize()
        spun_ms, probe_ms = (a.elapsed_time(b) for a, b in pairwise(events))
        return Reading(probe_us=probe_ms * 1e3, sm_mhz=CLOCK_CYCLES / spun_ms / 1e3)

    def wrong(self, reading: Reading) -> str:
        """Return why a reading is not of the wanted state; empty where the states can't be told apart."""
        if self._stuck:
            return self._stuck
        if not self._border_us or (reading.probe_us > self._border_us) == (self.streams == MANY):
            return ""
        side = "above" if self.streams == ONE else "below"
        return f"another state of the GPU: the probe read {reading.probe_us:.0f} µs, {side} {self._border_us:.0f} µs"

    def _touched_us(self) -> float:
        """Let another stream run some kernels; returns the most that the probe reads from then on."""
        with torch.cuda.stream(self._other):
            for _ in range(OTHER_KERNELS):
                self._tiny.add_(1)
        torch.cuda.synchronize()
        first = most = self.read().probe_us
        for _ in range(ONSET_READINGS):
            most = max(most, self.read().probe_us)
            if most > 1.1 * first:
                break
        return most

    def _probe(self) -> torch.cuda.CUDAGraph:
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            self._tiny.add_(1)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, stream=self._own):
                for _ in range(PROBE_NODES):
                    self._tiny.add_(1)
            graph.replay()
            torch.cuda.synchronize()
            self._graph = graph
        return self._graph


@contextlib.contextmanager
def alone(uuid: str, streams: str = ONE) -> Iterator[StreamState]:
    """Within: a state of this process's own, with a process to switch to."""
    switcher = ContextSwitcher(uuid)
    try:
        yield StreamState(Spin(), streams, switcher.name)
    finally:
        switcher.close()
