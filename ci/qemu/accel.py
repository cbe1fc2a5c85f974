"""How QEMU executes the guest: the two ways, and how far deadlines stretch with each."""

import os
from dataclasses import dataclass
from typing import Literal

# Stretches every deadline further, for machines that are busy or slow: a factor such as 2.5.
SCALE_VARIABLE = "ZN_DEADLINE_SCALE"


@dataclass(frozen=True)
class Acceleration:
    """One way of executing guests.

    Attributes:
        name: as QEMU and people call it.
        arguments: the words of QEMU's command line.
        scale: by how much deadlines stretch, against KVM on an idle machine.
    """

    name: Literal["kvm", "tcg", "icount"]
    arguments: tuple[str, ...]
    scale: float

    def seconds(self, deadline: float) -> float:
        """A deadline for this machine, from one for KVM."""
        return deadline * self.scale * float(os.environ.get(SCALE_VARIABLE, "1"))


KVM = Acceleration("kvm", ("-accel", "kvm", "-cpu", "host"), 1.0)
# A boot of 1 s under KVM takes 5 to 8 s translated; the rest is for other work on the same cores.
# Without ERMS: a kernel that sees it clears and copies each page by one `rep` instruction per page, which the
# translator carries out byte by byte (a twentieth of a boot).
TCG = Acceleration("tcg", ("-accel", "tcg,thread=multi", "-cpu", "max,-erms"), 12.0)
# The guest's clock counts its instructions, two nanoseconds each: how busy the host is does not matter.
ICOUNT = Acceleration("icount", ("-accel", "tcg", "-icount", "shift=1", "-cpu", "max,-erms"), 20.0)
