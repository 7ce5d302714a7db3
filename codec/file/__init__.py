"""The file encoder and decoder: video files to .iwc files and back."""
