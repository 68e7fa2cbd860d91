"""What a service costs: GPU-hours, energy and money."""

from __future__ import annotations

from collections.abc import Mapping

from preserve_gym.config import InstanceConfig

_J_PER_KWH = 3.6e6


def costs(instance: InstanceConfig, totals: Mapping[str, float]) -> dict[str, float]:
    """``gpu_hours``, ``energy_kwh`` and ``cost_usd``; a figure whose basis is not known is left out.

    GPU-hours are ``instance_s * gpus / 3600``; ``cost_usd`` is GPU-hours times ``usd_per_gpu_hour``. Energy
    is that of ``power`` on each GPU::

        gpus * (idle_w * (instance_s - busy_s)
                + prefill_w * prefill_busy_s
                + decode_w * (busy_s - prefill_busy_s))

    An iteration that prefills and decodes draws what one that prefills does, however few tokens it has; an
    instance that starts draws idle power. What the host draws, and cooling, are left out.

    Args:
        instance: what each instance of the cluster is.
        totals: ``instance_s``, ``busy_s`` and ``prefill_busy_s`` of ``TOTALS``, or the change of them.
    """
    gpu_hours = totals["instance_s"] * instance.gpus / 3600.0
    figures = {"gpu_hours": gpu_hours}
    if (power := instance.power) is not None:
        busy_s, prefill_s = totals["busy_s"], totals["prefill_busy_s"]
        idle_j = power.idle_w * (totals["instance_s"] - busy_s)
        busy_j = power.prefill_w * prefill_s + power.decode_w * (busy_s - prefill_s)
        figures["energy_kwh"] = instance.gpus * (idle_j + busy_j) / _J_PER_KWH
    if instance.usd_per_gpu_hour is not None:
        figures["cost_usd"] = gpu_hours * instance.usd_per_gpu_hour
    return figures
