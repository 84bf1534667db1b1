"""Value: the base class of immutable values.

It is no dataclass. ``@dataclass`` compiles code for each class, at every start, and loads
``inspect``: together with those of `_check.py` that was a third of the CPU time of the first value
of a schedule. And OmegaConf and jsonargparse take a dataclass for a group of settings.
"""

from typing import Any, ClassVar, NoReturn, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Value:
    """An immutable value, equal to others of its class with the same fields.

    The fields are the annotated attributes of subclasses whose names do not begin with ``_``.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        names = [name for name in cls.__annotations__ if not name.startswith("_")]
        cls._fields = (*cls._fields, *names)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        cls, names = type(self), self._fields
        values = dict(zip(names, args, strict=False)) | kwargs
        defaults = {name: getattr(cls, name) for name in names if hasattr(cls, name)}
        if len(values) < len(args) + len(kwargs) or {*values, *defaults} != {*names}:
            raise TypeError(f"{cls.__name__}() takes each of these once: {', '.join(names)}")
        vars(self).update(defaults | values)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check or convert the fields."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        self.__delattr__(name)

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"cannot change {name!r} of a {type(self).__name__}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        pairs = zip(self._fields, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._fields)

    def _replace(self, **changes: Any) -> Self:
        """Return a value with these fields, and all others of this value."""
        return type(self)(**dict(zip(self._fields, self._values(), strict=True)) | changes)
