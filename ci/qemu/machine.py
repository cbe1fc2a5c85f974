"""A machine as its user sees it: verbs that act on it and verbs that wait for what it does."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ci.qemu import faults as disk_faults
from ci.qemu import ports, process, scratch
from ci.qemu.accel import Acceleration
from ci.qemu.console import Console, ConsoleError
from ci.qemu.devices import Slots
from ci.qemu.monitor import Monitor, MonitorError
from ci.qemu.spec import CONSOLE, Disk, Fault, MachineSpec, Nic, UserNic, Wiring, argv, card_name
from core0.wire.console import Phase

CONSOLE_LOG = "console.log"
ERROR_LOG = "qemu.log"
# For QEMU's own work, which no guest slows down: ending, resetting, saving to disk.
_QEMU_SECONDS = 10.0


class Machine:
    """One QEMU machine, tied to this process and to an `async with` block.

    Deadlines are given in seconds for a machine under KVM; the acceleration's scale stretches them.
    """

    def __init__(self, spec: MachineSpec, acceleration: Acceleration, folder: Path) -> None:
        """Describe the machine; `start` makes it run.

        Args:
            spec: what it is.
            acceleration: how it runs, from `ci.qemu.accel.choose`.
            folder: its own folder, for the console log, QEMU's messages and the scratch disk.
        """
        self.spec = spec
        self.acceleration = acceleration
        self.folder = folder
        self.console = Console(spec.name)
        self.monitor = Monitor(spec.name)
        self._process: process.Running | None = None
        self._slots = Slots(spec, self.monitor)
        self._follower: asyncio.Task[None] | None = None
        self._keyboard: asyncio.StreamWriter | None = None
        self._boot_line = 0

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def console_log(self) -> Path:
        """The file with every byte of the serial console, kept after the machine has ended."""
        return self.folder / CONSOLE_LOG

    @property
    def pid(self) -> int | None:
        """QEMU's process identifier, None before the start."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start QEMU, tied to this process, and let the guest run.

        Raises:
            StartError: QEMU did not start; its own words are in the message.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch_disk = await scratch.create(self.folder) if self.spec.snapshots else None
        our_monitor, its_monitor = socket.socketpair()
        our_console, its_console = socket.socketpair()
        with its_monitor, its_console, ExitStack() as unused:
            unused.enter_context(our_monitor)
            unused.enter_context(our_console)
            inherited = (its_monitor.fileno(), its_console.fileno())
            wiring = Wiring(*inherited, self.console_log, scratch=scratch_disk)
            words = argv(self.spec, self.acceleration.arguments, wiring)
            running = await process.start_tied(words, inherited, self.folder / ERROR_LOG)
            unused.pop_all()
        await self.adopt(running, our_monitor, our_console)
        for disk in self.spec.disks:
            if disk.hangs:
                await disk_faults.hang(self.monitor, disk)
        await self.monitor.execute("cont")

    async def adopt(self, running: process.Running, monitor: socket.socket, console: socket.socket) -> None:
        """Take over a QEMU that runs: its process and the connected sockets of its monitor and console.

        Raises:
            StartError: it ended before its monitor answered.
        """
        self._process = running
        self._boot_line = self.console.boot_line  # a log read before may hold earlier boots
        reader, self._keyboard = await asyncio.open_connection(sock=console)
        self._follower = asyncio.create_task(self.console.follow(reader))
        try:
            await self.monitor.connect(monitor)
        except MonitorError as error:
            words = process.read_words(self.folder / ERROR_LOG)
            raise process.StartError(f"cannot start machine {self.spec.name}: {words or error}") from error

    async def close(self) -> None:
        """Let go: a tied machine ends, a detached one runs on. The console stays readable."""
        if self._process:
            await self._process.release()
        await self.monitor.close()
        if self._keyboard:
            self._keyboard.close()
        if self._follower:
            await self._follower

    async def type(self, text: str) -> None:
        """Send text to the serial console, as if typed."""
        if self._keyboard:
            self._keyboard.write(text.encode())
            await self._keyboard.drain()

    async def wait_for_phase(self, name: str, deadline: float) -> Phase:
        """Wait until the current boot reports a phase as done; a failed phase raises at once."""
        return await self.console.wait_for_phase(name, self._scaled(deadline), self._boot_line)

    async def wait_for_line(self, pattern: str, deadline: float, start: int | None = None) -> str:
        """Wait for a console line in which the regular expression is found.

        Args:
            pattern: the regular expression.
            deadline: seconds under KVM.
            start: first line to look at; by default the start of the current boot.
        """
        first = self._boot_line if start is None else start
        return await self.console.wait_for_line(pattern, self._scaled(deadline), first)

    async def wait_for_exit(self, deadline: float) -> None:
        """Wait until QEMU has ended by itself: the guest powered off, or rebooted and `on_reboot` says so."""
        if self._process and not await self._process.ended(self._scaled(deadline)):
            raise ConsoleError(
                f"cannot see the end of machine {self.spec.name}: it still runs after "
                f"{self._scaled(deadline):.0f} s; its console ends with\n{self.console.tail()}"
            )
        if self._follower:
            await self._follower

    async def wait_for_port(self, guest_port: int, deadline: float) -> int:
        """Wait until the guest accepts connections on a TCP port; returns the host port that leads there."""
        host_port = await self.forward(guest_port)
        try:
            async with asyncio.timeout(self._scaled(deadline)):
                await ports.wait_accepting(self.monitor, host_port)
        except TimeoutError:
            raise ConsoleError(
                f"cannot connect to port {guest_port} of machine {self.spec.name}: nothing listens after "
                f"{self._scaled(deadline):.0f} s; its console ends with\n{self.console.tail()}"
            ) from None
        return host_port

    async def forward(self, guest_port: int) -> int:
        """The loopback port of the host that leads to a guest's TCP port; the same one each time.

        It leads through the first card of the specification that is on QEMU's own network.

        Raises:
            ValueError: there is none.
        """
        known = await ports.find_forward(self.monitor, guest_port)
        if known:
            return known
        cards = [nic.name for nic in self.spec.nics if isinstance(nic, UserNic)]
        if not cards:
            raise ValueError(
                f"cannot forward a port to machine {self.spec.name}: no card of its specification is on QEMU's own "
                "network; give it a UserNic"
            )
        return await ports.add_forward(self.monitor, cards[0], guest_port)

    async def plug_disk(self, disk: Disk) -> None:
        """Add a disk to the running machine: virtio or NVMe, because QEMU has no hot-plug for AHCI."""
        await self._slots.plug_disk(disk)

    async def plug_nic(self, nic: Nic) -> None:
        """Add a network card to the running machine."""
        await self._slots.plug_nic(nic)

    async def pull(self, name: str, deadline: float) -> None:
        """Take a disk or a plugged card away, and wait until the guest has let go of it; it may be writing.

        Args:
            name: the name of the disk or card.
            deadline: seconds under KVM; a guest without a driver for hot-plug never lets go.
        """
        await self._slots.pull(name, self._scaled(deadline))

    async def fail_disk(self, name: str, *faults: Fault) -> None:
        """Let a disk answer such requests with errors from now on, and no others."""
        await disk_faults.inject(self.monitor, self._slots.disk(name), faults)

    async def hang_disk(self, name: str) -> None:
        """Let a disk answer nothing any more: requests wait until `mend_disk`, or for ever."""
        await disk_faults.hang(self.monitor, self._slots.disk(name))

    async def mend_disk(self, name: str) -> None:
        """Let a disk answer everything again; what waited is answered, too."""
        disk = self._slots.disk(name)
        await disk_faults.resume(self.monitor, disk)
        await disk_faults.clear(self.monitor, disk)

    async def warn_of_disk(self, name: str, warning: int = 4) -> None:
        """Let an NVMe disk warn in its health log (NVMe 1.4, 5.14.1.2).

        Args:
            name: the disk's.
            warning: the bits of its critical warning: 4, its reliability is degraded; 0 takes it back.
        """
        await disk_faults.warn(self.monitor, self._slots.disk(name), warning)

    async def take_carrier(self, nic: str) -> None:
        """Let a card see no carrier, as without its cable, until `give_carrier`."""
        await self.monitor.execute("set_link", name=card_name(nic), up=False)

    async def give_carrier(self, nic: str) -> None:
        """Let a card see its carrier again."""
        await self.monitor.execute("set_link", name=card_name(nic), up=True)

    async def press_power(self) -> None:
        """Press the power button: the guest decides what follows (ACPI)."""
        await self.monitor.execute("system_powerdown")

    async def press_sysrq(self, key: str) -> None:
        """Send a break and a key over the serial console (Documentation/admin-guide/sysrq.rst).

        The guest must allow it: `sysrq_always_enabled` on its command line.
        """
        await self.monitor.execute("chardev-send-break", id=CONSOLE)
        await self.type(key)

    async def cut_power(self) -> None:
        """Take the power away (SIGKILL): nothing in the guest or in QEMU gets to finish anything.

        What the guest's disks have answered is in their files, as of disks whose cache has a battery.
        """
        if self._process:
            self._process.kill()
        await self.wait_for_exit(_QEMU_SECONDS)

    async def power_on(self) -> None:
        """Start a machine that has ended: the same specification on the same disk files; what was plugged is gone.

        Raises:
            StartError: QEMU did not start.
        """
        await self.close()
        first = len(self.console.lines)
        self.console.reopen()
        self.monitor = Monitor(self.spec.name)
        self._slots = Slots(self.spec, self.monitor)
        await self.start()
        self._boot_line = first

    async def reset(self) -> None:
        """Press the reset button; waits look at the new boot from now on."""
        async with self.monitor.expect("RESET", _QEMU_SECONDS):
            self._boot_line = len(self.console.lines)
            await self.monitor.execute("system_reset")

    @asynccontextmanager
    async def expect_reboot(self, deadline: float) -> AsyncIterator[None]:
        """Run the body, which makes the guest reboot, and wait until it does; waits look at the new boot then."""
        async with self.monitor.expect("RESET", self._scaled(deadline)):
            yield
        self._boot_line = len(self.console.lines)

    async def quit(self) -> None:
        """End QEMU in order, its disks flushed."""
        with suppress(MonitorError):  # it may end before its answer arrives
            await self.monitor.execute("quit")
        await self.wait_for_exit(_QEMU_SECONDS)

    async def snapshot(self, name: str) -> None:
        """Keep the machine's RAM and disks under a name. Needs `MachineSpec.snapshots`."""
        await scratch.save(self.monitor, self.spec, name)

    async def restore(self, name: str) -> None:
        """Go back to a snapshot. Forwards stay; connections of the time after it are lost."""
        await scratch.load(self.monitor, self.spec, name)

    def _scaled(self, deadline: float) -> float:
        return self.acceleration.seconds(deadline)
