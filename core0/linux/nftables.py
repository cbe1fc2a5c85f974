"""Packet filtering by libnftables in this process (libnftables(3)): a command is one atomic transaction."""

import ctypes

from core0.linux import tools

_LIBRARY = "libnftables.so.1"
_NEEDED = ("libmnl.so.0", "libnftnl.so.11", "libxtables.so.12", "libjansson.so.4", "libgmp.so.10")


class Nftables:
    """One libnftables context of this thread's network namespace."""

    def __init__(self) -> None:
        try:
            library = tools.library(_LIBRARY, *_NEEDED)
        except OSError as error:
            raise OSError(f"cannot load {_LIBRARY}: {error}; the image lacks package libnftables1") from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        for function in (
            library.nft_ctx_buffer_error,
            library.nft_ctx_buffer_output,
            library.nft_ctx_get_error_buffer,
            library.nft_ctx_get_output_buffer,
        ):
            function.argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def run(self, commands: str) -> None:
        """Carry out nft commands, all or none.

        Raises:
            OSError: with libnftables' message.
        """
        if self._library.nft_run_cmd_from_buffer(self._context, commands.encode()):
            raise OSError(f"cannot change packet filter: {self._error()}")

    def ask(self, command: str) -> str:
        """What nft would print for a command. Raises OSError with libnftables' message."""
        if self._library.nft_run_cmd_from_buffer(self._context, command.encode()):
            raise OSError(f"cannot read packet filter: {self._error()}")
        said: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        return said.decode()

    def _error(self) -> str:
        said: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        return " ".join(said.decode(errors="replace").split())
