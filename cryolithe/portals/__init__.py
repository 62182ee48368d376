"""Other people's data: projects of copick (``cryolithe[copick]``), the CryoET Data Portal (``cryolithe[portal]``)."""
