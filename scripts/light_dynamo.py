"""Train without importing torch's compiler, which nothing here compiles with.

Every optimizer of torch 2.14 imports `torch._dynamo`, more than a second's work, for two functions
that do nothing where nothing is compiled.
"""

import importlib
import sys
import types


class LightDynamo(types.ModuleType):
    """Stands in the place of `torch._dynamo` until something else of it is asked for."""

    def graph_break(self) -> None:
        """Do nothing, as the original does outside a compiled function."""

    def disable(self, function, *_, **__):
        """Return the function, which is not to be compiled, as it is."""
        return function

    def __getattr__(self, name: str):
        """Import the module itself, and return what is asked for.

        Who only looks at what is imported asks every module for its `__file__`, and needs none.
        """
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def install() -> None:
    """Put it where `import torch._dynamo` looks first, unless that is imported already."""
    sys.modules.setdefault("torch._dynamo", LightDynamo("torch._dynamo"))
