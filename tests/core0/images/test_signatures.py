"""Images that must be signed: by cosign's way with ECDSA P-256, or Ed25519; and what does not count as signed."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core0.images.model import (
    Image,
    Job,
    PullError,
    RunConfig,
    parse_reference,
    policy_for,
    repository_of,
    sources_of,
)
from core0.images.pull import pull
from core0.images.signatures import policy_of
from core0.images.store import Store
from core0.linux import openssl
from core0.wire.image_signatures import ANNOTATION, PAYLOAD_TYPE, payload_of, tag_of
from core0.wire.images import ImagesConfig, RegistryConfig, SignaturePolicy
from image.signing import LayoutError, sign_layout
from tests.core0.images.registry import (
    CONFIG,
    MANIFEST,
    Registry,
    digest_of,
    entry,
    gzipped,
    serving_folder,
    tar_of,
)
from tests.vm.layouts import write_layout

pytestmark = pytest.mark.usefixtures("mkfs")
TAR = tar_of(entry("hello", b"x"))
COSIGN, STRANGER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
OPERATOR = Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


def sign(payload: bytes, key: Any = COSIGN) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(payload)
    return bytes(key.sign(payload, ec.ECDSA(hashes.SHA256())))


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def attach(
    registry: Registry, digest: str, *signed: tuple[bytes, bytes | str], media_type: str = PAYLOAD_TYPE
) -> None:
    """Have payloads and their signatures for a digest, as `cosign sign` pushes them."""
    layers = []
    for payload, signature in signed:
        text = signature if isinstance(signature, str) else base64.b64encode(signature).decode()
        layers.append({**registry.add(payload, media_type), "annotations": {ANNOTATION: text}})
    manifest = {"schemaVersion": 2, "config": registry.add(b"{}", CONFIG), "layers": layers}
    registry.tag(json.dumps(manifest).encode(), MANIFEST, f"demo:{tag_of(digest)}")


def wanting(prefix: str = "", **policy: Any) -> ImagesConfig:
    return ImagesConfig(signatures={prefix: SignaturePolicy(**({"keys": (pem(COSIGN),)} | policy))})


def job(
    registry: Registry,
    folder: Path,
    config: ImagesConfig,
    reference: str = "demo:latest",
    operator: bytes | None = None,
) -> Job:
    wanted = parse_reference(f"{registry.origin}/{reference}")
    sources = sources_of(wanted, config)
    return Job(wanted, str(folder), (), 1 << 30, sources, policy_of(wanted, config, operator))


def repository(registry: Registry) -> str:
    return registry.origin.removeprefix("http://") + "/demo"


@pytest.mark.parametrize(
    ("key", "policy"),
    [
        pytest.param(COSIGN, {}, id="ECDSA P-256"),
        pytest.param(OPERATOR, {"keys": (pem(STRANGER), pem(OPERATOR))}, id="Ed25519, one of two keys"),
        pytest.param(OPERATOR, {"keys": (), "operator": True}, id="the operator's"),
    ],
)
def test_an_image_that_is_signed_by_who_is_believed_comes(
    registry: Registry, tmp_path: Path, key: Any, policy: dict[str, Any]
) -> None:
    digest = registry.push(gzipped(TAR))["digest"]
    payload = payload_of(digest, repository(registry))
    attach(registry, digest, (payload, sign(payload, STRANGER)), (payload, sign(payload, key)))
    image = pull(job(registry, tmp_path, wanting(**policy), operator=raw(OPERATOR)))
    assert (image.digest, len(image.signer)) == (digest, 16)


def test_an_index_that_is_signed_vouches_for_its_images(registry: Registry, tmp_path: Path) -> None:
    one = registry.push(gzipped(TAR), tag="x:one")
    digest = registry.push_index([{**one, "platform": {"os": "linux", "architecture": "amd64"}}])["digest"]
    payload = payload_of(digest, repository(registry))
    attach(registry, digest, (payload, sign(payload)))
    assert pull(job(registry, tmp_path, wanting())).digest == one["digest"]


def test_a_copy_elsewhere_counts_by_the_name_that_it_was_signed_as(
    registry: Registry, tmp_path: Path
) -> None:
    digest = registry.push(gzipped(TAR))["digest"]
    payload = payload_of(digest, "registry.example.com/team/demo")
    attach(registry, digest, (payload, sign(payload)))
    assert pull(job(registry, tmp_path, wanting(registry.origin, signed_as="registry.example.com/team")))
    with pytest.raises(PullError, match="it is for the repository 'registry"):
        pull(job(registry, tmp_path, wanting()))


def of_type(payload: bytes) -> bytes:
    return payload.replace(b"cosign container image signature", b"atomic container signature")


OTHER = "sha256:" + "1" * 64
# By what each is: how payload and signature are made of an image's digest and repository, and what is said.
REFUSED = {
    "by another key": (
        lambda digest, name: (payload_of(digest, name), sign(payload_of(digest, name), STRANGER)),
        "one was made by no key that the config names, or was changed since",
    ),
    "changed since": (
        lambda digest, name: (payload_of(digest, name) + b" ", sign(payload_of(digest, name))),
        "one was made by no key that the config names, or was changed since",
    ),
    "of another image": (
        lambda _, name: (payload_of(OTHER, name), sign(payload_of(OTHER, name))),
        f"it is of another image: '{OTHER}'",
    ),
    "of another repository": (
        lambda digest, _: (payload_of(digest, "a.b/c"), sign(payload_of(digest, "a.b/c"))),
        "it is for the repository 'a.b/c', not '127.0.0.1:",
    ),
    "of another kind": (
        lambda digest, name: (
            of_type(payload_of(digest, name)),
            sign(of_type(payload_of(digest, name))),
        ),
        "it is of the type 'atomic container signature', not",
    ),
    "no payload": (lambda *_: (b"{}", sign(b"{}")), "its payload is damaged"),
    "no JSON": (lambda *_: (b"[" * 9000, sign(b"[" * 9000)), "its payload is damaged"),
    "no base64": (
        lambda digest, name: (payload_of(digest, name), "?"),
        "one is no base64, empty or too long",
    ),
    "empty": (lambda digest, name: (payload_of(digest, name), b""), "one is no base64, empty or too long"),
    "no signature": (
        lambda digest, name: (payload_of(digest, name), b"\x00" * 70),
        "one was made by no key that the config names",
    ),
    "too long": (
        lambda digest, name: (payload_of(digest, name), b"x" * 600),
        "one is no base64, empty or too long",
    ),
    "huge": (lambda *_: (b" " * 70_000, sign(b" " * 70_000)), "one is no payload of up to 65536 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_signature_that_does_not_count_is_told_by_its_reason(
    registry: Registry, tmp_path: Path, name: str
) -> None:
    make, told = REFUSED[name]
    digest = registry.push(gzipped(TAR))["digest"]
    attach(registry, digest, make(digest, repository(registry)))
    with pytest.raises(PullError) as refused:
        pull(job(registry, tmp_path, wanting()))
    assert told in str(refused.value)
    assert "sign it (zn container image sign, cosign sign --key), or change images.signatures.''" in str(
        refused.value
    )
    assert list(tmp_path.iterdir()) == []
    blobs = {path for path, _ in registry.asked if "/blobs/" in path}
    assert len(blobs) <= 1, "of an image that is not believed nothing is fetched but the payload"


def test_what_is_not_signed_is_told(registry: Registry, tmp_path: Path) -> None:
    digest = registry.push(gzipped(TAR))["digest"]
    with pytest.raises(PullError, match=f"it is not signed: there is no {tag_of(digest)}; sign it"):
        pull(job(registry, tmp_path, wanting()))
    attach(registry, digest)
    with pytest.raises(PullError, match="its signatures' manifest has none"):
        pull(job(registry, tmp_path, wanting()))
    attach(registry, digest, (b"{}", sign(b"{}")), media_type="text/plain")
    with pytest.raises(PullError, match="or of another type"):
        pull(job(registry, tmp_path, wanting()))
    registry.tag(b"{", MANIFEST, f"demo:{tag_of(digest)}")
    with pytest.raises(PullError, match="cannot read the image's manifest"):
        pull(job(registry, tmp_path, wanting()))


def test_a_signature_that_a_mirror_has_not_got_comes_from_the_registry(
    registry: Registry, tmp_path: Path
) -> None:
    digest = registry.push(gzipped(TAR))["digest"]
    payload = payload_of(digest, repository(registry))
    with Registry() as mirror:
        mirror.content = dict(registry.content)
        attach(registry, digest, (payload, sign(payload)))
        mirrored = RegistryConfig(mirrors=(mirror.origin,))
        config = msgspec.structs.replace(wanting(), registries={registry.origin: mirrored})
        assert pull(job(registry, tmp_path, config)).digest == digest
        assert {path.rpartition("/")[2] for path, _ in registry.asked} == {
            tag_of(digest),
            digest_of(payload),
        }


def test_a_registry_that_cannot_tell_of_signatures_is_asked_again_later(
    registry: Registry, tmp_path: Path
) -> None:
    registry.push(gzipped(TAR))
    registry.before = lambda request: request.path.endswith(".sig") and request.say(503)
    with pytest.raises(OSError, match="503"):
        pull(job(registry, tmp_path, wanting()))


def test_only_some_of_many_signatures_are_looked_at(registry: Registry, tmp_path: Path) -> None:
    digest = registry.push(gzipped(TAR))["digest"]
    payload = payload_of(digest, repository(registry))
    attach(registry, digest, *[(payload, sign(payload, STRANGER))] * 32, (payload, sign(payload)))
    with pytest.raises(PullError, match="no signature of it counts"):
        pull(job(registry, tmp_path, wanting()))


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        pytest.param(
            {"keys": (pem(rsa.generate_private_key(65537, 2048)),)}, "neither an ECDSA P-256", id="RSA"
        ),
        pytest.param(
            {"keys": (pem(ec.generate_private_key(ec.SECP384R1())),)}, "neither an ECDSA P-256", id="P-384"
        ),
        pytest.param(
            {"keys": ("-----BEGIN PUBLIC KEY-----\n?\n-----END PUBLIC KEY-----",)},
            "neither an ECDSA P-256",
            id="no base64",
        ),
        pytest.param({"keys": (), "operator": True}, "the node knows none", id="no operator"),
    ],
)
def test_a_key_that_is_none_lets_nothing_through(
    registry: Registry, tmp_path: Path, policy: dict[str, Any], told: str
) -> None:
    registry.push(gzipped(TAR))
    with pytest.raises(PullError, match=told):
        pull(job(registry, tmp_path, wanting(**policy)))


def test_a_key_that_is_no_point_of_its_curve_is_an_error() -> None:
    spki = base64.b64decode("".join(pem(COSIGN).splitlines()[1:-1]))
    with pytest.raises(openssl.OpenSslError, match="cannot read the public key"):
        openssl.verify_spki(spki[:-1] + bytes([spki[-1] ^ 1]), sign(b"x"), b"x")


@pytest.mark.parametrize(
    ("signatures", "reason"),
    [
        pytest.param({"": {}}, "cannot require signatures of nobody", id="nobody"),
        pytest.param({"": {"keys": ["x"]}}, "it is no public key in PEM", id="no PEM"),
        pytest.param({"example.com": {"operator": True}}, "cannot use prefix", id="no address"),
        pytest.param({"": {"operator": True, "signed_as": "a b"}}, "cannot use signed_as", id="no name"),
        pytest.param({"": {"key": []}}, "unknown field `key`", id="unknown"),
        pytest.param({"https://a.example:99999": {"operator": True}}, "cannot use prefix", id="no port"),
    ],
)
def test_what_the_config_says_of_signatures_is_looked_at(signatures: dict[str, Any], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert({"signatures": signatures}, ImagesConfig)


@pytest.mark.parametrize("pool", ["", "../x", "Fast", "-x", "a" * 41])
def test_a_pool_that_is_no_name_is_refused(pool: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"cannot use pool|length"):
        msgspec.convert({"pool": pool}, ImagesConfig)


PLAIN, EXEMPT = SignaturePolicy(operator=True), SignaturePolicy(required=False)
PREFIXES = ImagesConfig(
    signatures={
        "": PLAIN,
        "https://a.example/team": SignaturePolicy(operator=True, signed_as="hub/x"),
        "https://a.example/team/free": EXEMPT,
        "local:": SignaturePolicy(operator=True, signed_as=""),
        "http://10.0.2.2:8080/oci": SignaturePolicy(operator=True, signed_as="oci"),
    }
)


@pytest.mark.parametrize(
    ("reference", "prefix"),
    [
        ("https://a.example/team/demo:latest", "https://a.example/team"),
        ("https://A.Example:443/team/demo", "https://a.example/team"),
        ("https://a.example//team/demo", "https://a.example/team"),
        ("https://a.example/team", "https://a.example/team"),
        ("https://a.example/teams/demo", ""),
        ("http://a.example/team/demo", ""),
        ("https://a.example:444/team/demo", ""),
        ("https://a.example/team/free/demo", None),
        ("https://a.example/team/freedom", "https://a.example/team"),
        ("http://10.0.2.2:8080/oci/demo/#latest", "http://10.0.2.2:8080/oci"),
        ("http://10.0.2.2:8080/ocidemo/", ""),
        ("http://10.0.2.2:8080/oci/demo.tar", "http://10.0.2.2:8080/oci"),
        ("local:demo:1", "local:"),
    ],
)
def test_the_longest_prefix_counts_however_a_reference_is_written(reference: str, prefix: str | None) -> None:
    found = policy_for(parse_reference(reference), PREFIXES)
    assert (found[0] if found else None) == prefix


@pytest.mark.parametrize("path", ["a//b/", "../a/", "a/./b/", "%2e/", "a/%61/", "/"])
def test_a_layout_has_one_way_to_be_written(path: str) -> None:
    with pytest.raises(ValueError, match="empty, dotted or encoded names"):
        parse_reference(f"http://10.0.2.2:8080/{path}")


def test_what_signatures_call_a_repository() -> None:
    reference = parse_reference("https://A.example:443/team/demo:latest")
    assert repository_of(reference, "", "") == "A.example:443/team/demo"
    assert repository_of(reference, "https://a.example/team", "hub/x") == "hub/x/demo"
    assert repository_of(parse_reference("local:team/demo:1"), "local:", "") == "team/demo"


def test_a_policy_that_comes_later_counts_for_what_is_here(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    reference = "http://127.0.0.1:9/demo:latest"
    by_nobody = Image("sha256:" + "0" * 64, RunConfig(), ())
    (images / "images.json").write_bytes(msgspec.json.encode({reference: by_nobody}))
    config = ImagesConfig()
    store = Store(images, lambda: config)
    assert store.get(reference) == by_nobody
    config = wanting()
    assert store.get(reference) is None, "it was pulled without"


def test_a_reference_that_is_none_any_more_is_an_image_that_is_not_here(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    by_nobody = Image("sha256:" + "0" * 64, RunConfig(), ())
    (images / "images.json").write_bytes(msgspec.json.encode({"http://h:99999/demo": by_nobody}))
    assert Store(images, wanting).get("http://h:99999/demo") is None


def test_a_layout_is_signed_where_it_lies(tmp_path: Path) -> None:
    folder, work = tmp_path / "oci/demo", tmp_path / "work"
    work.mkdir()
    write_layout(folder, TAR)
    digests = sign_layout(folder, OPERATOR.sign)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert sign_layout(folder, OPERATOR.sign) == digests
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    sign_layout(folder, Ed25519PrivateKey.generate().sign, "other/name")
    with serving_folder(tmp_path) as origin:
        reference = parse_reference(f"{origin}/oci/demo/")
        config = ImagesConfig(signatures={"": SignaturePolicy(operator=True)})

        def wanted(operator: Ed25519PrivateKey) -> Job:
            policy = policy_of(reference, config, raw(operator))
            return Job(reference, str(work), (), 1 << 30, sources_of(reference, config), policy)

        assert pull(wanted(OPERATOR)).digest == digests[0]
        with pytest.raises(PullError, match="one was made by no key"):
            pull(wanted(Ed25519PrivateKey.generate()))


@pytest.mark.parametrize(
    ("index", "told"),
    [
        (None, "No such file"),
        ("{", "no OCI layout"),
        ('{"manifests": [{}]}', "no OCI layout"),
        ('{"manifests": []}', "it has no image"),
        ("[]", "no OCI layout"),
    ],
)
def test_what_is_no_layout_is_not_signed(tmp_path: Path, index: str | None, told: str) -> None:
    if index is not None:
        (tmp_path / "index.json").write_text(index)
    with pytest.raises(LayoutError, match=told):
        sign_layout(tmp_path, OPERATOR.sign)
