"""Tables of collectives: what GPUs spend on exchanging data, in a format of our own.

Columns: ``collective`` (``all_reduce`` or ``all_gather``), ``workers`` (GPUs), ``bytes`` (of a GPU),
``time_us``; as nccl-tests prints them. Without rows of ``all_gather``, a gather of the logits is given the
time of an all-reduce.
"""

from __future__ import annotations

import pandas as pd

from preserve_gym.errors import InputError
from preserve_gym.latency.parts import Parts, Target
from preserve_gym.latency.tables import curve

COLUMNS = ("collective", "workers", "bytes", "time_us")


def exchange(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """All-reduces and gathers."""
    rows = table[table["workers"] == target.tp]
    reduces = rows[rows["collective"] == "all_reduce"]
    if reduces.empty:
        raise InputError(f"{source}: workers: expected rows of all_reduce with {target.tp}")
    gathers = rows[rows["collective"] == "all_gather"]
    reduce_us = curve(reduces, "bytes", "time_us")
    gather_us = reduce_us if gathers.empty else curve(gathers, "bytes", "time_us")
    return Parts(exchange_s=target.exchange_s(reduce_us, gather_us, unit_s=1e-6))
