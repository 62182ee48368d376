"""The images of a series, prepared: defects, brightness, CTF, rotation, binning."""
