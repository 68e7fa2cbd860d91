"""Learned policies: what trains them, the trained models, and how they play; run from the checkout."""
