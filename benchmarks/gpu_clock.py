"""Times on a GPU: medians between events on its stream, and the parts of a step; on the CPU by the clock, for tests."""

import importlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

WARM_UP = 2


@dataclass(frozen=True)
class Mark:
    """A moment on the device's stream, and when the host asked for it."""

    event: "torch.cuda.Event | None"
    host_seconds: float


class Clock:
    """Takes moments on a device's current stream."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"

    def mark(self) -> Mark:
        """The moment when all that was started so far is done."""
        event = None
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        return Mark(event, time.perf_counter())

    def wait(self) -> None:
        """Wait for the device."""
        if self._on_gpu:
            torch.cuda.synchronize()

    @staticmethod
    def ms_between(first: Mark, last: Mark) -> float:
        """On the device's stream, waits for the host included; call `wait` before."""
        if first.event is not None and last.event is not None:
            return float(first.event.elapsed_time(last.event))
        return 1e3 * (last.host_seconds - first.host_seconds)


def timed(clock: Clock, action: Callable[[], object], repeats: int, warm_up: int = WARM_UP) -> dict[str, Any]:
    """Milliseconds of an action: the median, the least and the most of some repeats, after some that do not count."""
    for _ in range(warm_up):
        action()
    clock.wait()
    marks = []
    for _ in range(repeats):
        first = clock.mark()
        action()
        marks.append((first, clock.mark()))
    clock.wait()
    return summary([clock.ms_between(*pair) for pair in marks])


def summary(milliseconds: Iterable[float]) -> dict[str, Any]:
    """Median and range."""
    values = list(milliseconds)
    return {
        "median_ms": statistics.median(values),
        "least_ms": min(values),
        "most_ms": max(values),
        "repeats": len(values),
    }


def intervals(clock: Clock, marks: list[Mark], first: int = WARM_UP) -> dict[str, Any]:
    """Between moments that follow each other; the first few do not count."""
    clock.wait()
    pairs = list(itertools.pairwise(marks))
    return summary([clock.ms_between(*pair) for pair in (pairs[first:] or pairs)])


Name = str | Callable[..., str]


class Parts:
    """Times of named functions while something larger runs: a context in which they are replaced by timed ones.

    A part lasts from when the stream gets there to when the stream leaves it, so it holds the device's waits for the
    host within it. Parts must not lie within each other.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watched: list[tuple[Any, str, Name]] = []
        self._originals: list[tuple[Any, str, Any]] = []
        self._spans: list[tuple[int, str, Mark, Mark, float]] = []
        self._turn = 0
        self._inside = threading.local()
        self.not_found: list[str] = []

    def watch(self, owner: str, function: str, name: Name) -> "Parts":
        """Time `function` of a module, or of a class written as ``module:Class``; `name` may depend on arguments."""
        module, _, of_class = owner.partition(":")
        try:
            place: Any = importlib.import_module(module)
            place = getattr(place, of_class) if of_class else place
            getattr(place, function)
        except (ImportError, AttributeError):
            self.not_found.append(f"{owner}.{function}")
            return self
        self._watched.append((place, function, name))
        return self

    def turn(self) -> None:
        """Begin another repeat."""
        self._turn += 1

    def __enter__(self) -> "Parts":
        for place, function, name in self._watched:
            original = getattr(place, function)
            self._originals.append((place, function, original))
            setattr(place, function, self._timed(original, name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._originals:
            setattr(*self._originals.pop())

    def _timed(self, original: Callable[..., Any], name: Name) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if getattr(self._inside, "is_so", False):
                return original(*arguments, **named)
            self._inside.is_so = True
            try:
                first = self._clock.mark()
                result = original(*arguments, **named)
                last = self._clock.mark()
            finally:
                self._inside.is_so = False
            word = name if isinstance(name, str) else name(*arguments)
            self._spans.append((self._turn, word, first, last, last.host_seconds - first.host_seconds))
            return result

        return call

    def medians(self, first: int = WARM_UP) -> dict[str, dict[str, float]]:
        """Of each part: its milliseconds a repeat, on the device and of the host's own time; the first do not count."""
        self._clock.wait()
        turns = sorted({turn for turn, *_ in self._spans})
        turns = turns[first:] or turns
        found: dict[str, dict[str, float]] = {}
        for part in dict.fromkeys(name for _, name, *_ in self._spans):
            spans = [span for span in self._spans if span[1] == part]
            device = [sum(self._clock.ms_between(s[2], s[3]) for s in spans if s[0] == turn) for turn in turns]
            host = [sum(1e3 * s[4] for s in spans if s[0] == turn) for turn in turns]
            found[part] = {"ms": statistics.median(device), "host_ms": statistics.median(host)}
        return found


def busiest_kernels(action: Callable[[], object], repeats: int, most: int = 15) -> dict[str, Any]:
    """Kernels by their own time on the GPU, as torch's profiler has it, and how long any was at work, per repeat."""
    from torch.profiler import ProfilerActivity, profile

    action()
    torch.cuda.synchronize()
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(repeats):
                action()
            torch.cuda.synchronize()
    except RuntimeError as error:  # a machine that lets nobody trace the GPU
        return {"busy_ms": None, "kernels": [], "note": str(error)}
    rows = sorted(
        ((event.key, event.self_device_time_total / 1e3 / repeats, event.count) for event in profiler.key_averages()),
        key=lambda row: -row[1],
    )
    return {
        "busy_ms": sum(ms for _, ms, _ in rows),
        "kernels": [{"name": name[:90], "ms": ms, "calls": count / repeats} for name, ms, count in rows[:most] if ms],
    }
