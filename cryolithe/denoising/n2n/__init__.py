"""Noise2Noise denoising of half volumes (Lehtinen et al. 2018; Topaz-Denoise, Bepler et al. 2020).

A network learns to predict one half from the other; what it cannot predict is the noise, which is independent.

    unet, msd, scunet -> network        backbones, and the file that they are kept in
    halves -> pairs                     half volumes that belong together, and the patches that are learned from
    losses, gains -> train -> learning  what is minimised, and the amplitudes that some losses do not see
    tiles -> apply                      application to whole volumes
    entry, job, view -> method          as one of the denoisers
"""
