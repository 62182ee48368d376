"""``python -m cryolithe``: the same as the command ``cryolithe``."""

from cryolithe.cli import main

main(prog_name="cryolithe")
