"""The life of processes: model, spawn, reap, logs."""
