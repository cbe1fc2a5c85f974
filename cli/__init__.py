"""The command `zn`, on top of the clients, the builder and the QEMU library."""
