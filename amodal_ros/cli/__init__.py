"""The `amodal` command, one file a subcommand; heavy imports wait until a command runs."""
