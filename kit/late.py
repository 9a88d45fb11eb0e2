"""torch, imported when it is first used: it takes seconds, which --help need not wait for.

from kit.late import F, torch       # stands for: import torch; import torch.nn.functional as F
"""

import importlib


class Late:
    """Stands for a module until one of its names is used. What it gives is the module's own."""

    def __init__(self, name: str):
        self.__dict__["_name"] = name

    def __getattr__(self, attribute: str):
        return getattr(importlib.import_module(self._name), attribute)


torch = Late("torch")
F = Late("torch.nn.functional")
