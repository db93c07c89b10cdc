"""A run of an example script, alone or as one of several processes, that can kill itself, really.

Its globals are set by `runpy`: SCRIPT and LOG (paths), ARGUMENTS (a list) and KILL: a kind, what to look for, and the
how many-th time is the last. The process gets SIGKILL at ("step", None, n), the n-th training step; at ("evaluation",
None, n), the n-th batch that is scored; at ("write", name, n), when a file of that name is opened; at ("half", name,
n), when torch.save has written half of it; at ("rename", name, n), before a file or folder gets that name.
ENVIRONMENT is added to the environment. At the end ``<LOG>.json`` says how many processes there were, and of what
classes the modules were that ran in training.
"""

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

import torch


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
        if type(module).__name__ == "BgaMnerForTokenClassification":
            self.die_at("step" if module.training else "evaluation", None)

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


descriptor = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(descriptor, 1)
os.dup2(descriptor, 2)
os.environ.update(ENVIRONMENT)
torch.set_num_threads(1)
if KILL is not None:
    Killer(*KILL)
ran = set()
torch.nn.modules.module.register_module_forward_pre_hook(
    lambda module, arguments: ran.add(type(module).__name__) if module.training else None
)
sys.path.insert(0, str(Path(SCRIPT).parent))
import_module(Path(SCRIPT).stem).main(ARGUMENTS)
distributed = torch.distributed.is_initialized()
world_size = torch.distributed.get_world_size() if distributed else 1
Path(f"{LOG}.json").write_text(json.dumps({"world_size": world_size, "modules": sorted(ran)}), encoding="utf-8")
if distributed:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
