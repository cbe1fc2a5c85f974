"""Registries that want to know who asks, send elsewhere, break off or lie; mirrors; private authorities."""

import base64
import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core0.images import fetch
from core0.images.model import PullError
from core0.images.pull import pull
from core0.wire.images import ImagesConfig, RegistryConfig
from tests.core0.images.registry import MANIFEST, Registry, digest_of, entry, gzipped, tar_of

pytestmark = pytest.mark.usefixtures("mkfs")
TAR = tar_of(entry("hello", bytes(range(256)) * 1000))
SECRET = "correct horse"
BASIC = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()


def known(registry: Registry, **settings: Any) -> ImagesConfig:
    return ImagesConfig({registry.origin: RegistryConfig(**settings)})


def wants_token(
    registry: Registry, realm: str = "", token: Any = "t0ken", password: bool = False
) -> Callable[[Any], bool]:
    """A registry that answers only who has a token, made at its own /token."""

    def before(request: Any) -> bool:
        given = request.headers.get("Authorization")
        if request.path.startswith("/token"):
            if password and given != BASIC:
                return bool(request.say(401))
            return bool(request.say(200, json.dumps({"access_token": token}).encode()))
        if given == f"Bearer {token}":
            return False
        at = realm or f"{registry.origin}/token"
        challenge = f'Bearer realm="{at}",service="a b",scope="repository:demo:pull,push"'
        return bool(request.say(401, WWW_Authenticate=challenge))

    return before


@pytest.mark.parametrize("password", [False, True], ids=["anonymous", "with a password"])
def test_a_token_is_asked_for_once_and_for_pulling_only(
    registry: Registry, tmp_path: Path, password: bool
) -> None:
    registry.push(*(gzipped(tar_of(entry(name, b"x"))) for name in "abcde"))
    registry.before = wants_token(registry, password=password)
    config = known(registry, user="me", password=SECRET) if password else ImagesConfig()
    assert len(pull(registry.job(tmp_path, config=config)).layers) == 5
    first, asked, *rest = registry.headers("Authorization")
    assert first == ("/v2/demo/manifests/latest", None)
    assert parse_qs(urlsplit(asked[0]).query) == {"service": ["a b"], "scope": ["repository:demo:pull"]}
    assert asked[1] == (BASIC if password else None)
    assert {header for _, header in rest} == {"Bearer t0ken"}


def test_a_password_is_told_to_who_asks_for_it_plainly(registry: Registry, tmp_path: Path) -> None:
    registry.push(gzipped(TAR))
    registry.before = lambda request: (
        request.headers.get("Authorization") != BASIC
        and request.say(401, WWW_Authenticate='Digest realm="x", Basic realm="r"')
    )
    pull(registry.job(tmp_path, config=known(registry, user="me", password=SECRET)))
    with pytest.raises(PullError, match=r"wants credentials; give user and password of images\.registries"):
        pull(registry.job(tmp_path))


@pytest.mark.parametrize(
    ("token", "told"),
    [
        pytest.param("", "it answered with none", id="none"),
        pytest.param("a\r\nX: y", "it answered with none", id="a header in it"),
        pytest.param(5, "it answered with none", id="a number"),
        pytest.param("x" * (70 << 10), "it answered with none", id="70 KiB"),
    ],
)
def test_a_token_that_is_none_is_refused(registry: Registry, tmp_path: Path, token: Any, told: str) -> None:
    registry.push(gzipped(TAR))
    registry.before = wants_token(registry, token=token)
    with pytest.raises(PullError, match=told):
        pull(registry.job(tmp_path))


@pytest.mark.parametrize(
    "realm", ["ftp://127.0.0.1/", "file:///etc/passwd", "http://me@127.0.0.1/", "http://[", "x"]
)
def test_a_place_of_tokens_that_is_no_web_address_is_not_asked(
    registry: Registry, tmp_path: Path, realm: str
) -> None:
    registry.push(gzipped(TAR))
    registry.before = wants_token(registry, realm)
    with pytest.raises(PullError, match="cannot get a token for"):
        pull(registry.job(tmp_path))


def test_a_password_goes_to_no_other_machine_without_tls(registry: Registry, tmp_path: Path) -> None:
    registry.push(gzipped(TAR))
    with Registry() as thief:
        registry.before = wants_token(registry, f"{thief.origin}/token")
        with pytest.raises(PullError, match="does not go to another machine without TLS") as refused:
            pull(registry.job(tmp_path, config=known(registry, user="me", password=SECRET)))
        assert thief.asked == []
    assert SECRET not in str(refused.value)


