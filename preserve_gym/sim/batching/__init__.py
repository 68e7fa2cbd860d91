"""Schedulers: what runs in the next iteration of an instance. One file each."""
