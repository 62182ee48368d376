"""Denoisers of finished volumes, trained on the volumes that they denoise.

    entry, methods                      what the command line knows of each: name, options
    job, method                         files and choices; what every denoiser can do
    run <- session, guard, ceiling      from file to file: training with its records, results and what they are worth
    scale, mirror, output, figures      grey levels, borders, files, pictures

`samba`: CryoSamba, learns from the planes of one volume. `n2n`: Noise2Noise, learns from two halves.
"""
