"""The console command `dynts-batch`: one module per subcommand.

A module reads arguments, calls the package and prints.
"""
