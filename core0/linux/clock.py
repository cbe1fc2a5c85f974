"""What the kernel knows of its clock. Source: adjtimex(2), include/uapi/linux/timex.h."""

import ctypes

_UNSYNCHRONISED = 0x0040
# struct timex up to its last member, which is the same for all 64 bit architectures.
_SIZE = 208
_MAXERROR, _STATUS = 24, 40


def synchronised_within() -> float | None:
    """Seconds that the clock may be off at most; None if nothing keeps it right.

    Raises:
        OSError: if the kernel does not say.
    """
    told = ctypes.create_string_buffer(_SIZE)  # with modes of 0 the kernel only tells
    if ctypes.CDLL(None, use_errno=True).adjtimex(told) < 0:
        raise OSError(ctypes.get_errno(), "cannot ask the kernel for the state of its clock")
    status = ctypes.c_int.from_buffer(told, _STATUS).value
    error = ctypes.c_long.from_buffer(told, _MAXERROR).value
    return None if status & _UNSYNCHRONISED else error / 1e6