def test_a_wrong_password_is_told_without_it(registry: Registry, tmp_path: Path) -> None:
    registry.push(gzipped(TAR))
    registry.before = wants_token(registry, password=True)
    with pytest.raises(PullError, match="401: it wants credentials, or others") as refused:
        pull(registry.job(tmp_path, config=known(registry, user="me", password="wr0ng")))
    assert "wr0ng" not in str(refused.value)


def test_blobs_come_from_elsewhere_and_the_token_does_not_go_there(
    registry: Registry, tmp_path: Path
) -> None:
    registry.push(gzipped(TAR))
    demand = wants_token(registry)
    with Registry() as store:
        store.content = registry.content

        def before(request: Any) -> bool:
            if demand(request):
                return True
            here = request.path.replace("/blobs/", "/blobs/moved/")
            if "/blobs/" not in request.path:
                return False
            to = f"{store.origin}{request.path}" if "moved" in request.path else here
            return bool(
                request.say(307, Location=to.replace("moved/", "") if "moved" in request.path else to)
            )

        registry.before = before
        pull(registry.job(tmp_path))
        assert {header for _, header in store.headers("Authorization")} == {None}
    moved = [header for path, header in registry.headers("Authorization") if "moved" in path]
    assert set(moved) == {"Bearer t0ken"}, "on the same server it goes along"


@pytest.mark.parametrize(
    ("location", "told"),
    [
        pytest.param("", "redirects without end", id="itself"),
        pytest.param("ftp://127.0.0.1/x", "leads to no web address", id="FTP"),
        pytest.param("file:///etc/passwd", "redirects without end, or to no web address", id="a file"),
        pytest.param("http://me:word@127.0.0.1/", "leads to no web address", id="a user"),
        pytest.param("http://[::1", "cannot fetch", id="no address"),
        pytest.param("http://127.0.0.1:99999/", "leads to no web address", id="no port"),
    ],
)
def test_a_redirect_that_leads_nowhere_ends(
    registry: Registry, tmp_path: Path, location: str, told: str
) -> None:
    registry.before = lambda request: request.say(302, Location=location or request.path)
    with pytest.raises(PullError, match=told):
        pull(registry.job(tmp_path))
    assert len(registry.asked) <= 10


