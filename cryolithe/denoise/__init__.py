"""Denoisers of finished volumes, trained on the one volume that they denoise.

`samba` is CryoSamba (Costa-Filho et al. 2024): every plane is predicted from its neighbours along z by an interpolation
network for video frames, EBME (Jin et al. 2023), so that what neighbours share stays and independent noise goes.

    warp -> flow, fusion -> model       the network
    scale, blocks, losses, recipe -> training, state     learning from one volume
    gaps, tiles -> inference -> guard, sweep             planes out, and what they are worth
    job -> run                          from file to file
"""
