"""PID 1: mounts, modules, devices, supervision, reaping, reboot. Standard library only, synchronous."""
