"""What files tell of the microscope: CTF, doses, and what was already corrected."""
