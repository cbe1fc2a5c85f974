"""The programs of the image that know disk formats: where they are and what they run with."""

import os
import shutil


def tool(name: str) -> str:
    """The path of a program.

    Raises:
        FileNotFoundError: if the image does not have it.
    """
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not found:
        raise FileNotFoundError(f"cannot find program {name}: this image does not have it")
    return found


def environment() -> dict[str, str]:
    """The environment of these programs; device-mapper's makes its nodes itself: there is no udev."""
    return {"PATH": os.defpath, "LC_ALL": "C", "DM_DISABLE_UDEV": "1"}
