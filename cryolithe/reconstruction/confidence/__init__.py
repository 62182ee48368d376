"""How far a network's volume can be trusted: the runs that should agree, and what their differences mean."""
