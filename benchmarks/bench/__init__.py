"""What `make bench` is made of: goals, inputs, the machine, timing, the record of runs, and its pictures."""
