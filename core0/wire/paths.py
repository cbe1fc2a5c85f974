"""Where things lie on a node. The root is read-only; all that changes lives in memory below /run."""

SENTINEL = "/etc/zn/sentinel"
IMAGE = "/etc/zn/image.json"
ENTRY = "/init"
SECCOMP = "/usr/lib/zeronode/seccomp.bpf"
RECEIVE_SECCOMP = "/usr/lib/zeronode/receive.bpf"
PULL_SECCOMP = "/usr/lib/zeronode/pull.bpf"
# Drivers of disks, file systems and their programs: an EROFS file, and the folder that it is mounted at.
STORAGE_FILE = "/usr/lib/zeronode/storage.erofs"
STORAGE = "/usr/lib/zeronode/storage"

RUN = "/run/zn"
# One console line per boot phase, appended by PID 1 and the node daemon; `/v1/boot` reads it.
BOOT_LOG = "/run/zn/boot.log"
# PID 1 takes `reboot` and `poweroff` here, as one datagram from root.
INIT_SOCKET = "/run/zn/init.sock"
# PID 1 writes the wait status of each container's Core-X here, in a file named by its pid.
EXITS = "/run/zn/exits"
# The API process asks the node daemon here.
NODE_SOCKET = "/run/zn/node.sock"
# The node daemon asks the template process for containers here.
TEMPLATE_SOCKET = "/run/zn/template.sock"
CONTAINERS = "/run/zn/containers"
# Secrets of containers, each a file that only root may read.
SECRETS = "/run/zn/secrets"
POOLS = "/run/zn/pools"
MEMORY_VOLUMES = "/run/zn/volumes"
LEASES = "/run/zn/leases.json"
# Where /etc/resolv.conf leads: whom the node's own programs ask for names.
RESOLVER = "/run/zn/resolv.conf"
# chronyd's folder, and what it is told.
CLOCK = "/run/zn/clock"
CLOCK_CONFIG = "/run/zn/chrony.conf"
# What the config in force says of the links, for a node daemon that starts again.
LINKS = "/run/zn/links.json"
# A ramfs: EROFS mounts a plain file from it, which it does not from a tmpfs.
IMAGES = "/run/zn/images"
# Where layers of a pool are mounted: nothing of it may stay when the pool goes.
POOL_LAYERS = "/run/zn/pool-layers"

CGROUP = "/sys/fs/cgroup"
CGROUP_SYSTEM = "/sys/fs/cgroup/system"
CGROUP_CONTAINERS = "/sys/fs/cgroup/containers"

API_USER = 900
PULL_USER = 901
NAMES_USER = 902
CLOCK_USER, CLOCK_USER_NAME = 903, "core0-clock"
