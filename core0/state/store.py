"""The node's memory while it runs: one state, written to all joined disks before a change is acknowledged.

A copy in /run is kept beside, for the next node daemon of this boot. Without disks it is the only one.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from core0.linux import files
from core0.state.area import Encoded, encode_slot
from core0.state.choose import Choice, choose, relation
from core0.state.model import LONGEST_HISTORY, Area, Copy, Held, Machine, Reading, Relation, State, Term
from core0.wire.control import Refusal, RefusedError, Report
from core0.wire.state import NEWER_IMAGE, StateCopy, StateStatus

# Bytes of all sections together; a slot has half a megabyte more for all else.
LARGEST = 7 << 20
# Who the node is: all that a node remembers which nobody has told anything yet.
IDENTITY = "identity"


class Access(Protocol):
    """Reads and writes areas; `core0.state.disk.Areas` is the one of a node."""

    async def read(self, path: str) -> Reading:
        """What an area holds; one that cannot be read says so."""

    async def write(self, path: str, kept: bytes, encoded: Encoded, alone: bool) -> None:
        """Write a slot beside the one with the mark `kept`, which ends then if `alone`. Raises OSError."""


class _Joined(msgspec.Struct):
    """A disk that takes part: the mark of its newest slot, and whether that one must end with the next write."""

    area: Area
    kept: bytes
    alone: bool


class StateStore:
    """What the node remembers: sections of JSON by name. After making it, `take` what was read of the disks."""

    def __init__(
        self,
        access: Access,
        machine: Machine,
        report: Report,
        memory: str,
        clock: Callable[[], float] = time.time,
        beginning: Mapping[str, bytes] | None = None,
    ) -> None:
        """Begin with what an earlier daemon of this boot left, or as a node that has been told nothing yet.

        Args:
            access: reads and writes areas.
            machine: this machine.
            report: takes events.
            memory: the file for the copy of this boot.
            clock: seconds since 1970.
            beginning: the sections of a node that has been told nothing yet: who it is.
        """
        self._access = access
        self._machine = machine
        self._report = report
        self._memory = memory
        self._clock = clock
        self._term = _new_term()
        self._state = _load(memory) or _fresh(machine, beginning or {})
        self._sequence = self._state.sequence
        self._joined: dict[str, _Joined] = {}
        self._absent: dict[str, StateCopy] = {}
        self._warnings: tuple[str, ...] = ()
        self._is_behind = False
        # What cannot be understood, by area; the same of areas that hold older states of this node beside it.
        self.strange: dict[str, str] = {}
        self._newer: dict[str, str] = {}
        self._turn = asyncio.Lock()
        self._waiting: dict[str, msgspec.Raw | None] = {}
        self._writing: asyncio.Task[None] | None = None
        # Set when a disk turns out to remember more than the node began with: a new daemon shall begin with that.
        self.superseded = asyncio.Event()
        # Whether a disk may still come that remembers this node. Who begins says so, and says when that is over.
        self.expecting = False

    @property
    def node(self) -> str:
        """The node's id."""
        return self._state.node

    @property
    def durable(self) -> bool:
        """Whether what is acknowledged now is on a disk."""
        return bool(self._joined)

    @property
    def ephemeral(self) -> bool:
        """Whether nothing of what the node remembers is on a disk, here or elsewhere."""
        return not self._state.members

    @property
    def outdated(self) -> str:
        """Why all that is known may be outdated: no disk has it but those that hold something newer; else empty."""
        return next(iter(self._newer.values()), "") if self._has_lost_all() else ""

    def get(self, section: str) -> bytes | None:
        """What was acknowledged last for a section, as JSON; None if there is nothing."""
        value = self._state.sections.get(section)
        return None if value is None else bytes(value)

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """The names of sections that begin so, in order."""
        return tuple(sorted(name for name in self._state.sections if name.startswith(prefix)))

    async def put(self, section: str, value: bytes) -> None:
        """Remember JSON under a name. See `change`."""
        await self.change({section: value})

    async def remove(self, section: str) -> None:
        """Forget a section. See `change`."""
        await self.change({section: None})

    async def change(self, values: Mapping[str, bytes | None]) -> None:
        """Remember JSON by name, forget where it is None: all of them or none.

        Returns when it is acknowledged: on all disks that take part, or in memory if the node has none. Changes that
        come while one is written are written together.

        Raises:
            RefusedError: with cause and remedy, if it is too large or no disk is left.
            msgspec.DecodeError: for what is no JSON.
        """
        changes = {name: None if value is None else _raw(value) for name, value in values.items()}
        self._check_size(_changed(self._state.sections, {**self._waiting, **changes}))
        self._waiting.update(changes)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_waiting(), name="state")
            self._writing.add_done_callback(_retrieve)
        # who asked may go away; the others that wait for the same write do not care
        await asyncio.shield(self._writing)

    async def _write_waiting(self) -> None:
        async with self._turn:
            changes, self._waiting, self._writing = self._waiting, {}, None
            if self._has_lost_all():
                outdated = self.outdated
                raise RefusedError(
                    _cannot_understand(outdated) if outdated else _no_disk_left(self._state.members)
                )
            await self._commit(_changed(self._state.sections, changes))

    def take(self, readings: Sequence[Reading]) -> Choice:
        """Begin with what was read of areas at the daemon's start: choose, and let those of this node take part.

        Nothing is written, as a boot waits for this: `catch_up` does that later, or the first change.
        """
        remembered = not self._is_fresh()
        memory = (Reading(self._memory, (Held(Copy("", self._state)),)),) if remembered else ()
        choice = choose((*readings, *memory), self._machine, self._state.node if remembered else None)
        self._warnings = choice.warnings
        for warning in choice.warnings:
            self._report("state", "disks", f"Warning: {warning}")
        if choice.state:
            self._state, self._sequence = choice.state, choice.state.sequence
            for reading in sorted(readings, key=lambda one: one.path):
                self._let_join_again(reading, choice.holders)
            self._save()
            self._is_behind = self._differs(readings)
        for reading in readings:
            self._note_strange(reading)
        return choice

    def _note_strange(self, reading: Reading) -> None:
        self.strange.pop(reading.path, None)
        self._newer.pop(reading.path, None)
        if reading.strange:
            self.strange[reading.path] = reading.strange
            if any(held.copy.state.node == self.node for held in reading.held):
                self._newer[reading.path] = reading.strange

    def _let_join_again(self, reading: Reading, members: Sequence[str]) -> None:
        """Take an area in that holds this node's state, also an old one."""
        held = _newest_of(reading, self._state)
        if held and relation(reading, self._state, members) in ("current", "stale"):
            area = Area(held.copy.disk, reading.path)
            # of two disks that say they are the same one is a copy of the other
            self._joined.setdefault(area.disk, _Joined(area, held.mark, _must_end(reading, self._state)))

    def _differs(self, readings: Sequence[Reading]) -> bool:
        """Whether a joined disk holds something else, or the state tells of another machine."""
        current = {one.path for one in readings if relation(one, self._state, ()) == "current"}
        joined = self._joined.values()
        old = any(one.alone or one.area.path not in current for one in joined)
        return old or (bool(joined) and self._state.machine != self._machine)

    async def catch_up(self) -> None:
        """Write to the disks that were behind when they were taken in, if nothing has been written since."""
        async with self._turn:
            if self._is_behind:
                with contextlib.suppress(RefusedError):  # reported disk by disk
                    await self._commit(self._state.sections)

    def joined(self) -> Mapping[str, str]:
        """The disks that take part: their areas' devices."""
        return {disk: one.area.path for disk, one in self._joined.items()}

    async def join(self, disk: str, path: str, *, overwrite: bool = False) -> None:
        """Let a claimed disk take part: from here on it holds all that is acknowledged.

        Args:
            disk: the id that it got when it was claimed.
            path: its state area's device.
            overwrite: the operator wants whatever it remembers to be overwritten.

        Raises:
            RefusedError: if it cannot be read or written, or remembers something that would be lost.
        """
        area = Area(disk, path)
        if not self._has(area):
            reading = await self._access.read(path)
            self._note_strange(reading)
            await self._join(area, reading, overwrite)

    def _has(self, area: Area) -> bool:
        joined = self._joined.get(area.disk)
        return joined is not None and joined.area == area

    async def _join(self, area: Area, reading: Reading, overwrite: bool) -> None:
        """Let a disk take part that was read a moment ago: nobody writes it before it has joined."""
        disk, path = area.disk, area.path
        async with self._turn:
            if self._has(area):
                return
            found = relation(reading, self._state, self._joined)
            self._check_may_join(area, reading, found, overwrite)
            held = _newest_of(reading, self._state)
            joined = _Joined(area, held.mark if held else b"", _must_end(reading, self._state))
            self._joined[disk] = joined
            self._absent.pop(disk, None)
            if found == "current" and disk in self._state.members and not joined.alone:
                return
            with contextlib.suppress(RefusedError):  # told below, with what is the matter with this disk
                await self._commit(self._state.sections)
            if disk not in self._joined:
                raise RefusedError(_cannot_keep(path, self._absent[disk].why))
            self._report("state", disk, f"Joined: {path} holds the node's state")

    def _check_may_join(self, area: Area, reading: Reading, found: Relation, overwrite: bool) -> None:
        if found == "unread":
            raise RefusedError(_cannot_keep(area.path, reading.error))
        if found == "newer" or (
            found == "foreign" and self._is_fresh() and self._is_of_this_machine(reading)
        ):
            self.superseded.set()
            detail = (
                f"cannot write to {area.path}: it remembers more of this node than was known at its start"
            )
            remedy = "wait a second: the node daemon starts again with what it remembers"
            raise RefusedError(Refusal(503, "unavailable", detail, remedy))
        if found in ("blank", "current", "stale") or (overwrite and found != "strange"):
            return
        why = {
            "foreign": "it belongs to another node",
            "fork": "it remembers changes of this node that this node does not have",
            "strange": f"it remembers something that this image does not understand: {reading.strange}",
        }[found]
        self._absent[area.disk] = StateCopy(area.disk, area.path, False, why)
        detail = f"cannot keep the node's state on {area.path}: {why}"
        adopt = "adopt what it remembers, or claim the disk anew, which forgets that"
        remedy = NEWER_IMAGE if found == "strange" else adopt
        raise RefusedError(Refusal(409, "conflict", detail, remedy))

    def _is_fresh(self) -> bool:
        """Whether nothing is remembered but who the node is, and that only in memory."""
        return self.ephemeral and set(self._state.sections) <= {IDENTITY}

    def _is_of_this_machine(self, reading: Reading) -> bool:
        return any(self._machine.likeness(held.copy.state.machine) for held in reading.held)

    async def welcome(self, reading: Reading) -> None:
        """Deal with an area that answered after the node went on without it, as `take` would have."""
        self._note_strange(reading)
        for held in reading.held[:1]:
            try:
                await self._join(Area(held.copy.disk, reading.path), reading, overwrite=False)
            except RefusedError as error:
                self._report("state", held.copy.disk, f"Warning: {error}; {error.refusal.remedy}")

    async def meet(self, path: str) -> None:
        """Deal with the area of a disk that is not known to be this node's."""
        await self.welcome(await self._access.read(path))

    async def leave(self, disk: str) -> None:
        """Let a disk go that the operator takes from the node. After the last one the node remembers in memory."""
        async with self._turn:
            self._absent.pop(disk, None)
            known = self._joined.pop(disk, None) or disk in self._state.members
            if not known:
                return
            left = () if self._joined else tuple(one for one in self._state.members if one != disk)
            await self._commit(self._state.sections, left)
            self._report("state", disk, "Left: it does not hold the node's state any more")

    async def lose(self, disk: str, why: str) -> None:
        """Note that a disk is gone by itself; the others are told, so that its copy counts as old when it is back."""
        async with self._turn:
            joined = self._joined.get(disk)
            if joined:
                self._drop(joined.area, why)
                if self._joined:
                    with contextlib.suppress(RefusedError):  # reported disk by disk
                        await self._commit(self._state.sections)

    async def adopt(self, path: str, others: Sequence[str] = ()) -> None:
        """Be the node that an area remembers: the operator says that this machine is that node now.

        A disk of this node's own, if it has any, takes that state, too, so the node must be the same, or have none.
        The node daemon must start again then (`superseded`).

        Args:
            path: the area.
            others: areas that may remember the same; not asked if the node is this one.

        Raises:
            RefusedError: if it remembers nothing, or this node has disks of its own.
        """
        async with self._turn:
            reading = await self._access.read(path)
            node = self._check_may_adopt(reading)
            more = (
                [] if node == self.node else [await self._access.read(one) for one in others if one != path]
            )
            readings = [
                reading,
                *(one for one in more if {held.copy.state.node for held in one.held} == {node}),
            ]
            state = choose(readings, self._machine, node).state
            assert state  # noqa: S101 — one of the readings has it
            before, self._state = self._state, state
            self._term, self._sequence = _new_term(), max(self._sequence, state.sequence)
            for joined in self._joined.values():
                joined.alone = True
            for reading in readings:
                self._let_join_again(reading, ())
            try:
                await self._commit(state.sections)
            except RefusedError:
                self._state = before
                raise
            named = ", ".join(one.path for one in readings)
            self._report("state", state.node, f"Adopted: this machine is the node that {named} remember")
            self.superseded.set()

    def _check_may_adopt(self, reading: Reading) -> str:
        """Returns the node that it would be."""
        if reading.error:
            raise RefusedError(_cannot_keep(reading.path, reading.error))
        if reading.strange:
            raise RefusedError(_cannot_understand(reading.strange))
        nodes = sorted({held.copy.state.node for held in reading.held})
        if len(nodes) != 1:
            detail = f"cannot adopt what {reading.path} remembers: it has states of {len(nodes)} nodes"
            remedy = "name a disk of one node; 'zn node state' lists them"
            raise RefusedError(Refusal(409, "conflict", detail, remedy))
        if nodes[0] != self.node and not self.ephemeral:
            detail = f"cannot adopt node {nodes[0]}: this node remembers itself on disks of its own"
            remedy = "take these disks from the node first, or claim the other one anew"
            raise RefusedError(Refusal(409, "conflict", detail, remedy))
        return nodes[0]

    def status(self) -> StateStatus:
        """For the API and the node's health."""
        missing = set(self._state.members) - set(self._joined) - set(self._absent)
        copies = (
            *(StateCopy(one.area.disk, one.area.path, True, _HOLDS) for one in self._joined.values()),
            *self._absent.values(),
            *(StateCopy(disk, "", False, "it has not come back since the last start") for disk in missing),
        )
        return StateStatus(
            node=self._state.node,
            durable=self.durable,
            sequence=self._state.sequence,
            bytes=_size(self._state.sections),
            copies=tuple(sorted(copies, key=lambda copy: copy.disk)),
            warnings=self._warnings,
        )

    def _has_lost_all(self) -> bool:
        """Whether the node had disks and has none: then memory alone must not acknowledge."""
        return not self.ephemeral and not self._joined

    async def _commit(self, sections: Mapping[str, msgspec.Raw], missing: tuple[str, ...] = ()) -> None:
        """Write a new state to all that have joined; again without those that fail; at last to memory."""
        had = bool(self._joined)
        while True:
            state = self._next(sections, missing)
            writing = [self._write(one, state) for one in self._joined.values()]
            failed = [one for one in await asyncio.gather(*writing) if one]
            for area, why in failed:
                self._drop(area, why)
            if not failed:
                break
            if had and not self._joined:
                raise RefusedError(_no_disk_left(state.members))
        self._state = state
        self._is_behind = False
        self._save()

    def _next(self, sections: Mapping[str, msgspec.Raw], missing: tuple[str, ...]) -> State:
        self._sequence += 1
        # what was tried and never acknowledged belongs to the term, too: it counts as old where it is found again
        self._term = self._term if self._term.first else Term(self._term.name, self._sequence)
        history = self._state.history
        if history[-1] != self._term:
            history = (*history, self._term)[-LONGEST_HISTORY:]
        return State(
            node=self._state.node,
            sequence=self._sequence,
            history=history,
            members=tuple(sorted({*self._joined, *missing})),
            machine=self._machine,
            changed=self._state.changed if sections == self._state.sections else max(0, int(self._clock())),
            sections=sections,
        )

    async def _write(self, joined: _Joined, state: State) -> tuple[Area, str] | None:
        """Write a state to one disk; returns the disk and why, if that failed."""
        encoded = encode_slot(state.sequence, msgspec.json.encode(Copy(joined.area.disk, state)))
        try:
            await self._access.write(joined.area.path, joined.kept, encoded, joined.alone)
        except OSError as error:
            return joined.area, error.strerror or str(error)
        joined.kept, joined.alone = encoded.mark, False
        return None

    def _drop(self, area: Area, why: str) -> None:
        del self._joined[area.disk]
        self._absent[area.disk] = StateCopy(area.disk, area.path, False, why)
        self._report("state", area.disk, f"Lost: {area.path} does not hold the node's state any more: {why}")

    def _save(self) -> None:
        """Write the copy of this boot."""
        try:
            files.replace(self._memory, msgspec.json.encode(self._state), 0o600)
        except OSError as error:
            detail = f"cannot write {self._memory}: {error.strerror}"
            raise RefusedError(Refusal(507, "full", detail, "give the machine more memory")) from None

    def _check_size(self, sections: Mapping[str, msgspec.Raw]) -> None:
        size = _size(sections)
        if size > LARGEST:
            detail = f"cannot remember it: all that the node remembers would have {size} bytes of at most {LARGEST}"
            raise RefusedError(Refusal(507, "full", detail, "remove containers or volumes that are not used"))


