"""What long work needs, whatever it makes: a folder that survives a crash, someone to tell, a label."""
