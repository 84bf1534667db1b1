"""Loading of task functions from files and modules, and hashes of their code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from ratecraft._training._snapshot import preserve_rng, seed_everything
from ratecraft._version import __version__
from ratecraft.errors import TaskError

BUILT_IN_TASKS: Final = {
    "digits": "ratecraft.experiments._builtin_tasks:digits",
    "stdlib-text": "ratecraft.experiments._builtin_tasks:stdlib_text",
}


def load_function(name: str, source_hash: str = "") -> Callable[[], Any]:
    """Return the function that ``path/to/file.py:function`` or ``module:function`` names.

    A file that has changed since it was loaded is loaded again.

    Args:
        name: the file or module, a colon and the function.
        source_hash: what `hash_source` returned for this name; the function must still have, or
            have been loaded with, that code.

    Raises:
        TaskError: the file or function does not exist, or its code has changed.
    """
    location, _, function = name.rpartition(":")
    if not location or not function:
        raise TaskError(f"{name!r} does not name a function: expected file.py:function")
    module = _load_module(location, source_hash)
    build = getattr(module, function, None)
    if not callable(build):
        names = [n for n, f in vars(module).items() if inspect.isfunction(f) and n[0] != "_"]
        raise TaskError(
            f"{location} has no function {function!r}; "
            + (f"it has {', '.join(names)}" if names else "it defines no function at all")
        )
    return build  # type: ignore[no-any-return]  # a user's


def reference(function: str | Callable[[], Any]) -> str:
    """Return a name by which a worker process can load a function.

    Raises:
        TaskError: the function exists only in this process, such as a lambda.
    """
    if isinstance(function, str):
        return function
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", "")
    if not name.isidentifier():
        raise TaskError(
            f"worker processes cannot import {name or function!r}; define the function at the top "
            "level of a file, or pass workers=0 to train in this process"
        )
    if module != "__main__":
        return f"{module}:{name}"
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None or not Path(file).is_file():  # a notebook or an interactive session
        raise TaskError(
            f"worker processes cannot import {name}, which is defined in an interactive session; "
            "move it into a file, or pass workers=0 to train in this process"
        )
    return f"{Path(file).resolve()}:{name}"


def hash_source(function: str | Callable[[], Any]) -> str:
    """Return a hash of the file that defines a task, or this package's version for a built-in.

    Code that the file imports is not included. For a function of an interactive session only its
    own source is hashed.

    Args:
        function: the function that builds the task, or its name.

    Raises:
        TaskError: the function has no name and no source, or its module has changed since it was
            imported.
    """
    try:
        name = reference(function)
    except TaskError:
        return _hash_function(function)
    if name in BUILT_IN_TASKS:
        return f"ratecraft {__version__}"
    location = name.rpartition(":")[0]
    source_hash = _hash_file(location)
    if not isinstance(function, str) and not location.endswith(".py"):
        _refuse_stale(location, source_hash)
    return source_hash


def call_function(build: Callable[[], Any], name: str) -> Any:
    """Call a user's function with fixed random numbers.

    Args:
        build: the function.
        name: its name, for the message of an error.

    Raises:
        TaskError: the function raised; the message holds the error in one line.
    """
    try:
        with _fixed_seed():
            return build()
    except TaskError:
        raise
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        raise TaskError(f"{name} failed: {format_error(error)}") from error


def format_error(error: BaseException) -> str:
    """Return an error in one line, with the position in the user's own file."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    position = f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})" if frame else ""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}{position}"


class _LoadedModule(NamedTuple):
    module: Any
    spec: Any  # importlib.reload replaces it
    source_hash: str


_loaded: dict[str, _LoadedModule] = {}
"""By path or module name: the module that was loaded last, with the hash of its code."""


