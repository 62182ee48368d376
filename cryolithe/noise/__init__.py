"""Measured noise: what a laboratory's own half frames say of its noise and its signal, and images that have both.

`measure_halves`, or `measure_neighbours`, and `pool` make a `Profile`; `cryolithe.noise.stored` keeps it; `imitate`
gives simulated images its spectra and its noise.
"""

from __future__ import annotations
