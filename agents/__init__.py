"""Learned policies will live here, with what trains them; there are none yet."""
