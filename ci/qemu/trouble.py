"""What a console must never say: signs of a crash in the kernel or in Python; and what is forgiven."""

import re
from collections.abc import Iterable, Sequence

# Words of their own: DEBUG: is no BUG:, loops_per_jiffy no Oops, and panic=10 or zn.panic a parameter's name.
_SIGNS = re.compile(r"\bBUG:|\bOops\b|Call Trace|Kernel panic|Traceback \(most recent|(?<![.\w])panic\b(?!=)")


def is_trouble(line: str) -> bool:
    """Whether a console line reports a kernel oops, a panic or a Python traceback."""
    return bool(_SIGNS.search(line))


def find_trouble(lines: Iterable[str], expected: Sequence[str] = ()) -> list[str]:
    """The verdict on a console, one finding per line; an empty list means that all is well.

    Args:
        lines: the console, without line ends.
        expected: texts that the test provokes: lines with one of them are forgiven, and each must occur.
    """
    seen = list(lines)
    findings = [line for line in seen if is_trouble(line) and not any(text in line for text in expected)]
    missing = [text for text in expected if not any(text in line for line in seen)]
    return findings + [f"expected on the console, but never printed: {text!r}" for text in missing]
