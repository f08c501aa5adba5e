"""What the commands share. A test checks which package imports which.

core <- data <- training; core <- reporting; core, data <- study <- cluster; the commands on top.
"""
