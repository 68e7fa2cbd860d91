"""Policies that do not learn: PreServe, its rivals, and bounds; run from the checkout."""
