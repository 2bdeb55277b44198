"""The text of the suites and plain benchmarks of tests that run pytest in pytest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SUITE_HEAD = '''\
import itertools
import os
import sys
import time

import trtgate

CALLS = itertools.count()


def measuring():
    """Whether a worker makes more calls than loading does."""
    return IN_WORKER and next(CALLS) > 10


def pause(seconds):
    time.sleep(seconds)


def sleep(name):
    pause(float(os.environ.get(name.upper() + "_MS", "2")) / 1000)


def made(forward, inputs):
    import torch

    class Tiny(torch.nn.Module):
        def forward(self, x):
            return forward(x)

    return Tiny(), inputs
'''

IN_WORKER = """
IN_WORKER = os.path.basename(sys.argv[0]) == "worker.py"
"""

SCRIPTED_TIME = (
    IN_WORKER
    + '''

class ScriptedTime:
    """Passes where a model says so, and some 0.1 ms with every look at it, on any machine alike."""

    now_s, looks = 0.0, 0

    def perf_counter(self):
        self.looks += 1
        self.now_s += 1e-4 + 1e-6 * (self.looks % 5)
        return self.now_s

    def pause(self, seconds):
        self.now_s += seconds


pause = ScriptedTime().pause
if IN_WORKER:
    from trtgate.timing import added_delay, canary, cpu_state, host_clock, measuring_loop

    host_clock.time = measuring_loop.time = added_delay.time = pause.__self__
    canary.cpu_canary = lambda: {"hash": 1000.0}
    cpu_state.CpuMonitor.void_reason = lambda _monitor: ""
'''
)
"""Follows a suite's head: what its workers measure is what the models say, so nothing else at work can disturb it."""

CLOCK_OF_CALLS = (
    "\n\nimport os\nimport sys\n"
    + SCRIPTED_TIME
    + """
    from torch.nn.modules.module import register_module_forward_hook

    register_module_forward_hook(lambda *_: pause(1e-3))
"""
)
"""Ends a suite of any models: the clock of its workers goes on by a millisecond with each call of a module."""

UNDISTURBED = """

from trtgate.timing import cpu_state

cpu_state.CpuMonitor.void_reason = lambda _monitor: ""
"""
"""Follows the head of a suite in real time: blocks count whatever else the machine does."""

SUITE_MODEL = """

@trtgate.model(frontends=("eager",), precisions=("fp32",))
def {name}(batch):
    import torch

    def forward(x):
        {statement}
        return x + 1

    return made(forward, torch.ones(batch, 4))
"""

PLAIN_HEAD = """\
import os
import time


def sleep(name):
    time.sleep(float(os.environ.get(name.upper() + "_MS", "2")) / 1000)
"""

PLAIN_TEST = """

def test_{name}(benchmark):
    benchmark.pedantic(sleep, args=({name!r},), rounds=3)
"""


def suite_text(names: Iterable[str], statements: Mapping[str, str], *, real_time: bool = False) -> str:
    models = {**statements, **{name: f"sleep({name!r})" for name in names}}
    return (
        SUITE_HEAD
        + (IN_WORKER + UNDISTURBED if real_time else SCRIPTED_TIME)
        + "".join(SUITE_MODEL.format(name=name, statement=models[name]) for name in models)
    )


STORING = '''
class Storing:
    """Exports, stores and loads as dynamo does, and needs no GPU."""

    stores_artifact = True
    stores = "an exported program"

    def unavailable(self):
        return ""

    def import_libraries(self):
        pass

    def prepare(self, module, inputs, settings, step, dynamic=None):
        from trtgate.torch_trt import exporting

        return exporting.export(module, inputs, settings, dynamic)

    def build(self, prepared, inputs, settings, step, dynamic=None):
        from trtgate.frontends import CompiledModule

        print(settings.suffix, file=open(os.environ.get("BUILDS", "builds.txt"), "a"))
        self.program = prepared
        return CompiledModule(prepared.module(), 1.0)

    def save(self, compiled, inputs, folder):
        import torch

        torch.export.save(self.program, folder / "compiled.pt2")

    def load(self, folder):
        import torch
        from trtgate.frontends import CompiledModule

        return CompiledModule(torch.export.load(folder / "compiled.pt2").module(), 0.5)


import trtgate.frontends.aot_eager

trtgate.frontends.aot_eager.FRONTEND = Storing()
'''
"""A frontend in place of aot_eager: each build adds a line to builds.txt, or to the file that BUILDS names."""
