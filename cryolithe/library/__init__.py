"""What ``import cryolithe`` offers: the commands as functions, from arrays or files to values."""
