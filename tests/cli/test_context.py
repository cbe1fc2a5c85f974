"""The contexts file: written whole, private, and read back as it was."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import context
from cli.context import Context, Contexts, CoreXEndpoint
from cli.outcome import ExitCode, Failure

# XML-like control characters are escaped, surrogates are no text
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
ENDPOINTS = st.builds(CoreXEndpoint, NAMES, NAMES, NAMES)
CONTEXTS = st.builds(Context, NAMES, NAMES, NAMES, NAMES, st.dictionaries(NAMES, ENDPOINTS, max_size=2))
NODE = Context("127.0.0.1:1", "ab" * 32, "operator.pem")


@given(known=st.dictionaries(NAMES, CONTEXTS, max_size=3), current=NAMES)
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, known: dict[str, Context], current: str
) -> None:
    path = tmp_path_factory.mktemp("contexts") / "contexts.toml"
    context.save(path, Contexts(current, known))
    assert context.load(path) == Contexts(current, known)


def test_file_key_and_tokens_are_private(tmp_path: Path) -> None:
    path = tmp_path / "zeronode" / "contexts.toml"
    context.put(path, "local", NODE)
    context.write_token(path, "local-demo", "secret")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"contexts.toml": 0o600, "local-demo.token": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_token_is_in_its_own_file_and_goes_with_the_context(tmp_path: Path) -> None:
    path = tmp_path / "contexts.toml"
    endpoint = CoreXEndpoint("127.0.0.1:2", "cd" * 32, context.write_token(path, "local-demo", "secret"))
    context.put(
        path, "local", Context("127.0.0.1:1", "ab" * 32, "operator.pem", container={"demo": endpoint})
    )
    assert context.read_token(path, endpoint) == "secret"
    assert "secret" not in path.read_text()
    context.drop(path, "local")
    assert [file.name for file in tmp_path.iterdir()] == ["contexts.toml"]
    with pytest.raises(Failure, match=r"the token file .* is gone") as caught:
        context.read_token(path, endpoint)
    assert caught.value.code is ExitCode.NOT_ALLOWED


def test_the_last_context_put_is_the_current_one(tmp_path: Path) -> None:
    path = tmp_path / "contexts.toml"
    context.put(path, "one", NODE)
    context.put(path, "two", Context("127.0.0.1:2", "cd" * 32, "operator.pem"))
    assert context.choose(path).address == "127.0.0.1:2"
    assert context.choose(path, "one") == NODE


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        pytest.param("", None, "names none; run zn up first", id="empty"),
        pytest.param('current = "gone"', None, "cannot find context 'gone' .* it has none", id="dangling"),
        pytest.param("current = ", None, "cannot read the contexts file .*; correct it", id="no TOML"),
        pytest.param("colour = 1", None, "unknown field `colour`", id="unknown key"),
        pytest.param(
            "[context.a]\naddress = 1", None, r"Expected `str`, got `int` - at `\$", id="wrong type"
        ),
        pytest.param("", "b", "cannot find context 'b'", id="unknown name"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_what_to_do(
    tmp_path: Path, text: str, name: str | None, message: str
) -> None:
    path = tmp_path / "contexts.toml"
    path.write_text(text)
    with pytest.raises(Failure, match=message) as caught:
        context.choose(path, name)
    assert caught.value.code is ExitCode.USAGE
