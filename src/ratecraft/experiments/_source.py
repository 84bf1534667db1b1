"""Loading of task functions from files and modules, and hashes of their code."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ratecraft._training._snapshot import preserve_rng, seed_everything
from ratecraft._version import __version__
from ratecraft.errors import TaskError

BUILT_IN_TASKS: Final = {
    "digits": "ratecraft.experiments._builtin_tasks:digits",
    "stdlib-text": "ratecraft.experiments._builtin_tasks:stdlib_text",
}


def load_function(name: str, source_hash: str = "") -> Callable[[], Any]:
    """Return the function that ``path/to/file.py:function`` or ``module:function`` names.

    A process executes a file once, and again after the file has changed. Code that neither was
    loaded with ``source_hash``, a result of `identify`, nor has it now is an error.
    """
    location, _, function = name.rpartition(":")
    if not location or not function:
        raise TaskError(f"{name!r} does not name a function: expected file.py:function")
    if location.endswith(".py"):
        source_hash = source_hash or _hash_location(location)
        module = _execute_file(Path(location), Path(location).resolve().parent, source_hash)
    else:
        module = _import_module(location, source_hash)
    build = getattr(module, function, None)
    if not callable(build):
        names = [n for n, f in vars(module).items() if inspect.isfunction(f) and n[0] != "_"]
        raise TaskError(
            f"{location} has no function {function!r}; it has {', '.join(names) or 'none at all'}"
        )
    return build  # type: ignore[no-any-return]  # a user's


def reference(function: str | Callable[[], Any]) -> str:
    """Return a name by which a worker process can load a function; a lambda has none."""
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


def identify(function: str | Callable[[], Any]) -> tuple[str, str]:
    """Return a name of a task, and a hash of the file that defines it, without what it imports.

    The hash of a built-in task is this package's version; that of a function of an interactive
    session is of its own source.
    """
    try:
        name = reference(function)
    except TaskError:
        return f"__main__:{getattr(function, '__name__', '')}", _hash_function(function)
    if name in BUILT_IN_TASKS:
        return name, f"ratecraft {__version__}"
    location = name.rpartition(":")[0]
    if not isinstance(function, str) and not location.endswith(".py"):
        _refuse_changed(location)
    return name, _hash_location(location)


def call_function(build: Callable[[], Any], name: str) -> Any:
    """Call a user's function with fixed random numbers; an error in it raises a TaskError."""
    try:
        # Every run builds its task again. A random split in it must be the same for all runs, or
        # schedules would be compared on different data.
        with preserve_rng():
            seed_everything(0)
            return build()
    except TaskError:
        raise
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        raise TaskError(f"{name} failed: {format_error(error)}") from error


def format_error(error: BaseException) -> str:
    """Return an error in one line, with the position in the user's own file."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    position = "".join(f" ({frame.filename}:{frame.lineno})" for frame in frames)
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}{position}"


@lru_cache(maxsize=1)  # so that a top level that reads data or registers operators runs once
def _execute_file(path: Path, folder: Path, source_hash: str) -> Any:
    """Return the module of a file in a folder; a file with another hash raises."""
    if not path.is_file():
        files = sorted(p.name for p in folder.glob("*.py"))[:8]
        hint = f"; that folder has {', '.join(files)}" if files else ""
        raise TaskError(f"there is no file {path}{hint}")
    content = path.read_bytes()
    if _hash(content) != source_hash:
        raise _changed(str(path))
    spec: Any = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    if str(folder) not in sys.path:  # as `python file.py` does, so that its imports work
        sys.path.insert(0, str(folder))
    if getattr(sys.modules.get(path.stem, module), "__file__", None) == module.__file__:
        sys.modules[path.stem] = module

    def execute() -> None:
        exec(compile(content, spec.origin, "exec"), vars(module))  # noqa: S102 - the user's file

    try:
        call_function(execute, f"loading {path}")
    except TaskError:
        if sys.modules.get(path.stem) is module:
            del sys.modules[path.stem]
        raise
    return module


def _import_module(name: str, source_hash: str) -> Any:
    package = name.partition(".")[0]
    in_folder = Path(package).is_dir() or Path(f"{package}.py").is_file()
    if in_folder and package not in sys.modules and importlib.util.find_spec(package) is None:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise TaskError(f"cannot import {name!r}: {error}; for a file write {name}.py") from error
    except Exception as error:  # a user's module can raise anything
        raise TaskError(f"importing {name} failed: {format_error(error)}") from error
    _refuse_changed(name, source_hash)
    return module


def _changed(location: str) -> TaskError:
    return TaskError(
        f"{location} was changed during the comparison; run the command again: runs of the old "
        "code do not count for the new code"
    )


def _refuse_changed(name: str, source_hash: str = "") -> None:
    """Raise TaskError if an imported module has other code than its file, or than a hash."""
    module, current_hash = sys.modules[name], _hash_location(name)
    owner = module.__spec__ or module  # importlib.reload replaces the spec
    imported_hash = vars(owner).setdefault("_ratecraft_hash", current_hash)
    if source_hash and imported_hash != source_hash:
        raise _changed(name)
    if not source_hash and imported_hash != current_hash:
        raise TaskError(
            f"{name} was changed after it had been imported; start a new session, or call "
            "importlib.reload on it"
        )


def _hash_location(location: str) -> str:
    """Return a hash of a file or of the file of a module; empty if there is none."""
    file = Path(location)
    if not location.endswith(".py"):
        try:
            spec = importlib.util.find_spec(location)
        except Exception:  # a user's package can raise anything; importing it reports the error
            return ""
        file = Path("" if spec is None else spec.origin or "")
    return _hash(file.read_bytes()) if file.is_file() else ""


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
