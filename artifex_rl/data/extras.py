"""Packages that only some of the data needs, imported when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module_name: str, extra: str = "data") -> ModuleType:
    """Import a module of an optional package, or say how to install it.

    Args:
        module_name: as for `import`, such as "sklearn.datasets".
        extra: the extra of artifex_rl that brings the package.

    Returns:
        The module.

    Raises:
        ImportError: the package is not installed; the message holds the command that installs it. A package that is
            there and fails to import something else raises its own error.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        package = module_name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ModuleNotFoundError(
            f"{package} is not installed; this needs it. Install it with: pip install 'artifex_rl[{extra}]'",
            name=error.name,
        ) from error
