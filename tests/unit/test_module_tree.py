"""Trees of commits that would leave their directory, or put something where it must not be, are refused."""

import pytest

from helmd.model.modules.tree import Tree, TreeEntry, read_listing, tree_faults

SHARED = (".flaskenv", "instance")
OWN = ("pyenv", "services.json")
LIMIT = 1 << 20


def tree(*files: str, size: int = 10, mode: str = "100644", **links: str) -> Tree:
    """Return a tree with FILES, and LINKS by path, in which ``__`` stands for a slash."""
    entries = {path: TreeEntry(path, mode, "0" * 40, size) for path in files}
    targets = {path.replace("__", "/"): target for path, target in links.items()}
    entries |= {path: TreeEntry(path, "120000", "0" * 40, len(target)) for path, target in targets.items()}
    return Tree(entries, targets)


def faults(found: Tree, submodules: bool = False) -> list[str]:
    return tree_faults(found, SHARED, OWN, LIMIT, submodules)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "a/../../b",
        "a/./b",
        "a//b",
        "/etc/passwd",
        ".git/config",
        "a/.GIT/hooks/post-checkout",
        "git~1/config",
        "a\nb",
        "a\x1b[2J",
        "a" * 300,
        "/".join("a" * 70),
        "pyenv/bin/python",
        "services.json",
    ],
    ids=lambda path: repr(path[:30]),
)
def test_paths_that_no_module_may_have(path: str) -> None:
    assert faults(tree(path))


@pytest.mark.parametrize(
    "found",
    [
        tree(a="/etc/passwd"),
        tree(a="../core/keys/jwt_private.pem"),
        tree(a__b__c="../../../x"),
        tree(a=""),
        tree(a="b/../.."),
        tree("x/y/z/file", top="x/..", x__y__z__l="../../../top/../..", x__y__m="z/l/.."),
        tree("x/y/z/file", x__y__z__l="../../../top", x__y__z__m="l/../../../etc", top="x"),
        tree(a="b", b="a"),
        tree(a="instance/../../secrets"),
        tree(a="instance/.."),
        tree(instance="/etc"),
        tree(instance="somewhere"),
    ],
    ids=lambda found: str(dict(found.targets))[:60],
)
def test_links_that_leave_the_tree(found: Tree) -> None:
    assert faults(found)


@pytest.mark.parametrize(
    "found",
    [
        tree("run.py", "static/a.css", latest="static/a.css", a__b="../static", c="instance/settings"),
        tree("x/y/file", x__l="y/..", m="x/l/y/file"),
        tree(".github/workflows/ci.yml", "a.git", ".gitignore", "instance/default.conf"),
    ],
    ids=lambda found: next(iter(found.entries)),
)
def test_links_and_names_that_are_allowed(found: Tree) -> None:
    assert faults(found) == []


def test_a_tree_that_is_too_large_is_refused() -> None:
    assert "MB" in faults(tree("a", "b", size=LIMIT))[0]


def test_submodules_are_refused_unless_they_are_asked_for() -> None:
    found = tree("a", mode="160000")
    assert "submodule" in faults(found)[0]
    assert faults(found, submodules=True) == []


def test_many_faults_are_counted() -> None:
    assert faults(tree(*(f"pyenv/{number}" for number in range(20))))[-1] == "and 15 more"


@pytest.mark.parametrize(
    "content",
    [b"100644 blob x 3\ta\0", b"garbage\0", b"100644 blob " + b"0" * 40 + b" 3\0", b"040000 tree 1\ta\0"],
)
def test_a_listing_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        read_listing(content)


def test_a_listing() -> None:
    line = b"100755 blob " + b"a" * 40 + b"      17\tbin/\xff\n\0"
    assert read_listing(line) == [TreeEntry("bin/\udcff\n", "100755", "a" * 40, 17)]
