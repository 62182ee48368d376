"""Where particles are."""
