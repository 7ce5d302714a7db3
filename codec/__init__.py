"""The codec: motion and source coding, the `.iwc` file, media input and output, and the command line."""
