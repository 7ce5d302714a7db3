"""Rate control: which frames become sources, at what quality, and which parts of faces are sent."""
