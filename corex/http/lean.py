"""Aiohttp's server modules without its client, which the package's own `__init__` would import first.

Importing any module of aiohttp runs `aiohttp/__init__.py`, and that imports the whole client: some 60 of
165 ms on a fast machine, ten times that on an emulated node, in each process that only serves. So `aiohttp`
enters `sys.modules` as a package that runs its `__init__` when somebody first asks it for a name of its own
(PEP 562), as the client does. Whoever writes `import aiohttp; aiohttp.ClientSession` notices nothing.

All server-side code of ours gets aiohttp's names from here. Import this module before aiohttp; if aiohttp is
already there, nothing is changed.
"""

import importlib.machinery
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


def _run_init(package: ModuleType, spec: ModuleSpec) -> None:
    del package.__dict__["__getattr__"]
    if spec.loader is None:
        raise ImportError("cannot import aiohttp: it has no loader; reinstall it", name="aiohttp")
    spec.loader.exec_module(package)


def _defer_init(name: str) -> None:
    spec = importlib.machinery.PathFinder.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"cannot import {name}: not installed; run zn up", name=name)
    package = importlib.util.module_from_spec(spec)

    def missing(attribute: str) -> object:
        # `from . import x` asks for the attribute first and imports the submodule when there is none.
        is_private = attribute.startswith("__")
        if is_private or importlib.machinery.PathFinder.find_spec(f"{name}.{attribute}", package.__path__):
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        _run_init(package, spec)
        return getattr(package, attribute)

    package.__dict__["__getattr__"] = missing
    # aiohttp.http reads it for the Server header, which we never send.
    package.__dict__["__version__"] = "0"
    sys.modules[name] = package


if "aiohttp" not in sys.modules:
    _defer_init("aiohttp")

from aiohttp.abc import AbstractStreamWriter  # noqa: E402  # after the deferral, which is this module's purpose
from aiohttp.http_exceptions import HttpProcessingError  # noqa: E402
from aiohttp.web_protocol import RequestHandler  # noqa: E402
from aiohttp.web_request import BaseRequest  # noqa: E402
from aiohttp.web_response import Response, StreamResponse  # noqa: E402
from aiohttp.web_server import Server  # noqa: E402

__all__ = [
    "AbstractStreamWriter",
    "BaseRequest",
    "HttpProcessingError",
    "RequestHandler",
    "Response",
    "Server",
    "StreamResponse",
]
