"""Where in a container its volumes and other files may be seen. Pure."""

from collections.abc import Sequence

# Made by the node for each container: what lies there must be its own.
_OWN = ("/proc", "/sys", "/dev", "/run/secrets")
# Holds files that the node writes for each container.
_NEEDED = ("/etc",)


def refused_target(target: str, others: Sequence[str]) -> str:
    """Why nothing can be seen at a folder; empty if something can.

    Args:
        target: the folder.
        others: where other volumes and tmpfs of the container are seen.
    """
    if any(part in (".", "..") for part in target.split("/")):
        return "the path has . or .. in it"
    if any(_is_inside(target, own) for own in _OWN):
        return "the node makes that folder itself"
    if target in _NEEDED:
        return "it would hide the files that the node writes there"
    other = next((one for one in others if _is_inside(target, one) or _is_inside(one, target)), None)
    return f"something else is seen at {other}" if other else ""


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
