"""The microscope: what is known of its contrast transfer, and contrast transfer and radiation damage undone."""
