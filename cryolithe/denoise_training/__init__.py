"""The general Noise2Noise denoiser: trained once on many simulated series, applied to any tomogram without training.

config                  what is trained on what
volumes -> store        halves of a simulated series, and many of them on disk
patches -> train        what a step sees, and the steps
session                 the run's folder, its end, the weights
"""
