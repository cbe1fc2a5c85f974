"""The QEMU library: machines of a frozen specification, driven by verbs that wait for facts, not for time.

The way of a machine: `MachineSpec` → `argv` → a QEMU process tied to ours → `Machine` with its `Console` and
its `Monitor`. Nothing here knows a test framework; `tests/vm/conftest.py` and `zn up` use the same verbs.
"""
