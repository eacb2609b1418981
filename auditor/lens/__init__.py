"""The mathematics of the lenses: pure functions over tensors and a pair.

`from auditor import lens` is the decorator of `auditor/lenses.py`. This package bears the same name, and Python puts a
package that was imported in the place of that name; so it can be called as the decorator is.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    def __call__(self, *args: Any, **more: Any) -> Any:
        from auditor.lenses import lens

        return lens(*args, **more)


sys.modules[__name__].__class__ = _Package
