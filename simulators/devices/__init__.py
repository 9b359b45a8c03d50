"""Simulated devices: one file each, written from the device's protocol."""
