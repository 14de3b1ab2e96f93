"""What was trained, put to use: features, classes, and the commands that write them."""
