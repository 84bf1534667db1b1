"""The public names of a package: what its ``__init__`` imports as ``X as X``."""

import ast
import inspect
from types import ModuleType


def public_names(package: ModuleType) -> list[str]:
    tree = ast.parse(inspect.getsource(package))
    aliases = [
        alias for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return sorted(alias.name for alias in aliases if alias.asname == alias.name)
