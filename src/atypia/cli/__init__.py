"""The command line; the only place that knows cyclopts and rich.

Nothing heavy is imported here: a command's module is imported when the command is run.
"""
