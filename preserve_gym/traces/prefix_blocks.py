"""Prefix blocks: which stretches of prompt the requests of a trace have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = slice | NDArray[np.bool_] | NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class PrefixBlocks:
    """Ids of the blocks that each prompt consists of, one after the other in one array.

    Two requests whose ids begin alike share that part of their prompt, and so could share its KV cache.

    Attributes:
        ids: int32[m], block ids of all requests, in order of the requests.
        offsets: int64[n + 1]; those of request i are ``ids[offsets[i]:offsets[i + 1]]``.
        block_tokens: tokens in a block; the last one of a prompt may have fewer.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    block_tokens: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, request: int) -> NDArray[np.int32]:
        """Block ids of one request, int32[k]."""
        if not 0 <= request < len(self):
            raise IndexError(f"request {request} of {len(self)}")
        return self.ids[self.offsets[request] : self.offsets[request + 1]]

    def take(self, rows: Rows) -> PrefixBlocks:
        """The blocks of some requests: a slice, a mask, or row numbers."""
        starts = self.offsets[:-1][rows]
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
        return PrefixBlocks(self.ids[places], offsets, self.block_tokens)
