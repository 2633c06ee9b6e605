"""The libraries that models are of: each is imported only when a model of it is loaded."""
