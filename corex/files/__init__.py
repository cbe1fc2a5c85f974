"""A container's files: resolved below its root, read, written, packed and unpacked by descriptors."""
