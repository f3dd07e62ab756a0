"""The `reorder` program: one file a command, each importing its work inside itself."""
