"""The bytes of an `.iwc` file and of packets: read, write and inspect."""
