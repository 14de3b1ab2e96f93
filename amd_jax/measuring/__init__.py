"""What a program takes on the devices that are here: time, memory, and the least that it could take."""
