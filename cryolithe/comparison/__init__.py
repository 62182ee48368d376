"""Methods side by side on the user's own data: scores without a truth, what they cannot say, and advice."""
