"""The plan: which cases there are, what is timed together, what a worker is told, how long it will take."""
