"""Sound of media files, and Opus."""
