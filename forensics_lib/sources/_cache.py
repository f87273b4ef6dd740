"""What was decoded last, kept within a bound of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

__all__ = ["Cache"]


class _Sized(Protocol):
    def __len__(self) -> int: ...


_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value", bound=_Sized)


class Cache(Generic[_Key, _Value]):
    """The most recently used values, safe to use from threads; pickles empty.

    Args:
        limit: sum of `len()` of the values to keep; the last one is kept however large it is.
    """

    def __init__(self, limit: int) -> None:
        """Start empty."""
        self._limit = limit
        self._held = 0
        self._values: OrderedDict[_Key, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key) -> _Value | None:
        """The value, or None when it is not held (any more)."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: _Key, value: _Value) -> None:
        """Keep a value, and let go of the oldest ones beyond the limit."""
        with self._lock:
            old = self._values.pop(key, None)
            self._held += len(value) - (0 if old is None else len(old))
            self._values[key] = value
            while self._held > self._limit and len(self._values) > 1:
                self._held -= len(self._values.popitem(last=False)[1])

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by limit: another process decodes again."""
        return (Cache, (self._limit,))
