"""What the commands share, in rooms: who imports whom is a rule that a test holds.

core <- data <- training; core <- reporting; core, data <- study <- cluster; the commands on top.
"""
