"""CryoSamba (Costa-Filho et al. 2024): every plane is predicted from its neighbours along z.

The interpolation network is one for video frames, EBME (Jin et al. 2023): what neighbours share stays, and independent
noise goes.

    warp -> flow, fusion -> model                   the network
    blocks, losses, recipe -> training -> learning  learning from one volume
    gaps, tiles -> inference -> apply, sweep        planes out
    entry, job -> method                            as one of the denoisers
"""
