"""X25519 keys of libcrypto against the `cryptography` package."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from core0.linux.openssl import new_x25519


def test_a_key_has_the_public_half_that_others_compute_of_it() -> None:
    made = [new_x25519() for _ in range(3)]
    for private, public in made:
        assert X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw() == public
    assert len({private for private, _ in made}) == 3
