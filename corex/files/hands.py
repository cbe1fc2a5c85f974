"""Threads that wait for storage, so that the event loop does not.

There are a few, for all who ask: a thread that waits for a dead device cannot be ended, and costs the others nothing
but its place. They go when there has been nothing to do for a while: a Core-X at rest has none.
"""

import asyncio
import errno
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
MOST = 4
# Seconds without work until a thread ends.
REST = 5.0
# Seconds until storage counts as one that does not answer.
DEADLINE = 30.0


class HungError(Exception):
    """Storage does not answer; what was asked of it may still happen."""


class Hands:
    """The threads, as the event loop sees them."""

    def __init__(self, most: int = MOST, rest: float = REST) -> None:
        self._most, self._rest = most, rest
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._busy = 0

    async def do(self, job: Callable[..., T], *arguments: Any) -> T:
        """Call a function that blocks; whatever it raises is raised here.

        A result that comes too late for whoever waited is closed, if it has `close`.

        Raises:
            HungError: it did not end in time.
            OSError: EAGAIN, there is no thread and none can be made (pthread_create(3)); it was not called.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def order() -> None:
            try:
                result = job(*arguments)
            except BaseException as error:  # noqa: BLE001  # it is raised where somebody waits
                _tell(loop, _refuse, answer, error)
            else:
                _tell(loop, _give, answer, result)

        if not self._give_out(order):
            raise OSError(
                errno.EAGAIN, "no thread can be made: the container has as many processes as it may"
            )
        try:
            async with asyncio.timeout(DEADLINE):
                return await answer
        except TimeoutError:
            raise HungError(f"the container's storage did not answer for {DEADLINE:.0f} s") from None

    def later(self, job: Callable[..., object], *arguments: Any) -> None:
        """Have a function called that nobody waits for; what the kernel refuses it is passed over.

        Where no thread can be made it waits for the next one.
        """

        def order() -> None:
            with suppress(OSError):
                job(*arguments)

        self._give_out(order, can_wait=True)

    def _give_out(self, order: Callable[[], None], *, can_wait: bool = False) -> bool:
        """Hand an order to the threads; false if there is none, and the order cannot wait for one."""
        with self._lock:
            if self._busy >= self._threads and self._threads < self._most:
                # CPython has no error of its own for what pthread_create(3) refuses
                with suppress(RuntimeError):
                    threading.Thread(target=self._work, name="files", daemon=True).start()
                    self._threads += 1
            if not (self._threads or can_wait):
                return False
            self._orders.put(order)
            self._busy += 1
            return True

    def _work(self) -> None:
        while True:
            try:
                order = self._orders.get(timeout=self._rest)
            except queue.Empty:
                with self._lock:
                    if self._orders.empty():
                        self._threads -= 1
                        return
                continue
            order()
            del order  # with it goes what it was called with
            with self._lock:
                self._busy -= 1


def _tell(loop: asyncio.AbstractEventLoop, deliver: Callable[..., None], *arguments: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody needs the answer
        loop.call_soon_threadsafe(deliver, *arguments)


def _give(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)
    elif callable(close := getattr(result, "close", None)):
        close()


def _refuse(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
