"""A trained model made ready to be given away."""
