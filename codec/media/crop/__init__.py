"""The coded square of a picture: its modes, the face in it, and how it follows the face."""
