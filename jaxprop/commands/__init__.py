"""The subcommands of `jaxprop`: a module each, with its help and `COMMAND`."""
