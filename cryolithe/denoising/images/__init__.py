"""Tilt images with less noise, to look at and to align by: never to be reconstructed from.

A denoised image is no projection of the specimen any more: what the network took for noise is gone from one view and
not from the next, so that back-projection of such images shows what is not there (Buchholz et al. 2019; Bepler et al.
2020 denoise micrographs and tomograms, not tilt images before reconstruction). Header and record say so.
"""
