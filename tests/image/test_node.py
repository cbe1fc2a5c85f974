from image import node


def test_the_listing_of_modules_names_packages_libraries_and_the_first_of_two() -> None:
    paths = [
        "usr/lib/zeronode/core0/importer.pyc",
        "usr/lib/zeronode/site/h11/__init__.pyc",
        "usr/lib/zeronode/site/h11/_util.pyc",
        "usr/lib/python3.13/h11/_util.pyc",
        "usr/lib/python3.13/lib-dynload/_ssl.cpython-313-x86_64-linux-gnu.so",
        "usr/lib/python3.13/socket.pyc",
        "usr/lib/python3.12/socket.pyc",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/zeronode/seccomp.bpf",
    ]
    assert node.module_listing(paths, "3.13").splitlines() == [
        "_ssl /usr/lib/python3.13/lib-dynload/_ssl.cpython-313-x86_64-linux-gnu.so",
        "core0.importer /usr/lib/zeronode/core0/importer.pyc",
        "h11 /usr/lib/zeronode/site/h11/__init__.pyc",
        "h11._util /usr/lib/python3.13/h11/_util.pyc",
        "socket /usr/lib/python3.13/socket.pyc",
    ]
