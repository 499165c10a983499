"""Random numbers that depend only on a seed and names, not on order, batch, process or machine."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """A generator seeded by `seed` and `names`, as (seed, image_id)."""
    keys = [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") for name in names]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *keys])))


def order_key(seed: int, *names: str) -> bytes:
    """A sort key that depends only on `seed` and the names. It costs less than a generator."""
    return hashlib.blake2b("\0".join((str(seed), *names)).encode(), digest_size=8).digest()
