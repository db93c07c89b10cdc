"""A run of an example script, alone or as one of several processes, that can kill itself, really.

Its globals are set by `runpy`: SCRIPT and LOG (paths), ARGUMENTS (a list) and KILL: a kind, what to look for, and the
how many-th time is the last. The process gets SIGKILL at ("step", None, n), the n-th training step; at ("evaluation",
None, n), the n-th batch that is scored; at ("write", name, n), when a file of that name is opened; at ("half", name,
n), when torch.save has written half of it; at ("rename", name, n), before a file or folder gets that name. With
("full", None, n) it lives on, but from the n-th step can't write more than some kilobytes to a file.
ENVIRONMENT is added to the environment. accelerate shards models on accelerators only, and on CPU falls back to DDP
without a word; so with ACCELERATE_USE_FSDP it is told that it may. At the end `<LOG>.json` says how many processes
there were, and of what classes the modules were that ran in training.
"""

import json
import os
import resource
import signal
import sys
from importlib import import_module
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState


NAMES = ("SCRIPT", "ARGUMENTS", "LOG", "KILL", "ENVIRONMENT")
SCRIPT, ARGUMENTS, LOG, KILL, ENVIRONMENT = (globals()[name] for name in NAMES)


class Killer:
    def __init__(self, kind, name, times):
        self.kind, self.name, self.left = kind, name, times
        torch.nn.modules.module.register_module_forward_pre_hook(self.forward)
        sys.addaudithook(self.audit)
        self.save, torch.save = torch.save, self.save_half

    def meet(self, kind, name):
        if (kind, name) == (self.kind, self.name):
            self.left -= 1
            return self.left == 0
        return False

    def die_at(self, kind, name):
        if self.meet(kind, name):
            os.kill(os.getpid(), signal.SIGKILL)

    def forward(self, module, arguments):
        # FSDP puts its name before it
        if type(module).__name__.endswith("BgaMnerForTokenClassification"):
            self.die_at("step" if module.training else "evaluation", None)
            if module.training and self.meet("full", None):
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    def audit(self, event, arguments):
        if event == "open" and "w" in str(arguments[1]):
            self.die_at("write", Path(str(arguments[0])).name)
        elif event == "os.rename":
            self.die_at("rename", Path(str(arguments[1])).name)

    def save_half(self, value, file, *rest, **options):
        self.save(value, file, *rest, **options)
        if self.meet("half", Path(str(file)).name):
            os.truncate(file, os.path.getsize(file) // 2)
            os.kill(os.getpid(), signal.SIGKILL)


def shard_on_cpu():
    initialize = AcceleratorState.__init__

    def told(self, *arguments, fsdp_plugin=None, **options):
        initialize(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
        if self.distributed_type == DistributedType.MULTI_CPU and fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = told


descriptor = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(descriptor, 1)
os.dup2(descriptor, 2)
os.environ.update(ENVIRONMENT)
torch.set_num_threads(1)
if ENVIRONMENT.get("ACCELERATE_USE_FSDP") == "true":
    shard_on_cpu()
if KILL is not None:
    Killer(*KILL)
seen = {"world_size": 0, "modules": set()}


def note(module, arguments):
    if module.training:
        seen["world_size"] = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        seen["modules"].add(type(module).__name__)


torch.nn.modules.module.register_module_forward_pre_hook(note)
import_module(f"bga_mner.examples.{Path(SCRIPT).stem}").main(ARGUMENTS)
Path(f"{LOG}.json").write_text(json.dumps(seen, default=sorted), encoding="utf-8")
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
