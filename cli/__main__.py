"""The entry of `zn`: runs the command and turns errors into one message and an exit code."""

import sys

from cli.frame import app
from cli.outcome import explain
from cli.output import print_error


def main() -> int:
    """Run the command line; returns the exit code. A defect of ours keeps its traceback."""
    try:
        result = app(prog_name="zn", standalone_mode=True)
    except (Exception, KeyboardInterrupt) as error:
        explained = explain(error)
        if explained is None:
            raise
        code, message = explained
        print_error(f"zn: {message}")
        return code
    return int(result or 0)


if __name__ == "__main__":
    sys.exit(main())
