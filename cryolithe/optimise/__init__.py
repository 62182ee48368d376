"""How any network here is trained: one step, loop, state on disk and recorder, over any number of processes."""
