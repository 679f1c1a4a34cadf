"""The subcommands of `jaxprop`: each is a module with its help and `COMMAND`."""
