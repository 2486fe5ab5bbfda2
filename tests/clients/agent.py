"""What the drivers of blocking clients share; see `proof`."""

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import NoReturn

from proof import main, tell

Check = Callable[[], None]


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """By a signal, since these clients block."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"nothing within {seconds} s")

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def check(name: str, outcome: Check, seconds: int = 60) -> bool:
    """Print the line of a check; whether it passed."""
    try:
        with limit(seconds):
            outcome()
    except Exception as error:
        return tell(name, error)
    return tell(name)


def prove(passes: Callable[[str], Iterable[tuple[str, Check]]]) -> NoReturn:
    """`main` for named checks; `passes` may be a generator that starts and ends what they need."""

    def all_pass(tag: str) -> bool:
        passed = []
        try:
            for name, outcome in passes(tag):
                passed.append(check(name, outcome))
        except Exception as error:
            passed.append(tell("start", error))
        return bool(passed) and all(passed)

    main(all_pass)
