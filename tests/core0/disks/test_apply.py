"""What the actions on disks tell their tools."""

import pytest

from core0.disks.apply import key_derivation
from core0.wire.storage import KeySource


@pytest.mark.parametrize(
    ("source", "derivation"), [("operator", "argon2id"), ("config", "argon2id"), ("tpm2", "pbkdf2")]
)
def test_only_keys_that_people_choose_are_made_dear_to_guess(source: KeySource, derivation: str) -> None:
    assert key_derivation(source)[:2] == ("--pbkdf", derivation)
