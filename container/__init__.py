"""Builds the images, and the base that they are tested on where none can be pulled."""
