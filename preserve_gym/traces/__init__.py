"""Traces of requests: reading, transforming, and a synthetic workload for where there is no data."""

from preserve_gym.traces.catalog import load_trace, trace_names
from preserve_gym.traces.client_lengths import ClientLengths, servegen_trace
from preserve_gym.traces.dataset import Dataset
from preserve_gym.traces.dataset_files import dataset_path
from preserve_gym.traces.datasets import DATASETS
from preserve_gym.traces.length_mix import LengthMix
from preserve_gym.traces.lengths import Lengths, read_lengths
from preserve_gym.traces.modulation import ArrivalPattern, Modulation, Silence
from preserve_gym.traces.rate_shapes import Burst, Ramp, Step, modulate_rate
from preserve_gym.traces.readers import read_trace
from preserve_gym.traces.scaling import scale_rate
from preserve_gym.traces.servegen import ClientWindows, LengthSampler, read_client_windows
from preserve_gym.traces.synthetic import synthetic_trace
from preserve_gym.traces.trace import Trace
from preserve_gym.traces.transform import Transform
from preserve_gym.traces.transforms import (
    TRANSFORMS,
    LengthDrift,
    Mix,
    Slice,
    SqueezeTime,
    make_transform,
    mix_traces,
)
from preserve_gym.traces.window_counts import WindowCounts

__all__ = [
    "DATASETS",
    "TRANSFORMS",
    "ArrivalPattern",
    "Burst",
    "ClientLengths",
    "ClientWindows",
    "Dataset",
    "LengthDrift",
    "LengthMix",
    "LengthSampler",
    "Lengths",
    "Mix",
    "Modulation",
    "Ramp",
    "Silence",
    "Slice",
    "SqueezeTime",
    "Step",
    "Trace",
    "Transform",
    "WindowCounts",
    "dataset_path",
    "load_trace",
    "make_transform",
    "mix_traces",
    "modulate_rate",
    "read_client_windows",
    "read_lengths",
    "read_trace",
    "scale_rate",
    "servegen_trace",
    "synthetic_trace",
    "trace_names",
]
