"""What this machine has for a run: devices, cores and memory, processes, optional parts of the program."""
