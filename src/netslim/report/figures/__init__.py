"""The figures: each a function of plain numbers and of the width in inches, from 3.35 (a column of a paper) upwards.

A figure of one's own: a file here with a function that returns a `matplotlib.figure.Figure`, drawn with what
`canvas` has, and a section that shows it (see `netslim.report`). Nothing here depends on time, display or fonts of
the machine: the same records give the same bytes.
"""
