"""The sections of a report. Each is a function in a file of its own, listed once in `lab.SECTIONS`."""
