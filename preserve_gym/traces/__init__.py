"""Traces of requests: reading, scaling, and a synthetic workload for where there is no data."""

from preserve_gym.traces.catalog import DATASETS, Dataset, load_trace, trace_names
from preserve_gym.traces.client_lengths import ClientLengths, servegen_trace
from preserve_gym.traces.lengths import Lengths, read_lengths
from preserve_gym.traces.readers import read_trace
from preserve_gym.traces.scaling import scale_rate
from preserve_gym.traces.servegen import ClientWindows, LengthSampler, read_client_windows
from preserve_gym.traces.synthetic import synthetic_trace
from preserve_gym.traces.trace import Trace

__all__ = [
    "DATASETS",
    "ClientLengths",
    "ClientWindows",
    "Dataset",
    "LengthSampler",
    "Lengths",
    "Trace",
    "load_trace",
    "read_client_windows",
    "read_lengths",
    "read_trace",
    "scale_rate",
    "servegen_trace",
    "synthetic_trace",
    "trace_names",
]
