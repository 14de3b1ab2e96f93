"""What is looked at while a student trains: scores and pictures, each with its own cadence."""
