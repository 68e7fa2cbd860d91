"""Commands that run, measure and compare policies; run from the checkout."""
