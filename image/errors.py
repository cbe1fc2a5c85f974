"""The root of the builder's errors.

ImageError
├─ ManifestError, LockError, ContentsError    what a person or a program wrote cannot be used
├─ AptError, WheelError                       the resolvers refuse
├─ FetchError ─ GoneError                     a file cannot be had, or no source has it any more
├─ DebError, TreeError, ElfError, ModuleError a package is not what the builder expects
├─ PolicyError                                the container filter cannot be made
├─ ProgramError                               a program of the image cannot run on this host
├─ BytecodeError, StorageError                the image's Python cannot compile, its mkfs.erofs cannot pack
├─ LayoutError                                a folder is no OCI layout whose images can be signed
├─ WriteError                                 the disk is full, or a folder cannot be written
└─ CpioError                                  an archive is damaged
"""


class ImageError(Exception):
    """Something that the operator can mend: the message says what, the cause and the remedy."""
