"""The keys that the machine's TPM keeps for encrypted pools: made by the node, sealed, and asked for at each boot."""

import base64
import os

from core0.disks.apply import DiskError, World
from core0.linux import tpm2

# Seconds: a TPM makes its storage key anew each time, and the slow ones think long.
_DEADLINE = 60.0
# Enough that nobody guesses it, and few enough letters to be written down: it is the recovery key, too.
_BYTES, _GROUP = 20, 4


async def make_key(world: World) -> tuple[str, bytes]:
    """A new key, and what the TPM gives for it.

    Raises:
        DiskError: if it refuses, or there is none.
    """
    letters = base64.b32encode(os.urandom(_BYTES)).decode()
    key = "-".join(letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP))
    return key, await seal_key(world, key)


async def seal_key(world: World, key: str) -> bytes:
    """Have the TPM seal a key to the state of this machine. Raises DiskError."""
    try:
        return await world.worker.call(tpm2.seal, key.encode(), tpm2.DEVICE, deadline=_DEADLINE)
    except OSError as error:
        raise DiskError(f"cannot seal the pool's key: {error.strerror or error}") from None


async def ask_key(world: World, name: str, sealed: bytes) -> str:
    """The key of a pool, as the TPM gives it. Raises DiskError."""
    try:
        return (await world.worker.call(tpm2.unseal, sealed, tpm2.DEVICE, deadline=_DEADLINE)).decode()
    except OSError as error:
        remedy = f"'zn pool unlock {name}' takes its recovery key, and seals it anew"
        raise DiskError(f"cannot get the key of pool {name}: {error.strerror or error}; {remedy}") from None
