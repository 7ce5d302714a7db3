"""The command line of files: `iwcodec encode`, `decode`, `play`, `info`, `doctor`, and what other commands share."""
