"""The operator's key on this machine: made on first use, beside the contexts file, mode 0600."""

from pathlib import Path

from core0.client.credentials import load_key, make_key, public_hex

KEY_FILE = "operator.pem"


def kernel_argument(contexts: Path) -> str:
    """The kernel parameter that lets the holder of the key use the node's API; makes the key if there is none."""
    path = contexts.parent / KEY_FILE
    key = load_key(path) if path.exists() else make_key(path)
    return f"zn.operator={public_hex(key)}"
