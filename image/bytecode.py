"""Byte code in place of source, made by the image's own Python.

Byte code belongs to one Python version, and not importing source is the largest saving of a node's boot
(docs/decisions/0001-carrying-the-root.md). The image's own interpreter compiles (image/runtime.py), so nothing
of the host's Python decides what the bytes are.

`a/b.py` becomes `a/b.pyc`, which the import system takes when no source is there (PEP 3147, "legacy"
layout). Its header says "unchecked hash" (PEP 552): no times, no source needed. Tracebacks name the source.
Docstrings and assertions of other people's code are left out (a seventh of a process's memory). Of our own only
classes keep their docstrings: the API's document has them, and dataclasses without one make a signature text of
themselves at each import. The columns of instructions are left out, too: a traceback names the line, not the place
in it.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from image import runtime
from image.errors import ImageError
from image.tree import Entry, file

# Two processes whatever the machine has: the split decides which interned strings a marshalled file may
# share with its forerunners, so it must not depend on the number of cores.
_PROCESSES = 2

_COMPILE = r"""
import sys, marshal, _ast, _imp
from importlib._bootstrap_external import _code_to_hash_pyc as to_pyc  # py_compile, without its imports
def read(count):
    return sys.stdin.buffer.read(count)
def forget_docstrings(node):
    if isinstance(node, (_ast.Module, _ast.FunctionDef, _ast.AsyncFunctionDef)) and node.body:
        first = node.body[0]
        words = first.value if isinstance(first, _ast.Expr) else None
        if isinstance(words, _ast.Constant) and isinstance(words.value, str):
            words.value = ...  # an expression without effect, which the compiler drops
    for child in getattr(node, "body", ()):
        forget_docstrings(child)
while head := sys.stdin.buffer.readline():
    path, size = head.decode().rsplit(" ", 1)
    source = read(int(size))
    ours = path.startswith(("/usr/lib/zeronode/core0/", "/usr/lib/zeronode/corex/"))
    if ours:
        source = compile(source, path, "exec", _ast.PyCF_ONLY_AST, dont_inherit=True)
        forget_docstrings(source)
    code = compile(source, path, "exec", dont_inherit=True, optimize=0 if ours else 2)
    pyc = to_pyc(code, _imp.source_hash(0x6d5e3f1c, b""), False)
    sys.stdout.buffer.write(b"%d\n" % len(pyc) + pyc)
"""


class BytecodeError(ImageError):
    """The image's Python refuses a source file."""


def compile_sources(sources: Sequence[Entry], folder: Path, arch: str, python: str) -> list[Entry]:
    """The byte code of some source files, each under its name with a `c` more; `folder` has the runtime."""
    options = ("-sSPB", "-X", "no_debug_ranges", "-c", _COMPILE)
    command = [*runtime.command(folder, arch, f"python{python}"), *options]
    slices = [sources[start::_PROCESSES] for start in range(_PROCESSES)]
    with ThreadPoolExecutor(_PROCESSES) as pool:
        done = list(pool.map(lambda part: _compile(command, part), slices))
    return [entry for part in done for entry in part]


def _compile(command: Sequence[str], sources: Sequence[Entry]) -> list[Entry]:
    request = b"".join(
        b"/%s %d\n%s" % (source.path.encode(), len(source.content), source.content) for source in sources
    )
    done = runtime.run(command, request, {"PYTHONHASHSEED": "0"})
    if done.returncode:
        raise BytecodeError(f"cannot compile: {_last_words(done.stderr.decode(errors='replace'))}")
    return list(_answers(done.stdout, sources))


def _last_words(traceback: str) -> str:
    """What Python says of a source file, without where in our program it said so."""
    lines = traceback.strip().splitlines()
    where = next((line.strip() for line in lines if line.startswith('  File "/usr/')), "")
    return f"{where}: {lines[-1]}" if where and lines else traceback.strip()


def _answers(answer: bytes, sources: Iterable[Entry]) -> Iterable[Entry]:
    offset = 0
    for source in sources:
        end = answer.index(b"\n", offset)
        size = int(answer[offset:end])
        offset = end + 1 + size
        yield file(source.path + "c", answer[end + 1 : offset], source.origin)
