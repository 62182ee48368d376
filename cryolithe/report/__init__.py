"""Numbers and volumes shown: JSON, figures, pages of HTML, and the one grey scale of all pictures."""
