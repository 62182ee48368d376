"""``python -m cryolithe`` is ``cryolithe``."""

from cryolithe.cli import main

main(prog_name="cryolithe")
