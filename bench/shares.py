"""Where a call's time goes: own CPU seconds of some functions, in all threads."""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

# What to watch: (module or class, attribute) → what the time is reported as.
Watched = Mapping[tuple[Any, str], str]


@contextmanager
def watched(functions: Watched) -> Iterator[dict[str, float]]:
    """Collects, by label, the thread CPU seconds that the functions take without those of watched ones within."""
    spent: dict[str, float] = {}
    lock = threading.Lock()
    inner = threading.local()  # a stack of the time that watched functions took within another

    def measure(label: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        stack = inner.__dict__.setdefault("stack", [0.0])
        stack.append(0.0)
        start = time.thread_time()
        try:
            return function(*arguments, **named)
        finally:
            took = time.thread_time() - start
            with lock:
                spent[label] = spent.get(label, 0.0) + took - stack.pop()
            stack[-1] += took

    def wrap(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            return measure(label, function, *arguments, **named)

        @functools.wraps(function)
        def generate(*arguments: Any, **named: Any) -> Iterator[Any]:
            items, end = function(*arguments, **named), object()
            while (item := measure(label, next, items, end)) is not end:
                yield item

        return generate if inspect.isgeneratorfunction(function) else call

    with ExitStack() as stack:
        for (owner, name), label in functions.items():
            stack.enter_context(patch.object(owner, name, wrap(getattr(owner, name), label)))
        yield spent


def shares(call: Callable[[], Any], functions: Watched, total: Callable[[], float]) -> dict[str, float]:
    """Share of `total` (a clock of CPU seconds) by label, and "the rest"."""
    with watched(functions) as spent:
        start = total()
        call()
        whole = total() - start
    found = {label: seconds / whole for label, seconds in sorted(spent.items(), key=lambda item: -item[1])}
    return found | {"the rest": 1 - sum(found.values())}
