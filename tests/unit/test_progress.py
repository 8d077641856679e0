"""Progress lines: a few a minute, complete, and never the reason why a run ends."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from gem_plugin.errors import JobAborted
from relion_external.progress import LiveProgress, PlainProgress, duration


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def run_a_stage(progress: PlainProgress, clock: Clock, seconds: int) -> None:
    """A thousand steps of equal length."""
    progress.stage("Half 1: reading", 1000, "particles")
    for step in range(1, 1001):
        clock.seconds += seconds / 1000
        progress.advance(step, loss=2.5 - step / 1000)


def test_a_few_lines_a_minute_with_rate_loss_and_time_left():
    clock, stream = Clock(), io.StringIO()
    run_a_stage(PlainProgress(stream, clock=clock), clock, seconds=120)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Half 1: reading (1000 particles)"
    assert 4 <= len(lines) - 1 <= 10
    halfway = next(line for line in lines if "500/1000" in line)
    assert halfway == "  Half 1: reading: 500/1000 particles, 8.33 particles/s, loss 2, about 1 min 0 s left"
    assert lines[-1] == "  Half 1: reading: 1000/1000 particles, 8.33 particles/s, loss 1.5, done in 2 min 0 s"


def test_a_quick_stage_has_two_lines():
    clock, stream = Clock(), io.StringIO()
    run_a_stage(PlainProgress(stream, clock=clock), clock, seconds=3)
    assert len(stream.getvalue().splitlines()) == 2


def test_each_stage_has_its_own_clock():
    clock, stream = Clock(), io.StringIO()
    progress = PlainProgress(stream, clock=clock)
    run_a_stage(progress, clock, seconds=100)
    progress.stage("Half 2: reading", 10, "particles")
    clock.seconds += 5
    progress.advance(10)
    assert stream.getvalue().splitlines()[-1].endswith("2.00 particles/s, done in 5 s")


def test_a_stage_that_ends_early_has_an_end_too():
    """As the choice of the number of steps, which stops where the score is best."""
    clock, stream = Clock(), io.StringIO()
    progress = PlainProgress(stream, clock=clock)
    progress.stage("Choosing", 400, "steps")
    for step in range(1, 51):
        clock.seconds += 0.1
        progress.advance(step, loss=1.5)
    progress.stage("Half 1: reading", 10, "particles")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "Choosing (400 steps)",
        "  Choosing: 50/400 steps, 10.0 steps/s, loss 1.5, done in 5 s",
        "Half 1: reading (10 particles)",
    ]
    progress.close()
    assert stream.getvalue().splitlines() == lines, "a run that is cut off does not call its stage done"


def test_every_line_is_flushed():
    class Buffered(io.StringIO):
        flushed = ""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    stream = Buffered()
    progress = PlainProgress(stream)
    progress.note("read")
    assert stream.flushed == "read\n"


def test_a_warning_is_said_once():
    stream = io.StringIO()
    progress = PlainProgress(stream)
    for _ in range(3):
        progress.warn("the background is not zero")
        progress.note("again")
    assert stream.getvalue().count("WARNING: the background is not zero") == 1
    assert stream.getvalue().count("again") == 3


def test_lines_are_ascii():
    stream = io.StringIO()
    PlainProgress(stream).note("Größe 3 Å")
    assert stream.getvalue().isascii()
    assert "Gr" in stream.getvalue()


class Closed(io.StringIO):
    """An output whose reader has gone away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("make", [PlainProgress, LiveProgress])
def test_a_closed_pipe_does_not_end_the_run(make: Callable[[io.StringIO], PlainProgress | LiveProgress]):
    progress = make(Closed())
    progress.stage("Reading", 10, "particles")
    progress.advance(10)
    progress.note("read")
    progress.close()


@pytest.mark.parametrize("make", [PlainProgress, LiveProgress])
def test_every_step_asks_whether_to_go_on(make: Callable[..., PlainProgress | LiveProgress]):
    asked = []

    def check() -> None:
        asked.append(True)
        if len(asked) == 3:
            raise JobAborted("enough")

    progress = make(io.StringIO(), check)
    progress.stage("Reading", 10, "particles")
    progress.advance(1)
    with pytest.raises(JobAborted):
        progress.advance(2)
    progress.close()


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    progress = LiveProgress(stream)
    monkeypatch.setattr(progress, "_console", Console(file=stream, force_terminal=True, width=120))
    progress.stage("Half 1: reading", 1000, "particles")
    progress.advance(1000, loss=1.5)
    progress.close()
    assert "Half 1: reading" in stream.getvalue()
    assert "1000/1000 particles" in stream.getvalue()
    assert "loss 1.5" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_durations_in_words(seconds: float, words: str):
    assert duration(seconds) == words
