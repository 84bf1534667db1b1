"""Where a task's code is: functions in files and modules, and what those held when they ran."""

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

BUILT_IN: Final = {
    "digits": "ratecraft.experiments._builtin_tasks:digits",
    "stdlib-text": "ratecraft.experiments._builtin_tasks:stdlib_text",
}


def load_function(name: str, code: str = "") -> Callable[[], Any]:
    """Return the function that ``path/to/file.py:function`` or ``module:function`` names.

    A file that has changed since it was loaded is loaded again.

    Args:
        name: the function, with the place where it is.
        code: what `source_of` said of it; the function is then as it was at that time.

    Raises:
        TaskError: there is no such file or function, or it is no longer what it was.
    """
    place, _, function = name.rpartition(":")
    if not place or not function:
        raise TaskError(f"{name!r} names no function: expected file.py:function")
    module = _module(place, code)
    build = getattr(module, function, None)
    if not callable(build):
        there = [n for n, f in vars(module).items() if inspect.isfunction(f) and n[0] != "_"]
        raise TaskError(
            f"{place} has no function {function!r}; "
            + (f"it has {', '.join(there)}" if there else "it defines no function at all")
        )
    return build  # type: ignore[no-any-return]  # a user's


def reference(function: str | Callable[[], Any]) -> str:
    """Return a name by which a worker process finds a function again.

    Raises:
        TaskError: a function that only exists in this process, such as a lambda.
    """
    if isinstance(function, str):
        return function
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", "")
    if not name.isidentifier():
        raise TaskError(
            f"worker processes cannot find {name or function!r}; define the function at the top of "
            "a file, or pass workers=0 to train in this process"
        )
    if module != "__main__":
        return f"{module}:{name}"
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None or not Path(file).is_file():  # a notebook, or Python that reads its input
        raise TaskError(
            f"worker processes cannot find {name}, which was typed into a session; put it into a "
            "file, or pass workers=0 to train in this process"
        )
    return f"{Path(file).resolve()}:{name}"


def source_of(function: str | Callable[[], Any]) -> str:
    """Return a hash of the code that a task is made by: its file, or this package's version.

    What that file imports is not in it. Of a function that was typed into a session its own text
    is taken.

    Raises:
        TaskError: a function without a name or a text, or one whose module was changed after it
            had been imported.
    """
    try:
        name = reference(function)
    except TaskError:
        return _hash_of_text(function)
    if name in BUILT_IN:
        return f"ratecraft {__version__}"
    place = name.rpartition(":")[0]
    code = _hash_of_file(place)
    if not isinstance(function, str) and not place.endswith(".py"):
        _refuse_stale(place, code)
    return code


def called(build: Callable[[], Any], name: str) -> Any:
    """Call a user's function with random numbers of its own; what it raises is told in a line."""
    try:
        with _the_same_every_time():
            return build()
    except TaskError:
        raise
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        raise TaskError(f"{name} failed: {told(error)}") from error


def told(error: BaseException) -> str:
    """Return an error in one line, with the place in the user's own file."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})" if frame else ""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}{place}"


class _Loaded(NamedTuple):
    module: Any
    spec: Any  # another one after importlib.reload
    code: str


_loaded: dict[str, _Loaded] = {}
"""By place: what was loaded or seen there last."""


def _module(place: str, code: str) -> Any:
    key = str(Path(place).resolve()) if place.endswith(".py") else place
    known, now = _loaded.get(key), _hash_of_file(place)
    if known is not None and known.code == (code or now):
        return known.module
    if code and code != now:
        raise TaskError(
            f"{place} was changed while it was being compared; give the command again: the runs "
            "of the old code are not taken for the new one's"
        )
    if not place.endswith(".py"):
        return _imported(place, now)
    module = _executed(Path(place), known)
    _loaded[key] = _Loaded(module, module.__spec__, now)
    return module


def _imported(place: str, code: str) -> Any:
    try:
        module = importlib.import_module(place)
    except ImportError as error:
        raise TaskError(
            f"cannot import {place!r}: {error}; a file is written {place}.py"
        ) from error
    except Exception as error:  # a user's module can raise anything
        raise TaskError(f"importing {place} failed: {told(error)}") from error
    _refuse_stale(place, code)
    return module


def _refuse_stale(place: str, code: str) -> None:
    """Raise TaskError if a module in memory is not what its file says now, as far as is known."""
    module = sys.modules.get(place)
    spec = getattr(module, "__spec__", None)
    known = _loaded.setdefault(place, _Loaded(module, spec, code))
    if known.module is not module or known.spec is not spec:
        _loaded[place] = _Loaded(module, spec, code)
    elif known.code != code:
        raise TaskError(
            f"{place} was changed after it had been imported; start a new session, or "
            "importlib.reload it"
        )


def _executed(path: Path, known: _Loaded | None) -> Any:
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.py"))[:8] if path.parent.is_dir() else []
        there = f"; that folder has {', '.join(near)}" if near else ""
        raise TaskError(f"there is no file {path}{there}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # as `python file.py` does, so that it can import its neighbours
        sys.path.insert(0, folder)
    if known is not None and sys.modules.get(path.stem) is known.module:
        sys.modules[path.stem] = module
    sys.modules.setdefault(path.stem, module)
    try:
        with _the_same_every_time():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file can raise anything
        if sys.modules.get(path.stem) is module:
            del sys.modules[path.stem]
        raise TaskError(f"loading {path} failed: {told(error)}") from error
    return module


@contextmanager
def _the_same_every_time() -> Iterator[None]:
    """Fix the random numbers while a task is built, and leave the caller's as they were.

    Every run builds its task anew; what the task draws, such as a random split, must not differ
    from run to run, or schedules would be compared on different data.
    """
    with preserve_rng():
        seed_everything(0)
        yield


def _hash_of_file(place: str) -> str:
    """Return a hash of a file, or of a module's; empty where there is none."""
    file = Path(place)
    if not place.endswith(".py"):
        try:
            _reach(place.partition(".")[0])
            spec = importlib.util.find_spec(place)
        except Exception:  # a user's package can raise anything; importing it says what
            return ""
        file = Path("" if spec is None else spec.origin or "")
    return _hash(file.read_bytes()) if file.is_file() else ""


def _reach(package: str) -> None:
    """Let a package in the current folder be imported, as ``python -m`` does, behind all others."""
    there = Path(package).is_dir() or Path(f"{package}.py").is_file()
    if there and importlib.util.find_spec(package) is None:
        sys.path.append(str(Path.cwd()))


def _hash_of_text(function: str | Callable[[], Any]) -> str:
    if getattr(function, "__closure__", None):
        names = ", ".join(function.__code__.co_freevars)  # type: ignore[union-attr]  # has one
        raise TaskError(
            f"{function!r} keeps {names} from where it was made, so that a store could not know "
            "its runs again; write it into the function, or leave out store="
        )
    given = (getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None))
    try:
        return _hash(f"{inspect.getsource(function)}{given}".encode())  # type: ignore[arg-type]
    except (OSError, TypeError):
        raise TaskError(
            f"the code of {function!r} cannot be read, so that a store could not know its runs "
            "again; put the function into a file, or leave out store="
        ) from None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