def _load_module(location: str, source_hash: str) -> Any:
    key = str(Path(location).resolve()) if location.endswith(".py") else location
    known, current_hash = _loaded.get(key), _hash_file(location)
    if known is not None and known.source_hash == (source_hash or current_hash):
        return known.module
    if source_hash and source_hash != current_hash:
        raise TaskError(
            f"{location} was changed during the comparison; run the command again: runs of the "
            "old code do not count for the new code"
        )
    if not location.endswith(".py"):
        return _import_module(location, current_hash)
    module = _execute_file(Path(location), known)
    _loaded[key] = _LoadedModule(module, module.__spec__, current_hash)
    return module


def _import_module(name: str, source_hash: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise TaskError(f"cannot import {name!r}: {error}; for a file write {name}.py") from error
    except Exception as error:  # a user's module can raise anything
        raise TaskError(f"importing {name} failed: {format_error(error)}") from error
    _refuse_stale(name, source_hash)
    return module


def _refuse_stale(name: str, source_hash: str) -> None:
    """Raise TaskError if a module's file is known to have changed since it was imported."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    known = _loaded.setdefault(name, _LoadedModule(module, spec, source_hash))
    if known.module is not module or known.spec is not spec:
        _loaded[name] = _LoadedModule(module, spec, source_hash)
    elif known.source_hash != source_hash:
        raise TaskError(
            f"{name} was changed after it had been imported; start a new session, or call "
            "importlib.reload on it"
        )


def _execute_file(path: Path, known: _LoadedModule | None) -> Any:
    if not path.is_file():
        files = sorted(p.name for p in path.parent.glob("*.py"))[:8] if path.parent.is_dir() else []
        hint = f"; that folder has {', '.join(files)}" if files else ""
        raise TaskError(f"there is no file {path}{hint}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # as `python file.py` does, so that imports from the folder work
        sys.path.insert(0, folder)
    if known is not None and sys.modules.get(path.stem) is known.module:
        sys.modules[path.stem] = module
    sys.modules.setdefault(path.stem, module)
    try:
        with _fixed_seed():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        if sys.modules.get(path.stem) is module:
            del sys.modules[path.stem]
        raise TaskError(f"loading {path} failed: {format_error(error)}") from error
    return module


@contextmanager
def _fixed_seed() -> Iterator[None]:
    """Seed all random numbers with 0 inside the block, and restore them after it.

    Every run builds its task again. A random split in it must be the same for all runs, or
    schedules would be compared on different data.
    """
    with preserve_rng():
        seed_everything(0)
        yield


def _hash_file(location: str) -> str:
    """Return a hash of a file or of the file of a module; empty if there is none."""
    file = Path(location)
    if not location.endswith(".py"):
        try:
            _make_importable(location.partition(".")[0])
            spec = importlib.util.find_spec(location)
        except Exception:  # a user's package can raise anything; importing it reports the error
            return ""
        file = Path("" if spec is None else spec.origin or "")
    return _hash(file.read_bytes()) if file.is_file() else ""


def _make_importable(package: str) -> None:
    """Append the current folder to sys.path if it holds a package that is not found elsewhere."""
    in_folder = Path(package).is_dir() or Path(f"{package}.py").is_file()
    if in_folder and importlib.util.find_spec(package) is None:
        sys.path.append(str(Path.cwd()))


def _hash_function(function: str | Callable[[], Any]) -> str:
    if getattr(function, "__closure__", None):
        names = ", ".join(function.__code__.co_freevars)  # type: ignore[union-attr]  # has one
        raise TaskError(
            f"{function!r} is a closure over {names}, so a store cannot identify its runs; define "
            "these values inside the function, or leave out store="
        )
    defaults = (getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None))
    try:
        return _hash(f"{inspect.getsource(function)}{defaults}".encode())  # type: ignore[arg-type]
    except (OSError, TypeError):
        raise TaskError(
            f"the source of {function!r} cannot be read, so a store cannot identify its runs; "
            "move the function into a file, or leave out store="
        ) from None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
