"""The console command `dynts-batch`: one module per subcommand, which reads arguments, calls the package and prints."""
