"""Learned policies will live here, with what trains them; so far, the environments for Stable-Baselines3."""
