"""The look of a laboratory's tilt images on simulated ones, learned without pairs and without halves.

    target      stacks of the laboratory: read, checked, standardised
    measure     power by rings of frequency and tilt; how strong the simulated signal must be; what noise is missing
    network     x = c + noise of the missing spectrum + R(c, z, tilt), odd in its noise: its mean over draws is c
    learn       R against judges of patches and of spectra
    stored      the network on disk
    apply       a simulated series in that style

Images are translated, not volumes: noise is independent from tilt to tilt, and geometry and signal stay what they were.
"""
