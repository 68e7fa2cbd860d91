"""Iteration-time models of an instance: the law and its presets."""

from preserve_gym.latency.law import LatencyLaw

__all__ = ["LatencyLaw"]
