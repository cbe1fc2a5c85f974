"""The QEMU library and the checks."""
