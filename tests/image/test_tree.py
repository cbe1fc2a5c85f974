"""Composing a tree: merged /usr, conflicts, globs, empty folders."""

import pytest

from image.tree import (
    TreeError,
    compose,
    digest,
    drop,
    file,
    folder,
    link,
    merged_usr_links,
    normalise,
    without_empty_folders,
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("./usr/bin/python3", "usr/bin/python3"),
        ("/bin/sh", "usr/bin/sh"),
        ("lib64/ld.so", "usr/lib64/ld.so"),
        ("./", ""),
        ("lib", "lib"),
        ("etc//passwd", "etc/passwd"),
    ],
)
def test_paths_are_relative_to_a_merged_root(path: str, expected: str) -> None:
    assert normalise(path) == expected


def test_a_path_that_leaves_the_tree_is_refused() -> None:
    with pytest.raises(TreeError, match="it leaves the tree"):
        normalise("usr/../../etc/passwd")


def test_two_packages_with_the_same_path_conflict_by_name() -> None:
    with pytest.raises(TreeError, match="cannot place /etc/a: both one and two bring it"):
        compose([file("etc/a", b"1", "one"), file("etc/a", b"2", "two")])


def test_the_same_file_and_shared_folders_are_no_conflict() -> None:
    tree = compose([folder("etc", "one"), folder("etc", "two", 0o700), file("etc/a", b"1", "one")])
    assert compose([*tree.values(), file("etc/a", b"1", "two")]) == tree


def test_a_file_below_a_file_is_refused() -> None:
    with pytest.raises(TreeError, match="makes /etc a file"):
        compose([file("etc", b"", "one"), file("etc/a", b"", "two")])


def test_missing_parent_folders_are_made() -> None:
    assert list(compose([file("a/b/c", b"", "t")])) == ["a", "a/b", "a/b/c"]


def test_links_of_merged_usr_lead_to_what_is_there() -> None:
    tree = compose([file("lib/x", b"", "t"), file("usr/sbin/y", b"", "t")])
    assert [(entry.path, entry.content) for entry in merged_usr_links(tree)] == [
        ("lib", b"usr/lib"),
        ("sbin", b"usr/sbin"),
    ]


def test_keep_protects_from_drop() -> None:
    entries = [file("doc/a", b"", "t"), file("doc/b", b"", "t"), file("c", b"", "t")]
    assert [entry.path for entry in drop(entries, ["doc/*"], ["*/b"])] == ["doc/b", "c"]


def test_without_globs_nothing_is_dropped() -> None:
    entries = [file("a", b"", "t")]
    assert drop(entries, [], []) == entries


def test_empty_folders_go_unless_wanted() -> None:
    tree = compose([folder("a/b", "t"), folder("proc", "t"), link("c/d", "x", "t")])
    assert list(without_empty_folders(tree, ["proc"])) == ["c", "c/d", "proc"]


def test_the_digest_sees_content_mode_and_owner_but_not_origin() -> None:
    one = compose([file("a", b"1", "one")])
    assert digest(one) == digest(compose([file("a", b"1", "two")]))
    assert digest(one) != digest(compose([file("a", b"1", "one", 0o755)]))
    assert digest(one) != digest(compose([file("a", b"2", "one")]))
