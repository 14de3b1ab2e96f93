"""What `export` writes: a file a format."""