def certified(folder: Path, name: str = "127.0.0.1", *, keep: bool = False) -> tuple[ssl.SSLContext, str]:
    """A server's side of TLS, kept as tls.pem if asked for, and the certificate that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.pem").write_text(pem + private.decode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    if not keep:
        (folder / "tls.pem").unlink()
    return context, pem


def test_a_private_authority_of_the_config_is_believed_and_nobody_else(tmp_path: Path) -> None:
    trust, ca = certified(tmp_path)
    _, other = certified(tmp_path)
    with Registry(trust) as registry:
        registry.push(gzipped(TAR))
        pull(registry.job(tmp_path, config=known(registry, ca=ca)))
        for settings in ({}, {"ca": other}):
            with pytest.raises(
                PullError, match=r"self-signed certificate; give its authority as ca of images\.reg"
            ):
                pull(registry.job(tmp_path, config=known(registry, **settings)))
        with pytest.raises(PullError, match=r"cannot use the ca of images\.registries"):
            pull(registry.job(tmp_path, config=known(registry, ca="-----BEGIN CERTIFICATE-----\nnone\n")))


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    trust, ca = certified(tmp_path, "127.0.0.2")
    with Registry(trust) as registry, pytest.raises(PullError, match="IP address mismatch"):
        pull(registry.job(tmp_path, config=known(registry, ca=ca)))


def test_from_https_nothing_leads_to_http(registry: Registry, tmp_path: Path) -> None:
    trust, ca = certified(tmp_path)
    with Registry(trust) as secure:
        config = known(secure, ca=ca, user="me", password=SECRET)
        secure.before = lambda request: request.say(307, Location=registry.origin + request.path)
        with pytest.raises(PullError, match="away from https"):
            pull(secure.job(tmp_path, config=config))
        secure.before = wants_token(secure, f"{registry.origin}/token")
        with pytest.raises(PullError, match="it is no https address"):
            pull(secure.job(tmp_path, config=config))
    assert registry.asked == []


def test_the_manifest_for_this_machine_is_found_through_indexes(registry: Registry, tmp_path: Path) -> None:
    ours, theirs = registry.push(gzipped(TAR), tag="x:ours"), registry.push(gzipped(TAR), tag="x:theirs")
    inner = registry.push_index(
        [{**theirs, "platform": {"os": "windows", "architecture": "amd64"}},
         {**ours, "platform": {"os": "linux", "architecture": "amd64"}}], "x:inner"
    )  # fmt: skip
    registry.push_index([{**theirs, "platform": {"os": "linux", "architecture": "arm64"}}, inner])
    assert pull(registry.job(tmp_path)).digest == ours["digest"]


def test_a_platform_that_is_not_there_is_told_with_those_that_are(registry: Registry, tmp_path: Path) -> None:
    one = registry.push(gzipped(TAR), tag="x:one")
    platforms = (("linux", "arm64", "v8"), ("windows", "amd64", ""))
    registry.push_index(
        [{**one, "platform": {"os": os, "architecture": arch, "variant": v}} for os, arch, v in platforms]
    )
    told = r"not made for linux/amd64 \(offered: 'linux/arm64/v8, windows/amd64'\); build it for linux/amd64"
    with pytest.raises(PullError, match=told):
        pull(registry.job(tmp_path))


def test_documents_that_two_readers_would_understand_differently_are_refused(
    registry: Registry, tmp_path: Path
) -> None:
    one = registry.push(gzipped(TAR), tag="x:one")
    both = {**json.loads(registry.content[one["digest"]][0]), "manifests": [one]}
    registry.tag(json.dumps(both).encode(), MANIFEST, "demo:latest")
    with pytest.raises(PullError, match="an index and a manifest at once"):
        pull(registry.job(tmp_path))


def test_a_tag_that_moved_does_not_come_under_a_digest(registry: Registry, tmp_path: Path) -> None:
    pinned = registry.push(gzipped(TAR))
    assert pull(registry.job(tmp_path, f"demo@{pinned['digest']}")).digest == pinned["digest"]
    registry.content[pinned["digest"]] = registry.content["demo:latest"] = (b'{"schemaVersion":2}', MANIFEST)
    with pytest.raises(PullError, match="the registry sent one with sha256:"):
        pull(registry.job(tmp_path, f"demo@{pinned['digest']}"))


def test_a_mirror_is_asked_first_below_its_folder_and_with_its_own_password(
    registry: Registry, tmp_path: Path
) -> None:
    with Registry() as mirror:
        mirror.push(gzipped(TAR), tag="hub/demo:latest")
        mirror.before = lambda request: (
            request.headers.get("Authorization") != BASIC
            and request.say(401, WWW_Authenticate="Basic realm=x")
        )
        through = RegistryConfig(mirrors=(f"{mirror.origin}/hub",))
        own = RegistryConfig(user="me", password=SECRET)
        pull(registry.job(tmp_path, config=ImagesConfig({registry.origin: through, mirror.origin: own})))
        assert mirror.asked[0][0] == "/v2/hub/demo/manifests/latest"
    assert registry.asked == []


def test_what_mirrors_do_not_have_comes_from_the_registry(registry: Registry, tmp_path: Path) -> None:
    registry.push(gzipped(TAR))
    with Registry() as gone:
        pass
    with Registry() as empty, Registry() as half:
        half.content = {**registry.content}
        del half.content[digest_of(gzipped(TAR)[1])]
        config = known(registry, mirrors=(gone.origin, empty.origin, half.origin))
        pull(registry.job(tmp_path, config=config))
        assert len(empty.asked) == 1
    assert [path.rpartition("/")[2] for path, _ in registry.asked] == [digest_of(gzipped(TAR)[1])]


def test_when_nobody_has_it_each_is_told(registry: Registry, tmp_path: Path) -> None:
    with Registry() as mirror, pytest.raises(PullError) as refused:
        pull(registry.job(tmp_path, config=known(registry, mirrors=(mirror.origin,))))
    assert [one in str(refused.value) for one in (mirror.origin, registry.origin)] == [True, True]


LARGE = tar_of(entry("large", bytes(range(256)) * 4000))
BLOB = (LARGE, LARGE, "")


def cut(registry: Registry, times: int, after: int = 100_000) -> Callable[[Any], bool]:
    """A registry that hangs up in the middle of blobs so often."""
    left = [times]

    def before(request: Any) -> bool:
        content, _ = registry.content.get(request.path.rpartition("/")[2], (b"", ""))
        if left[0] == 0 or len(content) < after or "/blobs/" not in request.path:
            return False
        left[0] -= 1
        first = int(request.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        request.send_response(206 if first else 200)
        request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - first))
        request.end_headers()
        request.wfile.write(content[first : first + after])
        return True

    return before


def test_a_registry_that_dies_within_a_layer_is_taken_up_where_it_ended(
    registry: Registry, tmp_path: Path
) -> None:
    registry.push(BLOB)
    registry.before = cut(registry, 7)
    assert pull(registry.job(tmp_path)).layers == (digest_of(LARGE),)
    ranges = [header for path, header in registry.headers("Range") if path.endswith(digest_of(LARGE))]
    assert ranges == [None, *(f"bytes={n}00000-" for n in range(1, 8))]


def test_another_server_goes_on_where_a_mirror_died_for_good(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_ATTEMPTS", 1)
    registry.push(BLOB)
    with Registry() as mirror:
        mirror.content = registry.content
        dies = cut(mirror, 1)
        mirror.before = lambda request: dies(request) or ("Range" in request.headers and request.say(503))
        assert pull(registry.job(tmp_path, config=known(registry, mirrors=(mirror.origin,)))).layers
    assert registry.headers("Range") == [(f"/v2/demo/blobs/{digest_of(LARGE)}", "bytes=100000-")]


def test_a_server_without_ranges_starts_over(registry: Registry, tmp_path: Path) -> None:
    registry.push(BLOB)
    dies = cut(registry, 1)

    def before(request: Any) -> bool:
        ended = dies(request)
        if "Range" in request.headers:
            del request.headers["Range"]
        return ended

    registry.before = before
    assert pull(registry.job(tmp_path)).layers == (digest_of(LARGE),)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param(b"bytes 5-1024511/1024512", "the server sent another part of it", id="another part"),
        pytest.param(b"", "the server sent another part of it", id="no part at all"),
    ],
)
def test_another_part_than_was_asked_for_is_not_taken(
    registry: Registry, tmp_path: Path, said: bytes, told: str
) -> None:
    registry.push(BLOB)
    dies = cut(registry, 1)
    registry.before = lambda request: (
        dies(request)
        or ("Range" in request.headers and request.say(206, LARGE[100_000:], Content_Range=said.decode()))
    )
    with pytest.raises(PullError, match=told):
        pull(registry.job(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_gets_further_is_given_up(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_ATTEMPTS", 1)
    registry.push(BLOB)
    registry.before = cut(registry, -1, after=0)
    with pytest.raises(OSError, match="it ended early; try later"):
        pull(registry.job(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_speaks_no_http_is_told(registry: Registry, tmp_path: Path) -> None:
    def before(request: Any) -> bool:
        request.wfile.write(b"SSH-2.0-OpenSSH\r\n" * 5)
        return True

    registry.before = before
    with pytest.raises(OSError, match="the server broke off or speaks no HTTP"):
        pull(registry.job(tmp_path))


def test_a_blob_longer_than_its_parent_says_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.push(BLOB)
    registry.content[digest_of(LARGE)] = (LARGE + b"x", "")
    with pytest.raises(PullError, match=f"it is longer than {len(LARGE)} bytes"):
        pull(registry.job(tmp_path))


def test_layers_come_at_the_same_time(registry: Registry, tmp_path: Path) -> None:
    meeting = threading.Barrier(3, timeout=20)
    layers = [gzipped(tar_of(entry(name, b"x"))) for name in "abc"]
    registry.push(*layers)
    blobs = {digest_of(blob) for _, blob, _ in layers}

    def before(request: Any) -> bool:
        if request.path.rpartition("/")[2] in blobs:
            meeting.wait()  # nobody is answered until all three have asked
        return False

    registry.before = before
    assert len(pull(registry.job(tmp_path)).layers) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"registry.example.com": {}},
        {"https://registry.example.com/folder": {}},
        {"https://a@registry.example.com": {}},
        {"https://h": {"mirrors": ["ftp://mirror"]}},
        {"https://h": {"mirrors": ["https://mirror/../x"]}},
        {"https://h": {"user": "a:b"}},
        {"https://h": {"password": "a\nb"}},
        {"https://h": {"ca": "/etc/ssl/ca.pem"}},
        {"https://h": {"token": "x"}},
    ],
)
def test_settings_of_registries_that_are_none_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"registries": settings}, ImagesConfig)
