"""The codec: motion and source coding, the `.iwc` file, media in and out, the command line."""