_HOLDS = "it holds all that was acknowledged"


def _load(memory: str) -> State | None:
    """What an earlier daemon of this boot left."""
    try:
        return msgspec.json.decode(files.read(memory), type=State)
    except FileNotFoundError:
        return None


def _new_term() -> Term:
    """A term that has not written anything yet."""
    return Term(os.urandom(16).hex(), 0)


def _fresh(machine: Machine, sections: Mapping[str, bytes]) -> State:
    """A node that remembers nothing yet."""
    known = {name: _raw(value) for name, value in sections.items()}
    return State(os.urandom(16).hex(), 1, (Term(os.urandom(16).hex(), 1),), (), machine, 0, known)


def _raw(value: bytes) -> msgspec.Raw:
    """JSON as it is, once it is known to be JSON: anything else would spoil the whole state."""
    msgspec.json.decode(value)
    return msgspec.Raw(value)


def _changed(
    sections: Mapping[str, msgspec.Raw], changes: Mapping[str, msgspec.Raw | None]
) -> dict[str, msgspec.Raw]:
    return {name: value for name, value in {**sections, **changes}.items() if value is not None}


def _size(sections: Mapping[str, msgspec.Raw]) -> int:
    return len(msgspec.json.encode(sections))


def _newest_of(reading: Reading, state: State) -> Held | None:
    """The copy to keep until the next one is written: rather one that the state was made of."""
    return max(reading.held, key=lambda held: (_is_part(held, state), held.copy.state.sequence), default=None)


def _must_end(reading: Reading, state: State) -> bool:
    """Whether an area holds something that the state was not made of, which must never be chosen later."""
    return bool(reading.strange) or not all(_is_part(held, state) for held in reading.held)


def _is_part(held: Held, state: State) -> bool:
    return held.copy.state.node == state.node and state.comes_from(held.copy.state)


def _cannot_keep(path: str, why: str) -> Refusal:
    detail = f"cannot keep the node's state on {path}: {why}"
    return Refusal(503, "unavailable", detail, "look at the disk's health; replace it")


def _cannot_understand(why: str) -> Refusal:
    return Refusal(409, "conflict", f"cannot use what the node's disks remember: {why}", NEWER_IMAGE)


def _no_disk_left(members: Sequence[str]) -> Refusal:
    detail = (
        f"cannot remember it: none of the disks is left that hold the node's state ({', '.join(members)})"
    )
    remedy = "look at the disks' health; put them back or claim another; it may or may not be remembered"
    return Refusal(503, "unavailable", detail, remedy)


def _retrieve(task: asyncio.Task[None]) -> None:
    """All who waited may be gone: the error is nobody's then."""
    if not task.cancelled():
        task.exception()
